"""Several experiments side by side: each in a checkout of its own, all with one cache, in one table at the end.

    python -m flows.sweep train.seed=1,2,3 train.decoder.name=luong,soft_attention
    python -m flows.sweep --member "train.seed=1" --member "train.seed=2 train.decoder.dropout=0.5"

A grid, a list of members, or each member with the whole grid. All settings are checked before any work starts; what
experiments share is done once; one that fails is a row with its error. An experiment ends before its model would be
registered: the best is named with the command that retrains with it. Killed and started again with the same settings a
sweep goes on where it was. The table is in reports/sweeps/NAME, and in MLflow the parent run of the trainings.
"""

import argparse
import hashlib
import json
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import State, flow
from prefect.artifacts import create_markdown_artifact
from prefect.exceptions import TerminationSignal
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed, Failed
from ruamel.yaml import YAML

from captioning.outputs import alone_in, whole_folder
from flows import checkout, devices, library, workspace
from flows.artifacts import RECEIPT_NAME, artifact_key
from flows.cancellation import watched
from flows.connection import connected
from flows.experiments import Experiment, Result, expand, shared_work
from flows.git import git, is_repository
from flows.live import forgiving
from flows.orphans import under_supervisor
from flows.stage_graph import Stage, read_stages
from flows.stage_run import NUM_LAST_LINES, dvc_command, read_lines, stage_environment
from flows.workspace import Checkout

SWEEPS = Path("reports") / "sweeps"
NAME = r"[A-Za-z0-9](\.?[A-Za-z0-9_-])*"
"""Of a sweep: of its folder, and of git's references to its commits."""
KEPT = ("metrics.json", "hypotheses.jsonl", "model.json", "training/history.csv", "evaluation.html")
"""Of an experiment's reports, kept with the table."""


@flow
def sweep(
    grid: list[str] | None = None,
    members: list[list[str]] | None = None,
    recipe: str | None = None,
    revision: str | None = None,
    name: str | None = None,
    jobs: int = 1,
) -> State[Any]:
    """Train and evaluate each of several settings, and compare them.

    Args:
        grid: settings with several values, such as train.seed=1,2,3, one an item; every combination is an experiment.
        members: lists of settings, each an experiment, or with a grid each with all of it.
        recipe: a file of recipes/ in place of params.yaml.
        revision: branch, tag or hash of what is run; empty is the commit that the project's folder is at.
        name: of the sweep; empty is one made of its settings.
        jobs: experiments at the same time. This machine's devices are divided among them.
    """
    with watched() as watch:
        try:
            experiments = expand(grid or [], members or [])
            name = name or _name(recipe, experiments)
            return _Sweep(name, experiments, recipe, revision, jobs).run()
        except (ValueError, checkout.BusyError) as error:
            return Failed(message=str(error))
        except TerminationSignal:
            if not watch.is_cancelled:
                raise
            return Cancelled(message="Cancelled; the sweep saw it itself.")


def _name(recipe: str | None, experiments: Sequence[Experiment]) -> str:
    text = json.dumps([recipe, [own.overrides for own in experiments]])
    return f"sweep-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class _Slot:
    """Where one of the experiments of the same time works, and with what."""

    place: Checkout
    devices: list[str]
    """Empty where the machine has none, and where one experiment has them all."""

    @property
    def environment(self) -> dict[str, str]:
        own = {devices.VARIABLE: ",".join(self.devices)} if self.devices else {}
        return {**stage_environment(), **self.place.environment(), **own}


@dataclass(frozen=True)
class _Plan:
    """What all experiments have in common."""

    commit: str
    tip: str
    params: dict[int, str]
    """params.yaml of each experiment, by its number."""
    stages: list[Stage]
    """Those that run, in running order."""
    targets: list[str]
    """Of these, the ones that no other reads from."""


class _Sweep:
    """One run of a sweep. Experiments run in threads, their stages in processes; all end with this process."""

    def __init__(
        self,
        name: str,
        experiments: list[Experiment],
        recipe: str | None,
        revision: str | None,
        jobs: int,
    ) -> None:
        if not re.fullmatch(NAME, name):
            raise ValueError(f"name is {name!r}; expected letters, digits, - and _, such as decoders")
        if jobs < 1:
            raise ValueError(f"jobs is {jobs}; expected 1 or more")
        self._name, self._experiments, self._recipe, self._revision = name, experiments, recipe, revision
        self._jobs = min(jobs, len(experiments))
        self._project = Path.cwd()
        self._folder = self._project / SWEEPS / name
        self._logger = get_run_logger()
        self._is_ending = threading.Event()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._slots: queue.Queue[_Slot] = queue.Queue()

    def run(self) -> State[Any]:
        if not is_repository(self._project):
            raise ValueError(
                f"{self._project} is in no git repository with a commit, and an experiment is a checkout of one; "
                "`git init`, add what is yours and commit it"
            )
        with ExitStack() as stack:
            stack.enter_context(self._alone_among_sweeps())
            places = [Checkout(self._project, f"sweep-{number}") for number in range(1, self._jobs + 1)]
            for place in places:
                stack.callback(place.remove)
            stack.enter_context(workspace.in_environment(places[0].environment()))
            plan = self._plan(places[0])
            if self._jobs > 1:
                stack.enter_context(workspace.alone(self._project, self._logger.info))
                self._do_shared_work(plan, _Slot(places[0], []))
            for slot in self._divided(places):
                self._slots.put(slot)
            return self._compare(plan, self._run_all(plan))

    def _alone_among_sweeps(self) -> Any:
        folder = self._project / workspace.WORK / "sweeps"
        folder.mkdir(parents=True, exist_ok=True)
        return alone_in(folder, lambda: self._logger.info("another sweep runs; waiting until it has ended"))

    def _divided(self, places: list[Checkout]) -> list[_Slot]:
        """Give each checkout its share of the machine's devices; a single one has them all as it is."""
        if len(places) == 1:
            return [_Slot(places[0], [])]
        shares = devices.divided(devices.visible(), len(places))
        if any(shares):
            self._logger.info(f"devices of each: {'; '.join(', '.join(own) for own in shares)}")
        return [_Slot(*pair) for pair in zip(places, shares, strict=True)]

    def _plan(self, place: Checkout) -> _Plan:
        """Check every experiment's settings, and find out which stages run.

        Raises:
            ValueError: one is refused; the message is for the user.
        """
        commit, tip = workspace.resolve(self._project, self._revision)
        if self._revision is None and (changed := workspace.uncommitted_changes(self._project)):
            self._logger.warning(changed)
        place.prepare(commit, tip)
        self._link(place)
        choices = [(self._recipe, own.overrides) for own in self._experiments]
        texts = library.choose(place.folder, choices)
        place.choose(texts[0])
        with chdir(place.folder):
            stages = _before_registration(read_stages())
        read_from = {name for stage in stages for name in stage.upstream}
        return _Plan(
            commit=commit,
            tip=tip,
            params={own.number: text for own, text in zip(self._experiments, texts, strict=True)},
            stages=stages,
            targets=[stage.name for stage in stages if stage.name not in read_from],
        )

    def _link(self, place: Checkout) -> None:
        place.link(text.partition("=")[2] for own in self._experiments for text in own.overrides)

    def _do_shared_work(self, plan: _Plan, slot: _Slot) -> None:
        """Run what several experiments would otherwise do at the same time; a failure is each one's own."""
        values = {number: YAML(typ="safe", pure=True).load(text) for number, text in plan.params.items()}
        shared = shared_work(slot.place.folder, [stage.name for stage in plan.stages], values)
        for experiment in self._experiments:
            if targets := shared.get(experiment.number):
                self._enter(experiment, plan, slot.place)
                self._repro(experiment, slot, targets)

    def _run_all(self, plan: _Plan) -> list[Result]:
        """Run every experiment; when this is interrupted, end those that run."""
        with ThreadPoolExecutor(self._jobs) as pool:
            futures = [pool.submit(self._run_one, own, plan) for own in self._experiments]
            try:
                wait(futures)
            except BaseException:
                self._is_ending.set()
                for process in list(self._processes):
                    process.terminate()  # its supervisor ends what is below it
                raise
        return [future.result() for future in futures]

    def _run_one(self, experiment: Experiment, plan: _Plan) -> Result:
        slot = self._slots.get()
        try:
            self._enter(experiment, plan, slot.place)
            with self._turn():
                error = self._repro(experiment, slot, plan.targets)
            result = self._keep(experiment, slot.place, plan, error)
            self._logger.info(f"[{experiment.number}] {experiment.name}: {error or 'done'}")
            return result
        except (ValueError, OSError, checkout.BusyError) as error:
            return Result(experiment=experiment, error=str(error))
        finally:
            self._slots.put(slot)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Let a retrain that waits go first, and be alone then; experiments that run at once have theirs already."""
        has_said = self._jobs > 1
        with ExitStack() as stack:
            while self._jobs == 1 and not self._is_ending.is_set():
                try:
                    stack.enter_context(workspace.alone(self._project))
                    break
                except checkout.BusyError as error:
                    if not has_said:
                        self._logger.info(f"{error}; waiting until it has ended")
                    has_said = True
                    self._is_ending.wait(2)
            yield

    def _enter(self, experiment: Experiment, plan: _Plan, place: Checkout) -> None:
        """Make a checkout that of an experiment; its commit is kept, for MLflow names it."""
        place.prepare(plan.commit, plan.tip)
        self._link(place)
        place.choose(plan.params[experiment.number])
        commit = place.begin([*([f"recipe {self._recipe}"] if self._recipe else []), *experiment.overrides])
        reference = f"refs/captioning/sweeps/{self._name}/{experiment.number}"
        git(self._project, "update-ref", reference, commit)

    def _repro(self, experiment: Experiment, slot: _Slot, targets: Sequence[str]) -> str | None:
        """Run stages and what they read from; return the last words of a failure."""
        if self._is_ending.is_set():
            return "the sweep was ended"
        last_lines: deque[str] = deque(maxlen=NUM_LAST_LINES)
        command = dvc_command("--wait-for-lock", "repro", *targets)
        with under_supervisor(command, cwd=slot.place.folder, env=slot.environment) as process:
            self._processes.add(process)
            if self._is_ending.is_set():  # set before this one could be seen
                process.terminate()
            assert process.stdout is not None
            try:
                for line in read_lines(process.stdout):
                    last_lines.append(line)
                    self._logger.info(f"[{experiment.number}] {line}")
                return None if process.wait() == 0 else _last_words(last_lines)
            finally:
                self._processes.discard(process)

    def _keep(self, experiment: Experiment, place: Checkout, plan: _Plan, error: str | None) -> Result:
        """Copy what the table is made of out of the checkout, which another experiment needs."""
        if error:
            return Result(experiment=experiment, error=error)
        outs = [place.folder / out for stage in plan.stages for out in stage.outs]
        metrics = next((out for out in outs if out.name == "metrics.json"), None)
        if metrics is None:
            return Result(experiment=experiment, error="no stage before the registration writes metrics.json")
        with whole_folder(self._folder / str(experiment.number)) as aside:
            for name in KEPT:
                if (metrics.parent / name).is_file():
                    (aside / name).parent.mkdir(exist_ok=True)
                    shutil.copyfile(metrics.parent / name, aside / name)
        return Result(
            experiment=experiment,
            reports=self._folder / str(experiment.number),
            fingerprint=next(filter(None, map(_read_fingerprint, outs)), None),
        )

    def _compare(self, plan: _Plan, results: list[Result]) -> State[Any]:
        """Write the table, show it, and tell MLflow."""
        from flows import sweep_report  # torch and pandas, 4 s, which a schedule that waits does not need

        values = YAML(typ="safe", pure=True).load(plan.params[self._experiments[0].number])
        report = sweep_report.write(self._folder, self._name, results, values["register"], self._recipe)
        with forgiving():
            create_markdown_artifact(
                report.markdown, key=artifact_key(f"sweep {self._name}"), description=f"sweep {self._name}"
            )
        if problem := sweep_report.record(report, self._folder, values["register"]["model_name"]):
            self._logger.warning(problem)
        if report.best is None:
            return Failed(message=f"no experiment ended well; {self._folder / 'sweep.md'} says why")
        self._logger.info(report.next_step)
        failed = [str(own.experiment.number) for own in results if own.error]
        note = f"; failed: {', '.join(failed)}" if failed else ""
        return Completed(message=f"best of {len(results)}: {report.best}{note}. {self._folder / 'sweep.md'}")


def _before_registration(stages: list[Stage]) -> list[Stage]:
    """Return the stages without the one that registers, known by its receipt, and those that read from it."""
    left_out: set[str] = set()
    for stage in stages:
        if any(out.name == RECEIPT_NAME for out in stage.outs) or left_out.intersection(stage.upstream):
            left_out.add(stage.name)
    return [stage for stage in stages if stage.name not in left_out]


def _read_fingerprint(model: Path) -> str | None:
    """Return the fingerprint of the training that made a model folder, None where it is no such folder."""
    try:
        fingerprint = json.loads((model / "captioner.json").read_text()).get("fingerprint")
    except (OSError, ValueError):
        return None
    return str(fingerprint) if fingerprint else None


def _last_words(lines: Sequence[str]) -> str:
    """Return what a stage said last, before DVC's own words about it."""
    own = [
        line for line in lines if not line.startswith(("ERROR: failed to reproduce", "Running stage", "> "))
    ]
    return own[-1] if own else "it was ended"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a sweep; exit code 0 when an experiment ended well."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.sweep", description="Train and evaluate several settings, and compare them."
    )
    parser.add_argument("grid", nargs="*", metavar="KEY=VALUE,...", help="such as train.seed=1,2,3")
    parser.add_argument(
        "--member", action="append", default=[], metavar="'KEY=VALUE ...'", help="settings of one experiment"
    )
    parser.add_argument("--recipe", help="a file of recipes/ in place of params.yaml")
    parser.add_argument("--revision", help="branch, tag or hash (default: the commit that this folder is at)")
    parser.add_argument("--name", help="of the sweep, and of its folder in reports/sweeps")
    parser.add_argument("--jobs", type=int, default=1, help="experiments at the same time")
    options = vars(parser.parse_args(arguments))
    options["members"] = [member.split() for member in options.pop("member")]
    try:
        with connected():
            state = sweep(**options, return_state=True)
    except ValueError as error:
        sys.exit(f"sweep: {error}")
    except KeyboardInterrupt:
        print("sweep: interrupted; started again with the same settings it goes on", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    if not state.is_completed():
        sys.exit(f"sweep: {state.message}")
    print(state.message)


if __name__ == "__main__":
    main()
