"""Pictures of concurrent requests -> batches on one device.

A thread that is free takes what waits and can be captioned together, and never idles to see whether more comes (unless
told to): while a batch is captioned, the next one gathers. Whoever loses interest in a picture cancels its future, and
it leaves the queue.
"""

import logging
import os
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import torch

from captioning.serving.measures import Measures
from captioning.serving.models import LoadedModel

if TYPE_CHECKING:
    from captioning.records import Hypothesis

LOG = logging.getLogger(__name__)

MOST_THREADS = 4
"""Of batches at the same time: what is Python in a search shares one lock."""
RECENT = 0.1
"""Weight of the last batch in the running mean of the seconds a picture takes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class WaitingPicture:
    """A picture on its way to a model, and the future of its captions."""

    model: LoadedModel
    inputs: torch.Tensor
    """`pixels_1CHW`, as the model's transform makes them."""
    number: int
    """Decides, with the seed, what sampling draws."""
    top: int
    with_attention: bool
    arrived: float = field(default_factory=time.monotonic)
    hypotheses: "Future[list[Hypothesis]]" = field(default_factory=Future)

    @property
    def kind(self) -> tuple[Any, ...]:
        """Return what pictures of one batch have in common; the generation settings are the model's."""
        return (self.model, self.top, self.with_attention)


class Batches:
    """A queue of pictures, and the threads that empty it.

    Args:
        batch_size: pictures a batch at most.
        wait_seconds: for which a batch that is not full waits for more; 0 is not at all.
        num_threads: batches captioned at the same time.
        measures: of queue and batches.
    """

    def __init__(self, *, batch_size: int, wait_seconds: float, num_threads: int, measures: Measures) -> None:
        self._batch_size, self._wait_seconds, self._measures = batch_size, wait_seconds, measures
        self._changed = threading.Condition()
        self._waiting: deque[WaitingPicture] = deque()
        self._has_ended = False
        self.seconds_each = 0.1
        """A picture takes at present, with all threads at work."""
        self._threads = [
            threading.Thread(target=self._work, name=f"batches-{number}", daemon=True)
            for number in range(num_threads)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, _kind: type | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Caption what waits, then end."""
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def put(self, picture: WaitingPicture) -> None:
        """Let a picture wait; how many may is for the caller to bound."""
        with self._changed:
            self._waiting.append(picture)
            self._measures.waiting.set(len(self._waiting))
            self._changed.notify()

    @property
    def num_waiting(self) -> int:
        """Return how many pictures wait."""
        return len(self._waiting)

    def _work(self) -> None:
        torch.set_num_threads(torch_threads(len(self._threads)))
        while batch := self._take():
            began = time.perf_counter()
            # counted before anyone has an answer, and may look
            self._measures.batch_sizes.observe(len(batch))
            self._caption(batch)
            self._note(len(batch), time.perf_counter() - began)

    def _take(self) -> list[WaitingPicture]:
        """Return the next batch, as soon as there is one; nothing at the end."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or self._has_ended)
                if not self._waiting:
                    return []
                self._wait_for_more()
                if batch := self._leading():
                    return batch

    def _wait_for_more(self) -> None:
        until = self._waiting[0].arrived + self._wait_seconds
        self._changed.wait_for(
            lambda: len(self._waiting) >= self._batch_size or self._has_ended,
            timeout=max(0.0, until - time.monotonic()),
        )

    def _leading(self) -> list[WaitingPicture]:
        """Take the first picture and those of its kind, and forget the cancelled ones before them."""
        batch: list[WaitingPicture] = []
        left: deque[WaitingPicture] = deque()
        for own in self._waiting:
            fits = len(batch) < self._batch_size and (not batch or own.kind == batch[0].kind)
            if not fits:
                left.append(own)
            elif own.hypotheses.set_running_or_notify_cancel():
                batch.append(own)
        self._waiting = left
        self._measures.waiting.set(len(left))
        return batch

    def _caption(self, batch: list[WaitingPicture]) -> None:
        """Caption a batch; where it fails, each of its pictures alone, so that one spoils no other."""
        first = batch[0]
        try:
            captions = first.model.caption(
                [own.inputs for own in batch],
                [own.number for own in batch],
                top=first.top,
                with_attention=first.with_attention,
            )
        except Exception as error:  # of torch, a device, or scores that are not finite
            if len(batch) > 1:
                for own in batch:
                    self._caption([own])
                return
            LOG.exception("a picture could not be captioned", extra={"role": first.model.role})
            first.hypotheses.set_exception(error)
            return
        self._measures.captions.labels(first.model.role).inc(sum(len(own) for own in captions))
        for own, hypotheses in zip(batch, captions, strict=True):
            own.hypotheses.set_result(hypotheses)

    def _note(self, num_pictures: int, seconds: float) -> None:
        self._measures.batch_seconds.observe(seconds)
        recent = seconds / num_pictures / len(self._threads)
        self.seconds_each += RECENT * (recent - self.seconds_each)


def num_batches_at_once() -> int:
    """Return how many batches this machine captions best at the same time: one on a GPU, else one a core, up to 4."""
    return 1 if torch.cuda.is_available() else min(MOST_THREADS, _num_cores())


def torch_threads(num_batches: int) -> int:
    """Return the threads of torch for each of so many batches: on a busy core, threads that share work wait for it."""
    return max(1, _num_cores() // num_batches)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0))
