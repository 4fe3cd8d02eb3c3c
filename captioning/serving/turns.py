"""Batches run side by side, but never while a model is being made.

torch.fx, which encoders are cut and folded with, replaces for that time what calling any module does, in every thread.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A lock that many share, or one has alone; who waits to be alone goes first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._num_sharing = 0
        self._num_alone = 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold it together with others."""
        with self._changed:
            self._changed.wait_for(lambda: not self._num_alone)
            self._num_sharing += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_sharing -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold it alone; one thread at most calls this at a time."""
        with self._changed:
            self._num_alone += 1
            self._changed.wait_for(lambda: not self._num_sharing)
        try:
            yield
        finally:
            with self._changed:
                self._num_alone -= 1
                self._changed.notify_all()


TURNS = Turns()
"""Of this process, as torch.fx is."""
