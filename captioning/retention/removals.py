"""One thing that may go, and what is asked of files for it."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

DAY = 86400.0


@dataclass(frozen=True, kw_only=True)
class Removal:
    """A row of the plan."""

    what: str
    why: str
    num_bytes: int | None
    """None where that would have to be asked of a server, file by file."""
    remove: Callable[[], None] = field(repr=False)
    model_name: str = ""
    version: str = ""
    """Of a registered version that goes."""


def num_bytes(path: Path) -> int:
    """Return the size of a file, or of all files in a folder."""
    return sum(own.lstat().st_size for own in _every(path))


def days_untouched(path: Path) -> float:
    """Return for how long neither a file nor anything in a folder was changed."""
    return (time.time() - max((own.lstat().st_mtime for own in _every(path)), default=time.time())) / DAY


def days_unused(path: Path) -> float:
    """Return for how long a file was neither changed nor, as its reader notes, read."""
    status = path.lstat()
    return (time.time() - max(status.st_mtime, status.st_atime)) / DAY


@contextmanager
def unused(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder and those of the folders in it; yield whether nobody else holds one of them."""
    with ExitStack() as stack:
        for path in (folder, *(own for own in folder.iterdir() if own.is_dir() and not own.is_symlink())):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
        yield True


def _every(path: Path) -> Iterator[Path]:
    yield path
    if path.is_dir() and not path.is_symlink():
        for folder, folders, files in os.walk(path):
            yield from (Path(folder, name) for name in (*folders, *files))
