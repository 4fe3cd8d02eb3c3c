"""The checkout that a version is made again in: its revision and files, DVC's cache, and what its stages read."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from ruamel.yaml import YAML

from captioning import home, lineage, params, revision, source_state
from captioning.lineage import Lineage
from captioning.progress import say
from captioning.reproduction.stage_order import deps, producer, upstream
from captioning.tracking import DVC_LOCK

DVC_FOLDER = ".dvc"
ENDS_WITH_PARENT = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(143)
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Becomes the command that follows, which the kernel asks to end when this process dies."""


def check_out(tree: Path, folder: Path, made_by: Lineage, patch: bytes | None) -> None:
    """Make a git worktree of a version's revision, with the version's own files and the project's caches.

    Args:
        tree: the worktree.
        folder: the project's in it.
        made_by: what made the version.
        patch: of the code that was not committed.

    Raises:
        ValueError: git refuses.
    """
    say(f"reproduce: checking out {made_by.revision} in {tree}")
    tree.parent.mkdir(parents=True, exist_ok=True)
    command = ["worktree", "add", "--force", "--force", "--detach", str(tree), str(made_by.revision)]
    if revision.git(*command, seconds=None) is None:
        raise ValueError(f"git cannot make the checkout; try `git {' '.join(command)}`, which says why")
    if patch is not None:
        if revision.git("apply", "--whitespace=nowarn", "-", stdin=patch, folder=tree) is None:
            raise ValueError(f"{lineage.PATCH} of the version does not apply to {made_by.revision}")
        say(f"reproduce: with the code that was not committed: {revision.named(made_by.uncommitted_code)}")
    if others := [path for path in made_by.uncommitted if not revision.is_code(path)]:
        say(f"reproduce: without other files that were not committed: {revision.named(others)}")
    for name, values in ((DVC_LOCK, made_by.dvc_lock), (params.PARAMS_FILE, made_by.params)):
        with (folder / name).open("w") as file:
            YAML(typ="safe", pure=True).dump(values, file)
    source_state.write(made_by.source, folder / source_state.SOURCE_FILE)
    share_dvc_settings(Path.cwd(), folder)
    work = folder / home.WORK
    work.mkdir(exist_ok=True)
    (work / "features").symlink_to(home.work("features"))
    read = deps(made_by.dvc_lock, made_by.dvc_lock["stages"])
    _link(folder, (path for path in sorted(read) if producer(made_by.dvc_lock, path) is None))


def discard(tree: Path) -> None:
    """Remove a checkout, also one whose making was killed, and git's record of it."""
    revision.git("worktree", "remove", "--force", "--force", str(tree))
    if tree.exists():
        shutil.rmtree(tree)
    revision.git("worktree", "prune")


def share_dvc_settings(project: Path, folder: Path) -> None:
    """Give a checkout the project's cache, remotes and kind of links, with paths that hold from anywhere."""
    from dvc.config import Config
    from dvc.repo import Repo

    with Repo(str(project)) as repo:
        cache = repo.cache.local_cache_dir
    own = Config(str(project / DVC_FOLDER))
    with Config(str(folder / DVC_FOLDER)).edit("local") as settings:
        settings.clear()
        for level in ("repo", "local"):
            for section, values in own.read(level).items():
                settings.setdefault(section, {}).update(values)
        settings["cache"]["dir"] = cache


def bring_inputs(folder: Path, made_by: Lineage, stages: Sequence[str]) -> list[str]:
    """Bring what stages read from DVC's cache, and return the stages with those whose outputs it has no more.

    Raises:
        ValueError: the code is not that which made the version.
    """
    dvc_lock = made_by.dvc_lock
    while True:
        made = {path for path in deps(dvc_lock, stages) if producer(dvc_lock, path) not in {None, *stages}}
        _bring(folder, sorted(path for path in made if not (folder / path).exists()))
        changed = dvc_status(folder, "changed deps", stages)
        if code := [path for path in changed if producer(dvc_lock, path) is None]:
            if absent := [path for path in code if not (folder / path).exists()]:
                raise ValueError(
                    f"the version was made with {revision.named(absent)}, which neither git nor {Path.cwd()} has; "
                    "put it there and try again"
                )
            raise ValueError(
                f"revision {made_by.revision} is not what made the version: {revision.named(code)} differ from its "
                "dvc.lock, for its stages were run with other files than were there when it was registered"
            )
        makers = {str(producer(dvc_lock, path)) for path in changed}.union(stages)
        if makers == set(stages):
            return list(stages)
        say(
            f"reproduce: no longer in DVC's cache, so made anew: {', '.join(sorted(made.intersection(changed)))}"
        )
        stages = [stage for stage in upstream(dvc_lock, stages) if stage in makers]


def dvc_status(folder: Path, kind: str, stages: Collection[str]) -> list[str]:
    """Return the paths of one kind of change, such as `changed outs`, that DVC sees in stages.

    Raises:
        ValueError: DVC cannot read the checkout.
    """
    answer = _dvc(folder, "status", "--json", *stages)
    if answer.returncode != 0:
        raise ValueError(f"DVC cannot read the checkout {folder}: {answer.stderr.strip()[-500:]}")
    entries = [
        entry for own in json.loads(answer.stdout).values() for entry in own if isinstance(entry, dict)
    ]
    return sorted({path for entry in entries for path in entry.get(kind, {})})


def bound(command: Sequence[str]) -> list[str]:
    """Return the command line of `command` that ends, by SIGTERM, when this process dies. From the main thread only."""
    return [sys.executable, "-c", ENDS_WITH_PARENT, str(os.getpid()), *command]


def environment(folder: Path) -> dict[str, str]:
    """Return the variables for what runs in a checkout: its own code and home, and this Python first."""
    variables = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    search_path = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    return variables | {
        "CAPTIONING_HOME": str(folder),
        "PYTHONPATH": str(folder),
        "PATH": os.pathsep.join(search_path),
        "PYTHONUNBUFFERED": "1",
    }


def _link(folder: Path, paths: Iterable[str]) -> None:
    """Link what of `paths` git does not have but the project does, such as files of weights."""
    for path in paths:
        if not (folder / path).exists() and Path(path).exists():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).symlink_to(Path(path).absolute())


def _bring(folder: Path, paths: Sequence[str]) -> None:
    """Put what there is of `paths` into the checkout, from the cache, or from the remote if there is one."""
    from dvc.config import Config

    if not paths:
        return
    has_remote = bool(Config(str(folder / DVC_FOLDER))["core"].get("remote"))
    # Both fail where a thing is nowhere to be found; what is there after all is looked at next.
    _dvc(folder, *(["pull"] if has_remote else ["checkout", "--quiet"]), "--force", *paths)


def _dvc(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = bound([sys.executable, "-m", "dvc", *arguments])
    return subprocess.run(
        command, cwd=folder, env=environment(folder), text=True, capture_output=True, check=False
    )
