"""Many addresses at the same time, few from one host; what they give is handed out in order."""

import asyncio
import bisect
from collections import Counter, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from captioning.downloads.answers import FetchError, pause_seconds
from captioning.downloads.pictures import Picture
from captioning.progress import say

ADDRESSES_AHEAD = 2_000
"""Looked ahead from the first unfinished one, so that a slow host does not hold up all others."""
MAX_BYTES_AHEAD = 200_000_000
"""Held in memory of pictures that wait for an earlier one; while there are more, only the first is fetched."""

Outcome = Picture | FetchError


@dataclass(order=True)
class Place:
    """An address in the queue."""

    number: int
    url: str = field(compare=False)
    host: str = field(compare=False)
    outcome: "asyncio.Future[Outcome]" = field(compare=False)
    num_failures: int = field(default=0, compare=False)
    ready_at: float = field(default=0.0, compare=False)
    """Time of the loop before which no further attempt is made."""


class Connections:
    """A queue of addresses that any number of connections work on."""

    def __init__(
        self,
        attempt: Callable[[str], Awaitable[Picture]],
        *,
        retries: int,
        num_connections: int,
        connections_per_host: int,
    ) -> None:
        self._attempt = attempt
        self._retries = retries
        self._num_connections = num_connections
        self._connections_per_host = connections_per_host
        self._places: deque[Place] = deque()  # not handed out yet
        self._waiting: list[Place] = []  # of these, not being fetched and to be fetched, in order
        self._num_waiting_at: Counter[str] = Counter()  # host -> places; only hosts that have some
        self._tasks: set[asyncio.Task[None]] = set()
        self._num_running_at: Counter[str] = Counter()  # host -> connections; only hosts that have some
        self._closed_until: dict[str, float] = {}  # host -> time of the loop; it asks to be left alone
        self._num_bytes = 0

    async def fetch(self, urls: Iterable[str]) -> AsyncGenerator[Outcome, None]:
        """Yield the picture of each address, or why there is none, in their order."""
        numbered = enumerate(urls)
        try:
            while True:
                while len(self._places) < ADDRESSES_AHEAD and (found := next(numbered, None)):
                    self._append(*found)
                if not self._places:
                    return
                self._start()
                outcome = await self._places[0].outcome
                self._places.popleft()
                self._num_bytes -= _num_bytes(outcome)
                yield outcome
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _append(self, number: int, url: str) -> None:
        host = url.partition("://")[2].partition("/")[0].rpartition("@")[2].lower()
        place = Place(number, url, host, asyncio.get_running_loop().create_future())
        self._places.append(place)
        self._wait(place)

    def _wait(self, place: Place) -> None:
        bisect.insort(self._waiting, place)
        self._num_waiting_at[place.host] += 1

    def _start(self) -> None:
        """Start whatever may start now, earlier addresses first."""
        now = asyncio.get_running_loop().time()
        index = 0
        while index < len(self._waiting) and len(self._tasks) < self._num_connections:
            place = self._waiting[index]
            if self._may_start(place, now):
                del self._waiting[index]
                _count_down(self._num_waiting_at, place.host)
                self._num_running_at[place.host] += 1
                self._tasks.add(asyncio.create_task(self._run(place)))
            elif self._are_all_full():
                break
            else:
                index += 1

    def _are_all_full(self) -> bool:
        """Return whether nobody waits for a host with room, so that with one host the queue is not searched."""
        full = [host for host, num in self._num_running_at.items() if num >= self._connections_per_host]
        return len(self._waiting) == sum(self._num_waiting_at[host] for host in full)

    def _may_start(self, place: Place, now: float) -> bool:
        return (
            now >= place.ready_at
            and now >= self._closed_until.get(place.host, 0.0)
            and self._num_running_at[place.host] < self._connections_per_host
            and (self._num_bytes < MAX_BYTES_AHEAD or place is self._places[0])
        )

    async def _run(self, place: Place) -> None:
        try:
            outcome: Outcome = await self._attempt(place.url)
        except FetchError as error:
            outcome = error
        except Exception as error:  # a defect: whoever waits for the outcome shall see it
            place.outcome.set_exception(error)
            return
        finally:
            self._leave(place)
        if isinstance(outcome, FetchError) and not outcome.is_lasting and place.num_failures < self._retries:
            self._postpone(place, outcome)
        else:
            self._num_bytes += _num_bytes(outcome)
            place.outcome.set_result(outcome)
        self._start()

    def _leave(self, place: Place) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.discard(task)
        _count_down(self._num_running_at, place.host)

    def _postpone(self, place: Place, error: FetchError) -> None:
        """Put an address back into the queue; a server that asks to be left alone is, by all connections."""
        loop = asyncio.get_running_loop()
        place.num_failures += 1
        pause = pause_seconds(place.num_failures, error)
        place.ready_at = loop.time() + pause
        self._wait(place)
        loop.call_later(pause, self._start)
        if error.pause_seconds:
            self._closed_until[place.host] = max(place.ready_at, self._closed_until.get(place.host, 0.0))
            say(f"{place.host} asks for a pause of {pause:,.0f} seconds")


def _count_down(counts: Counter[str], host: str) -> None:
    counts[host] -= 1
    if not counts[host]:
        del counts[host]


def _num_bytes(outcome: Outcome) -> int:
    return len(outcome.encoded) if isinstance(outcome, Picture) else 0
