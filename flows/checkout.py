"""The checkout that a flow works in: no other flow meanwhile, and afterwards its files as they were.

Prefect keeps two runs of a deployment apart, but neither a run of another deployment or by hand, nor one whose server
was away for minutes. What is held here the kernel lets go when the process dies, however it dies.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo
from dvc.rwlock import rwlock

from captioning.outputs import alone_in, whole_file

DVC_FOLDER = Path(".dvc")


class BusyError(Exception):
    """Someone else works in this checkout; the message says who."""


@contextmanager
def alone(say: Callable[[str], None] | None = None) -> Iterator[None]:
    """Be the only flow in the checkout during the block: wait for another one after a word to `say`.

    Raises:
        BusyError: another flow is in it, and there is no `say`.
        ValueError: the working directory is no DVC project.
    """
    if not DVC_FOLDER.is_dir():
        raise ValueError(f"{Path.cwd()} is no DVC project; start the flow in the project's folder")

    def when_busy() -> None:
        if say is None:
            raise BusyError(f"another flow works in {Path.cwd()}")
        say(f"another flow works in {Path.cwd()}; waiting until it has ended")

    with alone_in(DVC_FOLDER, when_busy):
        yield


@contextmanager
def unread(path: Path) -> Iterator[None]:
    """Keep DVC from reading `path` during the block.

    DVC records what a stage depends on once its command has ended: a file that changes during a download would pass for
    the one that was downloaded by.

    Raises:
        BusyError: a stage that depends on it runs, by whatever command.
        ValueError: DVC refuses for another reason.
    """
    try:
        with Repo() as repo:
            is_hardlink = repo.config["core"].get("hardlink_lock", False)
            with rwlock(repo.tmp_dir, repo.fs, "a flow", [], [str(path.absolute())], is_hardlink):
                yield
    except LockError as error:
        raise BusyError(f"{path} is in use: {error}") from error
    except DvcException as error:
        raise ValueError(f"DVC cannot be used in {Path.cwd()}: {error}") from error


@contextmanager
def put_back(*paths: Path) -> Iterator[None]:
    """Put files back after the block as they were before it.

    The copies beside them survive a kill: `recover` puts them back.
    """
    for path in filter(Path.exists, paths):
        with whole_file(_copy(path)) as aside:
            aside.write_bytes(path.read_bytes())
    try:
        yield
    finally:
        recover(*paths)


def recover(*paths: Path) -> list[Path]:
    """Put back what a run that was killed inside `put_back` left changed, and return it."""
    left = [path for path in paths if _copy(path).exists()]
    for path in left:
        _copy(path).replace(path)
    return left


def _copy(path: Path) -> Path:
    return path.with_name(f"{path.name}.before-run")
