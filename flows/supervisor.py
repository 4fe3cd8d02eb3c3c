"""Run a command so that nothing it started outlives it.

    python -m flows.supervisor -- dvc --wait-for-lock repro --single-item train

Ends with the command's exit code (128 + n when signal n ended it, 124 when its time limit did). On SIGTERM,
SIGINT or SIGHUP, when its parent dies, or after `--limit=SECONDS`, the whole tree below it is asked to end with
SIGTERM; what is left after CAPTIONING_GRACE_SECONDS (25 by default, less than the 30 that Prefect grants) is
killed. So is what outlives the command itself. DVC alone would leave the stage running: it dies of SIGTERM
without passing it on, and a group signal does not reach torchrun's ranks, which have sessions of their own.

On Linux the supervisor adopts every orphan below it, so that none escapes; elsewhere orphans are reached
through the command's process group only. With `--mark=WORD` all that it starts can be found after a `kill -9` of the
supervisor itself: the word and the folder stand in the variable CAPTIONING_SUPERVISOR (orphans.py).
"""

import ctypes
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

GRACE_VARIABLE = "CAPTIONING_GRACE_SECONDS"
DEFAULT_GRACE_SECONDS = 25.0
MARK_VARIABLE = "CAPTIONING_SUPERVISOR"
MARK_OPTION = "--mark="
POLL_SECONDS = 0.05
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
TIMED_OUT = 124
"""Exit code of a command that ran into its time limit, as of timeout(1); DVC has none like it."""

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
"""From <linux/prctl.h>."""

IS_LINUX = sys.platform == "linux"


def supervised(
    command: Sequence[str], *, limit_seconds: float | None = None, mark: str | None = None
) -> list[str]:
    """Return the command line that runs `command` under a supervisor that ends it when this process dies.

    To be started from the main thread: the kernel reports the death of the starting thread.
    """
    options = [f"--parent={os.getpid()}"]
    if limit_seconds is not None:
        options.append(f"--limit={limit_seconds}")
    if mark is not None:
        options.append(f"{MARK_OPTION}{mark}")
    return [sys.executable, "-m", "flows.supervisor", *options, "--", *command]


class ProcessTree:
    """A command in a session of its own, and every process that descends from it."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._root = subprocess.Popen(command, env=environment, start_new_session=True)
        self._asked: set[psutil.Process] = set()

    @property
    def exit_code(self) -> int | None:
        """The command's exit code as a shell states it; None while it runs."""
        code = self._root.returncode
        return code if code is None or code >= 0 else 128 - code

    def reap(self) -> None:
        """Collect the processes that ended, adopted ones too."""
        with suppress(ChildProcessError):  # no child is left
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self._root.pid:
                    self._root.returncode = os.waitstatus_to_exitcode(ended[1])

    def stop(self, grace_seconds: float) -> None:
        """Ask every process to end, kill what is left after the grace, return when none is left.

        What one of them starts meanwhile, perhaps to save its state, is asked only once it is an orphan.
        """
        deadline = time.monotonic() + grace_seconds
        self.reap()
        self._ask(psutil.Process().children(recursive=True))
        while living := psutil.Process().children(recursive=True):
            if time.monotonic() < deadline:
                self._ask(psutil.Process().children())
            else:
                self._send(signal.SIGKILL, living)
            time.sleep(POLL_SECONDS)
            self.reap()

    def _ask(self, processes: list[psutil.Process]) -> None:
        """Send SIGTERM to those that did not get it yet."""
        if unasked := [process for process in processes if process not in self._asked]:
            self._asked.update(unasked)
            self._send(signal.SIGTERM, unasked)

    def _send(self, number: signal.Signals, processes: list[psutil.Process]) -> None:
        if not IS_LINUX:  # orphans are not ours there, but most are still in the group
            with suppress(ProcessLookupError):
                os.killpg(self._root.pid, number)
        for process in processes:
            with suppress(psutil.Error):  # it ended in between
                process.send_signal(number)


def supervise(
    command: Sequence[str],
    *,
    parent: int,
    grace_seconds: float,
    limit_seconds: float = math.inf,
    mark: str | None = None,
) -> int:
    """Run `command` until it ends, a stop signal comes, the process `parent` is gone or the time is up.

    Returns:
        Its exit code, once nothing that it started is left.
    """
    deadline = time.monotonic() + limit_seconds
    stop_requests: list[int] = []
    for number in STOP_SIGNALS:
        signal.signal(number, lambda received, _: stop_requests.append(received))
    _prepare_process()
    marked = {MARK_VARIABLE: f"{mark} {Path.cwd()}"} if mark else {}
    tree = ProcessTree(command, {**os.environ, **marked})
    is_late = False
    while tree.exit_code is None and not stop_requests and os.getppid() == parent and not is_late:
        time.sleep(POLL_SECONDS)
        tree.reap()
        is_late = tree.exit_code is None and time.monotonic() >= deadline
    tree.stop(grace_seconds)
    assert tree.exit_code is not None, "the tree is gone, so its root ended and was reaped"
    return TIMED_OUT if is_late else tree.exit_code


def _prepare_process() -> None:
    """Have the kernel report the parent's death and hand us the orphans below us."""
    if IS_LINUX:
        libc = ctypes.CDLL(None, use_errno=True)
        for option, value in ((PR_SET_PDEATHSIG, signal.SIGTERM), (PR_SET_CHILD_SUBREAPER, 1)):
            if libc.prctl(option, value, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def grace_seconds() -> float:
    """Return CAPTIONING_GRACE_SECONDS.

    Raises:
        ValueError: it is not a number of seconds.
    """
    text = os.environ.get(GRACE_VARIABLE, str(DEFAULT_GRACE_SECONDS))
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise ValueError(f"{GRACE_VARIABLE} is {text!r}; expected seconds, such as {DEFAULT_GRACE_SECONDS:g}")
    return seconds


def main() -> None:
    """Read `[--parent=PID] [--limit=SECONDS] [--mark=WORD] -- COMMAND...`, run the command, exit with its code."""
    options, _, command = _split(sys.argv[1:])
    values = dict(option.split("=", 1) for option in options if "=" in option)
    if not command or len(values) < len(options) or not values.keys() <= {"--parent", "--limit", "--mark"}:
        sys.exit(
            "usage: python -m flows.supervisor [--parent=PID] [--limit=SECONDS] [--mark=WORD] -- COMMAND..."
        )
    parent = int(values.get("--parent", os.getppid()))
    limit_seconds = float(values.get("--limit", math.inf))
    try:
        sys.exit(
            supervise(
                command,
                parent=parent,
                grace_seconds=grace_seconds(),
                limit_seconds=limit_seconds,
                mark=values.get("--mark"),
            )
        )
    except (ValueError, OSError) as error:
        sys.exit(f"supervisor: {error}")


def _split(arguments: list[str]) -> tuple[list[str], list[str], list[str]]:
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at], arguments[at : at + 1], arguments[at + 1 :]


if __name__ == "__main__":
    main()
