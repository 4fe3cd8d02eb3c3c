"""A function in a process of its own, which may crash, hang or eat memory without harm to the process that calls it.

    with Isolated(draw, max_seconds=10) as isolated:
        picture = isolated(molecule)

For native code that now and then brings a process down, as RDKit does on some molecules.
"""

import contextlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

MAX_BYTES = 4 << 30
"""Memory that the function may take; what asks for more ends as a crash or a MemoryError."""
ENTRY = "import sys; from captioning.isolation import serve; serve(int(sys.argv[1]))"


class Crashed(ValueError):
    """The process ended before the function did."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason
        """`too-slow` or `crashed`."""


class Isolated(Generic[T, R]):
    """Calls of one function, one at a time, in a process that is started when needed and after each crash.

    Args:
        function: of a module's top level; what its module imports is imported once a process.
        max_seconds: a call that takes longer ends as `Crashed`.
    """

    def __init__(self, function: Callable[[T], R], *, max_seconds: float) -> None:
        self._function, self._max_seconds = function, max_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection[Any, Any] | None = None

    def __enter__(self) -> "Isolated[T, R]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def __call__(self, argument: T) -> R:
        """Return `function(argument)`; what it raises is raised here.

        Raises:
            Crashed: the process ended, or took longer than `max_seconds`.
        """
        connection = self._connection or self._start()
        try:
            connection.send(argument)
            is_returned, outcome = connection.recv()
        except (EOFError, OSError):
            raise self._crash() from None
        if not is_returned:
            raise outcome
        returned: R = outcome
        return returned

    def close(self) -> None:
        """End the process, which waits for the next call."""
        if self._connection:
            self._connection.close()
        if self._process:
            self._process.wait()
        self._connection = self._process = None

    def _start(self) -> "Connection[Any, Any]":
        self._connection, other = Pipe()
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", ENTRY, str(other.fileno())],
            env={**os.environ, **threads, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            pass_fds=[other.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        other.close()
        self._connection.send((self._function, self._max_seconds))
        if not self._connection.poll(None) or not self._connection.recv():
            raise AssertionError("the process says that it is ready, or ends")
        return self._connection

    def _crash(self) -> Crashed:
        assert self._process is not None
        code = self._process.wait()
        self.close()
        if code == -signal.SIGALRM:
            return Crashed("too-slow", f"took longer than {self._max_seconds:g} seconds")
        with contextlib.suppress(ValueError):
            return Crashed("crashed", f"its process was ended by {signal.Signals(-code).name}")
        return Crashed("crashed", f"its process ended with code {code}")


def serve(descriptor: int) -> None:
    """Answer calls until the other end is closed: what the process does that `Isolated` starts.

    The alarm ends the process whatever native code it is in, even after its parent has died.
    """
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_BYTES, MAX_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's affair
    connection: Connection[Any, Any] = Connection(descriptor)
    function, max_seconds = connection.recv()
    connection.send(True)
    with contextlib.suppress(EOFError):
        while True:
            argument = connection.recv()
            signal.setitimer(signal.ITIMER_REAL, max_seconds)
            try:
                outcome = (True, function(argument))
            except Exception as error:
                outcome = (False, error)
            signal.setitimer(signal.ITIMER_REAL, 0)
            _send(connection, outcome)


def _send(connection: "Connection[Any, Any]", outcome: tuple[bool, Any]) -> None:
    try:
        connection.send(outcome)
    except (TypeError, AttributeError) as error:  # an exception of a native library that cannot be pickled
        connection.send((False, RuntimeError(f"{outcome[1]} ({error})")))
