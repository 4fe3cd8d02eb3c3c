"""A registered version made again: its revision checked out beside the tree, its stages run anew, the scores compared.

The checkout is a git worktree and a `CAPTIONING_HOME` of its own: what runs in it finds no registry but one that goes
with it, so that nothing is registered and no champion moves. It shares DVC's cache, where its data come from, and the
cache of features.

A reproduction that is killed leaves its checkout and a note of what is done; the same command goes on there. Its lock
is held by the stage that runs, too: a stage that outlives a killed command for a moment is not run beside.
"""

import fcntl
import hashlib
import json
import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from captioning import home, lineage, machine, revision
from captioning.lineage import Lineage
from captioning.outputs import whole_file
from captioning.progress import say
from captioning.reproduction.checkout import bound, bring_inputs, check_out, discard, dvc_status, environment
from captioning.reproduction.stage_order import upstream

STAGES = ("train", "evaluate")
"""Run anew; what they read comes from DVC's cache, or is made anew where it is not there."""
METRICS = Path("reports", "metrics.json")
FOLDER, STATE = "reproductions", "state.json"


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """A version made again."""

    differences: list[str]
    """A sentence for each number that is not as the version has it, after those for outputs that are not."""
    num_numbers: int
    """In reports/metrics.json of the version."""
    folder: Path
    """Where it was made; gone unless it was to be kept."""


def reproduce(
    model_name: str,
    version: str,
    *,
    tree: Path | None = None,
    is_everything: bool = False,
    is_kept: bool = False,
) -> Reproduction:
    """Train and evaluate a version again, as it was, and compare the scores.

    Args:
        model_name: registered model.
        version: its number.
        tree: where to check it out; by default in `CAPTIONING_HOME/.work`.
        is_everything: run all stages before them again, too, from the download on.
        is_kept: leave the checkout there.

    Raises:
        ValueError: the version does not say what made it, or that is not to be had any more, or a stage fails.
    """
    made_by, patch = lineage.read(model_name, version)
    what = f"version {version} of {model_name}"
    _refuse(made_by, patch, what)
    place = home.work(FOLDER, f"{model_name}-{version}")
    tree = (tree or place / "tree").absolute()
    with _alone(place, what) as lock:
        state = _State.of(place, tree, made_by, is_everything)
        if not state.is_prepared:
            _prepare(state, made_by, patch)
        for difference in _differing_machine(made_by, state.folder):
            say(f"reproduce: another machine or environment: {difference}")
        _run_stages(state, made_by, lock)
        reproduction = _compare(made_by, state)
        if not is_kept:
            discard(tree)
        state.path.unlink()
    return reproduction


def unfinished(place: Path) -> Path | None:
    """Return the checkout that a killed reproduction left, as its folder in .work notes it."""
    try:
        return Path(json.loads((place / STATE).read_text())["tree"])
    except (OSError, ValueError, KeyError):
        return None


@dataclass(kw_only=True)
class _State:
    """What is done, in a file beside the checkout: it is there before the checkout is begun, and goes after it."""

    path: Path
    tree: Path
    identity: str
    is_prepared: bool
    stages: list[str]
    """In the order in which they run."""
    done: list[str]

    @classmethod
    def of(cls, place: Path, tree: Path, made_by: Lineage, is_everything: bool) -> "_State":
        """Return the state that an earlier run left, or a new one, after what another one left is removed."""
        described = json.dumps([asdict(made_by), is_everything, str(tree)], sort_keys=True)
        identity = hashlib.sha256(described.encode()).hexdigest()
        path, left = place / STATE, unfinished(place)
        if left is not None:
            found = json.loads(path.read_text())
            if found["identity"] == identity and found["is_prepared"] and left.is_dir():
                say(f"reproduce: an earlier run was ended; going on in {tree}")
                return cls(**(found | {"path": path, "tree": tree}))
            discard(left)
        if tree.exists():
            raise ValueError(
                f"{tree} exists and is not what a reproduction left; name another folder, or remove it "
                f"(`git worktree remove --force {tree}`)"
            )
        stages = upstream(made_by.dvc_lock, STAGES) if is_everything else list(STAGES)
        new = cls(path=path, tree=tree, identity=identity, is_prepared=False, stages=stages, done=[])
        new.write()
        return new

    @property
    def folder(self) -> Path:
        """The project's folder in the checkout."""
        return self.tree / (revision.prefix() or "")

    def write(self) -> None:
        """Note it."""
        values = {key: value for key, value in vars(self).items() if key != "path"} | {"tree": str(self.tree)}
        with whole_file(self.path) as aside:
            aside.write_text(json.dumps(values, indent=1) + "\n")


def _refuse(made_by: Lineage, patch: bytes | None, what: str) -> None:
    """Refuse what cannot be reproduced before anything is begun."""
    if made_by.revision is None:
        raise ValueError(
            f"{what} was registered outside of git, so that its code is not known; it cannot be made again"
        )
    if made_by.uncommitted_code and patch is None:
        raise ValueError(
            f"{what} was made with code that was neither committed nor, being too large, kept as a patch: "
            f"{revision.named(made_by.uncommitted_code)}; it cannot be made again"
        )
    if missing := [stage for stage in STAGES if stage not in made_by.dvc_lock.get("stages", {})]:
        raise ValueError(
            f"{what} was not made by DVC, for its dvc.lock has no stage {' and '.join(missing)}; "
            "it cannot be made again"
        )
    if revision.prefix() is None:
        raise ValueError(f"{Path.cwd()} is in no git repository; reproduce in the project's folder")
    if revision.git("cat-file", "-e", f"{made_by.revision}^{{commit}}") is None:
        raise ValueError(
            f"{what} is of revision {made_by.revision}, which this repository does not have; `git fetch` it first"
        )


def _prepare(state: _State, made_by: Lineage, patch: bytes | None) -> None:
    """Make the checkout, with what the stages read; nothing stays of one that cannot be."""
    try:
        check_out(state.tree, state.folder, made_by, patch)
        state.stages = bring_inputs(state.folder, made_by, state.stages)
    except ValueError:
        discard(state.tree)
        state.path.unlink()
        raise
    state.is_prepared = True
    state.write()


@contextmanager
def _alone(place: Path, what: str) -> Iterator[int]:
    """Hold a folder and yield the descriptor that holds it, for children to hold it as well."""
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{what} is being reproduced by another process; wait until it has ended"
            ) from None
        yield descriptor
    finally:
        os.close(descriptor)


def _run_stages(state: _State, made_by: Lineage, lock: int) -> None:
    """Run what is not done yet, by the commands of dvc.lock."""
    for number, name in enumerate(state.stages, start=1):
        if name in state.done:
            continue
        say(f"reproduce: {name}, stage {number} of {len(state.stages)}")
        commands = made_by.dvc_lock["stages"][name]["cmd"]
        for command in [commands] if isinstance(commands, str) else commands:
            variables = environment(state.folder) | _threads(made_by)
            exit_code = _run(shlex.split(command), state.folder, variables, lock)
            if exit_code != 0:
                raise ValueError(f"{name} ended with exit code {exit_code}; the same command goes on with it")
        state.done.append(name)
        state.write()


def _run(command: Sequence[str], folder: Path, variables: Mapping[str, str], lock: int) -> int:
    with subprocess.Popen(bound(command), cwd=folder, env=dict(variables), pass_fds=[lock]) as process:
        try:
            return process.wait()
        except BaseException:
            process.terminate()  # what it saves, the same command goes on with
            process.wait()
            raise


def _threads(made_by: Lineage) -> dict[str, str]:
    """Return the number of threads as it was: another number adds in another order."""
    return {"OMP_NUM_THREADS": str([made_by.registered_on, *made_by.trained_on][-1]["threads"])}


def _compare(made_by: Lineage, state: _State) -> Reproduction:
    then = dict(_leaves(made_by.metrics))
    now = dict(_leaves(json.loads((state.folder / METRICS).read_text())))
    differences = [
        f"{key}: {then.get(key, 'absent')} then, {now.get(key, 'absent')} now"
        for key in sorted(then.keys() | now.keys())
        if then.get(key) != now.get(key)
    ]
    if differences:
        changed = dvc_status(state.folder, "changed outs", state.stages)
        differences = [f"{path} is another one" for path in changed if path != str(METRICS)] + differences
    return Reproduction(differences=differences, num_numbers=len(then), folder=state.folder)


def _leaves(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    match values:
        case dict():
            for key, value in values.items():
                yield from _leaves(value, f"{prefix}.{key}" if prefix else key)
        case list():
            for number, value in enumerate(values):
                yield from _leaves(value, f"{prefix}.{number}")
        case _:
            yield prefix, values


def _differing_machine(made_by: Lineage, folder: Path) -> list[str]:
    """Say what is not as it was; threads are set as they were, and processes follow from the GPUs."""
    if not made_by.trained_on:
        return ["where the version was trained is not recorded"]
    set_anew = {"threads", "processes"}
    then, now = (
        {key: value for key, value in own.items() if key not in set_anew}
        for own in (made_by.trained_on[-1], machine.describe(folder / machine.LOCK))
    )
    several = [f"the version was trained on {len(made_by.trained_on)} machines, one after the other"]
    return several * (len(made_by.trained_on) > 1) + machine.differences(then, now)
