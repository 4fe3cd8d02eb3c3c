"""Objects of DVC's cache that nothing uses: no checkout of this repository, branch, tag, experiment or held version.

`dvc gc` (3.67) keeps revisions, but neither a dvc.lock that was never committed, as that of a version may be, nor the
work trees beside it. This keeps all of them. As after `dvc gc`, settings that were tried in between are computed anew
when they come back.
"""

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioning import revision
from captioning.lineage import read_lock
from captioning.retention.removals import Removal
from captioning.tracking import DVC_LOCK

if TYPE_CHECKING:
    from dvc.repo import Repo

OBJECT = re.compile(r"[0-9a-f]{32}(\.dir)?")
DVC_FOLDER = ".dvc"


def plan(locks: Sequence[Mapping[str, Any]], clones: Sequence[Path]) -> tuple[list[Removal], list[str]]:
    """Return the objects that nothing uses as one removal, or why nothing can be said about them.

    Args:
        locks: the dvc.lock of each held version.
        clones: other clones that share the cache.
    """
    from dvc.exceptions import DvcException
    from dvc.lock import LockError

    if not Path(DVC_FOLDER).is_dir():
        return [], [f"{Path.cwd()} is no DVC project, so that no cache was looked at"]
    try:
        unused = _unused(locks, clones)
    except LockError:
        return [], ["DVC is at work, so that its cache was not looked at; clean again when it has ended"]
    except (DvcException, ValueError) as error:
        return [], [f"DVC's cache was not looked at: {error}"]
    if not unused:
        return [], []
    removal = Removal(
        what=f"{len(unused):,} objects of DVC's cache",
        why="no checkout, branch, tag or held version uses them",
        num_bytes=sum(unused.values()),
        remove=lambda: _remove(locks, clones),
    )
    return [removal], []


def _remove(locks: Sequence[Mapping[str, Any]], clones: Sequence[Path]) -> None:
    with _everywhere(clones) as (repo, folders):
        unused = _unused_in(repo, folders, locks)
        for path in sorted(
            unused, key=lambda path: path.suffix != ".dir"
        ):  # what lists a folder, then what it lists
            path.unlink(missing_ok=True)


def _unused(locks: Sequence[Mapping[str, Any]], clones: Sequence[Path]) -> dict[Path, int]:
    with _everywhere(clones) as (repo, folders):
        return _unused_in(repo, folders, locks)


def _unused_in(repo: "Repo", folders: Iterable[Path], locks: Iterable[Mapping[str, Any]]) -> dict[Path, int]:
    """Return path and size of each object that nothing uses."""
    odb = repo.cache.local
    everything = {"all_branches": True, "all_tags": True, "all_experiments": True}
    in_git = everything if revision.read() is not None else {}
    used = {own.value for objects in repo.used_objs(**in_git).values() for own in objects}
    for lock in (*locks, *(read_lock(folder / DVC_LOCK) for folder in folders)):
        for stage in lock.get("stages", {}).values():
            for out in stage.get("outs", []):
                used.update(_with_members(str(out.get("md5", "")), odb))
    paths = [Path(odb.oid_to_path(own)) for own in odb.all() if own not in used and OBJECT.fullmatch(own)]
    return {path: path.lstat().st_size for path in paths}


def _with_members(md5: str, odb: Any) -> Iterator[str]:
    """Yield an object and, where it is a folder, those in it."""
    yield md5
    listing = Path(odb.oid_to_path(md5)) if md5.endswith(".dir") else None
    if listing is not None and listing.exists():
        yield from (str(entry["md5"]) for entry in json.loads(listing.read_text()))


@contextmanager
def _everywhere(clones: Sequence[Path]) -> "Iterator[tuple[Repo, list[Path]]]":
    """Hold DVC in this project and in all that share its cache, so that none is between its cache and its dvc.lock.

    Raises:
        ValueError: the cache is shared with clones that are not named.
    """
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.ERROR)
    folders = [folder for folder in (*_work_trees(), *clones) if (folder / DVC_FOLDER).is_dir()]
    with ExitStack() as stack:
        repo = stack.enter_context(Repo())
        cache, own = Path(repo.cache.local_cache_dir), Path(repo.root_dir)
        if not clones and not cache.resolve().is_relative_to(own.resolve()):
            raise ValueError(
                f"{cache} lies outside of {own}; name each clone that shares it (--clone FOLDER)"
            )
        stack.enter_context(repo.lock)
        for folder in folders:
            if folder.resolve() != own.resolve():
                stack.enter_context(stack.enter_context(Repo(str(folder))).lock)
        yield repo, folders


def _work_trees() -> list[Path]:
    """Return this project's folder in each work tree of its repository."""
    answer, inside = revision.git("worktree", "list", "--porcelain"), revision.prefix()
    if answer is None or inside is None:
        return []
    lines = answer.decode(errors="surrogateescape").splitlines()
    return [Path(line.removeprefix("worktree ")) / inside for line in lines if line.startswith("worktree ")]
