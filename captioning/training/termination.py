"""SIGTERM during a training: obeyed at once where nothing is lost by it, and after the next save elsewhere."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODE = 128 + signal.SIGTERM


class Termination:
    """Whether this process was told to end."""

    def __init__(self) -> None:
        self.is_told = self._is_put_off = False

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Hear of SIGTERM as long as the block lasts; only a main thread can.

        Raises:
            SystemExit: it came, and the end was not put off.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self._note)
        try:
            yield
        except Exception:
            if self.is_told:  # what sys.exit raises inside a library's code may come out as something else
                sys.exit(EXIT_CODE)
            raise
        finally:
            signal.signal(signal.SIGTERM, before)

    @contextmanager
    def put_off(self) -> Iterator[None]:
        """Only note that SIGTERM came: whoever works in the block looks at `is_told` when all is saved."""
        self._is_put_off = True
        try:
            yield
        finally:
            self._is_put_off = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.is_told = True
        if not self._is_put_off:
            sys.exit(EXIT_CODE)
