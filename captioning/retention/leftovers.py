"""Folders of `.work` that nobody will come back to: interrupted work, features, downloads and stamps.

What a process works in is locked or was changed a moment ago; both stay. To delete too much costs time, never a result.
"""

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from captioning import home, reproduction
from captioning.reproduction.checkout import discard
from captioning.retention.removals import Removal, days_untouched, days_unused, num_bytes, unused

INTERRUPTED = ("download", "clean", "preprocess", "spill")
"""Whose folders are the work of a stage that did not end."""
SETTLED_DAYS = 1.0
"""What is finished or replaced, but was changed within this time, may still be in use."""


def plan(days: float, finished: Collection[str], named: Mapping[str, Collection[str]]) -> Iterator[Removal]:
    """Yield what may go.

    Args:
        days: interrupted work stays for so long, and features since they were last used.
        finished: fingerprints of trainings that ended well.
        named: the versions that an alias names, by registered model.
    """
    yield from _trainings(days, finished)
    yield from _features(days)
    yield from _downloaded(named)
    for kind in INTERRUPTED:
        for folder in _folders(kind):
            if days_untouched(folder) > days:
                yield _of_folder(folder, f"interrupted, and untouched for {days_untouched(folder):.0f} days")
    for folder in _folders(reproduction.FOLDER):
        state = folder / reproduction.STATE
        if days_untouched(state if state.exists() else folder) > days:
            yield _of_folder(folder, "a reproduction that was ended", _remove_reproduction)
    for kind in ("checked", "rescored"):
        yield from _files(kind, days)


def _trainings(days: float, finished: Collection[str]) -> Iterator[Removal]:
    for folder in _folders("train"):
        age = days_untouched(folder)
        if folder.name in finished and age > SETTLED_DAYS:
            yield _of_folder(folder, "its training ended well")
        elif age > days:
            yield _of_folder(folder, f"its training was interrupted {age:.0f} days ago")


def _features(days: float) -> Iterator[Removal]:
    """Yield features that no training used for long; those of the last one stay in any case."""
    folder = home.home() / home.WORK / "features"
    ages = {path: days_unused(path) for path in sorted(folder.glob("*")) if path.is_file()}
    last = min(ages.values(), default=0.0)
    for path, age in ages.items():
        if age > max(days, last + SETTLED_DAYS):
            yield Removal(
                what=_name(path),
                why=f"no training used them for {age:.0f} days",
                num_bytes=num_bytes(path),
                remove=partial(_remove_features, path),
            )


def _downloaded(named: Mapping[str, Collection[str]]) -> Iterator[Removal]:
    for model_name, versions in named.items():
        for folder in _folders("champions", model_name):
            if folder.name not in versions and days_untouched(folder) > SETTLED_DAYS:
                yield _of_folder(folder, "a downloaded version that no alias names")


def _files(kind: str, days: float) -> Iterator[Removal]:
    """Yield the old files of a folder as one."""
    paths = [
        path for path in sorted((home.home() / home.WORK / kind).glob("*")) if days_untouched(path) > days
    ]
    if paths:
        yield Removal(
            what=f"{len(paths):,} files of {home.WORK}/{kind}",
            why=f"older than {days:g} days, and quickly made again",
            num_bytes=sum(map(num_bytes, paths)),
            remove=partial(_unlink, paths),
        )


def _folders(*kind: str) -> list[Path]:
    """Return the folders in one of .work that no process holds."""
    parent = Path(home.home(), home.WORK, *kind)
    found = [path for path in sorted(parent.glob("*")) if path.is_dir() and not path.is_symlink()]
    return [folder for folder in found if _is_unused(folder)]


def _is_unused(folder: Path) -> bool:
    with unused(folder) as is_unused:
        return is_unused


def _of_folder(folder: Path, why: str, delete: Callable[[Path], None] = shutil.rmtree) -> Removal:
    def remove() -> None:
        if folder.is_dir():
            with unused(folder) as is_unused:
                if is_unused:
                    delete(folder)

    return Removal(what=_name(folder), why=why, num_bytes=num_bytes(folder), remove=remove)


def _remove_reproduction(folder: Path) -> None:
    if (tree := reproduction.unfinished(folder)) is not None:
        discard(tree)
    shutil.rmtree(folder)


def _unlink(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _remove_features(path: Path) -> None:
    with unused(path.parent) as is_unused:
        if is_unused:
            path.unlink(missing_ok=True)


def _name(path: Path) -> str:
    return str(path.relative_to(home.home()))
