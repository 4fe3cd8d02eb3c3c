"""Outputs that appear whole or not at all: written aside, then renamed."""

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; the file takes the place of `path` when the block ends without error."""
    aside = path.with_name(path.name + ".partial")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path, *, resume_in: Path | None = None) -> Iterator[Path]:
    """Yield an empty folder to write into; it takes the place of `folder` when the block ends without error.

    With `resume_in` that folder is yielded with what an earlier, interrupted block left in it, and it survives
    an error. It may lie on another disk.

    Raises:
        ValueError: another process is writing the same output.
    """
    aside = resume_in or folder.with_name(folder.name + ".partial")
    with _locked(aside, folder):
        if not resume_in:
            _empty(aside)
        try:
            yield aside
        except BaseException:
            if not resume_in:
                shutil.rmtree(aside, ignore_errors=True)
            raise
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        _move(aside, folder)


@contextmanager
def alone_in(folder: Path, when_busy: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Wait until no other process is in this block for the same folder; the kernel lets go when a process dies.

    `when_busy` is called before the wait; it may raise instead.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            when_busy()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_full_disk(error: OSError) -> bool:
    """Return whether the disk, or what of it this user may have, is full; HDF5 says so in words alone."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT} or "No space left" in str(error)


@contextmanager
def _locked(aside: Path, folder: Path) -> Iterator[None]:
    """Hold the folder `aside`, made if absent; the kernel lets go of it when the process dies, however it dies."""
    while True:
        aside.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(aside, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"{folder} is being written by another process, which holds {aside}: "
                    "wait until it has ended, or end it, and run again"
                ) from None
            if _is_same(aside, descriptor):  # not so if the process that held it has just renamed it
                yield
                return
        finally:
            os.close(descriptor)


def _is_same(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _move(aside: Path, folder: Path) -> None:
    try:
        aside.rename(folder)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        copy = folder.with_name(folder.name + ".partial")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(aside, copy)
        copy.rename(folder)
        shutil.rmtree(aside, ignore_errors=True)
