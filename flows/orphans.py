"""Commands under a supervisor, of which nothing is left either when the supervisor itself is killed.

`kill -9`, or the kernel when the memory ends, may take a supervisor and leave what it watched over. All that it starts
carries a mark in its environment, by which it is found: at once by the process that started the supervisor, and where
that was killed as well by the next run in the same folder.
"""

import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

from flows.checkout import BusyError
from flows.supervisor import MARK_OPTION, MARK_VARIABLE, POLL_SECONDS, grace_seconds, supervised

MODULE = "flows.supervisor"


@contextmanager
def under_supervisor(
    command: Sequence[str],
    *,
    limit_seconds: float | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdout: int | IO[bytes] = subprocess.PIPE,
) -> Iterator["subprocess.Popen[bytes]"]:
    """Yield the supervisor of a command, whose output is `stdout`; leave the block once nothing of it is left.

    An exception ends the command. To be started from the main thread: the kernel reports the death of the starting
    thread to the supervisor.

    Raises:
        ValueError: CAPTIONING_GRACE_SECONDS is no number of seconds.
    """
    mark, grace = uuid.uuid4().hex, grace_seconds()
    with subprocess.Popen(
        supervised(command, mark=mark, limit_seconds=limit_seconds),
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is ours to pass on
    ) as process:

        def end_what_it_left() -> None:
            process.wait()
            _end(lambda: [left for own, _, left in _marked() if own == mark], grace)

        sweeper = threading.Thread(target=end_what_it_left, name="sweeper", daemon=True)
        sweeper.start()  # beside the block, which may read an output that only ends with the last writer
        try:
            yield process
        except BaseException:
            process.terminate()
            raise
        finally:
            sweeper.join()


def clear(folder: Path) -> None:
    """Return once no process of an earlier run works in `folder`.

    A supervisor whose run was killed ends what is below it, and is waited for; what one left that was killed is ended.

    Raises:
        BusyError: a supervisor is still there long after its grace.
    """
    place = str(folder.resolve())
    grace = grace_seconds()
    deadline = time.monotonic() + 2 * grace + 10
    while supervisors := [process.pid for process in psutil.process_iter() if _runs_stage(process, place)]:
        if time.monotonic() > deadline:
            raise BusyError(f"processes {supervisors} of an earlier run still work in {folder}; end them")
        time.sleep(0.2)
    _end(lambda: _orphans(place), grace)


def _runs_stage(process: psutil.Process, place: str) -> bool:
    """Tell whether a process supervises DVC in a folder; other supervisors there are of servers."""
    with suppress(psutil.Error):
        command = process.cmdline()
        return MODULE in command and "dvc" in command and process.cwd() == place
    return False


def _orphans(place: str) -> list[psutil.Process]:
    marked = [(mark, process) for mark, where, process in _marked() if where == place]
    if not marked:
        return []
    living = _marks_of_supervisors()  # after the others were looked for: one that ends leaves nothing
    return [process for mark, process in marked if mark not in living]


def _marked() -> Iterator[tuple[str, str, psutil.Process]]:
    """Yield each marked process that can be seen, with its supervisor's mark and folder."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # another user's, or one that has just ended
            mark, _, place = process.environ().get(MARK_VARIABLE, "").partition(" ")
            if mark:
                yield mark, place, process


def _marks_of_supervisors() -> set[str]:
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            command = process.cmdline()
            if MODULE in command:
                found |= {word.removeprefix(MARK_OPTION) for word in command if word.startswith(MARK_OPTION)}
    return found


def _end(find: Callable[[], list[psutil.Process]], grace: float) -> None:
    """Ask what `find` finds to end, kill what is left after the grace, return once it finds nothing."""
    deadline = time.monotonic() + grace
    asked: set[psutil.Process] = set()
    while living := find():
        is_late = time.monotonic() >= deadline
        for process in living:
            if is_late or process not in asked:
                with suppress(psutil.Error):
                    process.send_signal(signal.SIGKILL if is_late else signal.SIGTERM)
        asked.update(living)
        time.sleep(POLL_SECONDS)
