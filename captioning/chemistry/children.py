"""Several processes that answer questions, of which each may crash or stall: the question is then answered so."""

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from captioning.isolation import Crashed, Isolated
from captioning.workers import num_processes

Q = TypeVar("Q")
A = TypeVar("A")

MAX_CHILDREN = 8


@dataclass(frozen=True, kw_only=True)
class Answer(Generic[A]):
    """What became of a question."""

    value: A | None
    """None where there is none."""
    failure: str = ""
    """Why there is none, where the process ended or the function failed; empty where it found no answer itself."""


class Children(Generic[Q, A]):
    """A pool of processes for one function, started when first asked and again whenever one ends.

    Args:
        function: of a module's top level; a question -> an answer or None.
        seconds: for one answer; a process that takes longer is ended.
        num_children: at most.
    """

    def __init__(
        self, function: Callable[[Q], A | None], *, seconds: float, num_children: int | None = None
    ) -> None:
        self._function, self._seconds = function, seconds
        self._num_children = num_children or min(MAX_CHILDREN, num_processes())
        self._free: list[Isolated[Q, A | None]] = []
        self._lock = threading.Lock()
        self._owner = os.getpid()

    def ask(self, questions: Sequence[Q]) -> list[Answer[A]]:
        """Return an answer for each question, in their order."""
        if len(questions) <= 1:
            return self._answers(questions)
        size = -(-len(questions) // self._num_children)
        parts = [questions[start : start + size] for start in range(0, len(questions), size)]
        with ThreadPoolExecutor(len(parts)) as threads:
            return [answer for part in threads.map(self._answers, parts) for answer in part]

    def _answers(self, questions: Iterable[Q]) -> list[Answer[A]]:
        child = self._take()
        try:
            return [_answer(child, question) for question in questions]
        finally:
            with self._lock:
                self._free.append(child)

    def _take(self) -> Isolated[Q, A | None]:
        with self._lock:
            if self._owner != os.getpid():  # a fork: the processes answer to the one that started them
                self._owner, self._free = os.getpid(), []
            return self._free.pop() if self._free else Isolated(self._function, max_seconds=self._seconds)

    def close(self) -> None:
        """End the processes that are idle."""
        with self._lock:
            while self._free:
                self._free.pop().close()


def _answer(child: Isolated[Q, A | None], question: Q) -> Answer[A]:
    try:
        return Answer(value=child(question))
    except Crashed as crash:
        return Answer(value=None, failure=str(crash))
    except Exception as error:  # RDKit raises many kinds
        return Answer(value=None, failure=f"{type(error).__name__}: {error}")
