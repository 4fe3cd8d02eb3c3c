"""Independent pieces of work, on all processors of this machine or, where `CAPTIONING_CLUSTER` names one, on a cluster.

The cluster is a Dask scheduler (`tcp://host:8786`) whose workers have this library and see the same files at the
same paths. Where the work is done is no setting in params.yaml, for it cannot change a result.
"""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import islice
from multiprocessing import forkserver, get_context, parent_process
from typing import TYPE_CHECKING, Any, TypeVar

from captioning.progress import say

if TYPE_CHECKING:
    from distributed import Client

T = TypeVar("T")
R = TypeVar("R")

CLUSTER = "CAPTIONING_CLUSTER"
PIECES_AHEAD = 4
"""Pieces handed out for each process that works: enough to keep it busy, few enough to stay small."""
CONNECT_SECONDS = 30
LOSSES_ALLOWED = 3
"""How often a piece is tried on another worker after its own was lost."""


def num_processes() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0))


def run(function: Callable[[T], R], pieces: Iterable[T], *, preload: Sequence[str] = ()) -> Iterator[R]:
    """Yield `function(piece)` of each piece, in their order, a bounded number of pieces at a time.

    Args:
        function: of a module's top level.
        pieces: of any number.
        preload: modules that local processes share in memory instead of importing each its own copy.

    Raises:
        ValueError: no cluster answers, or a process was killed, by the kernel where memory ran out.
    """
    address = os.environ.get(CLUSTER)
    yield from _on_cluster(address, function, pieces) if address else _here(function, pieces, preload)


def ahead(rows: Iterable[T], *, group_size: int = 16, num_groups: int = 4) -> Iterator[T]:
    """Yield `rows` unchanged while a thread of their own makes the next ones, some groups ahead.

    What waits for a disk, or works outside of Python, then goes on beside what the caller does.
    """
    source = iter(rows)

    def next_group() -> list[T]:
        return list(islice(source, group_size))

    with ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(next_group) for _ in range(num_groups))
        while group := waiting.popleft().result():
            waiting.append(thread.submit(next_group))
            yield from group


def _here(function: Callable[[T], R], pieces: Iterable[T], preload: Sequence[str]) -> Iterator[R]:
    _forget_collected_fork_server()
    context = get_context("forkserver")  # forked from a process without threads
    context.set_forkserver_preload([function.__module__, *preload])
    with ProcessPoolExecutor(num_processes(), mp_context=context, initializer=_begin) as pool:
        try:
            yield from _ahead(
                lambda piece: pool.submit(function, piece).result, pieces, PIECES_AHEAD * num_processes()
            )
        except BrokenExecutor:
            raise ValueError(
                "a worker process was killed, most often because memory ran out: free some, or run on fewer "
                "processors (`taskset -c 0 dvc repro`); what is finished is kept, run again"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _forget_collected_fork_server() -> None:
    """Let the fork server start anew where it has ended and something else in this process collected its exit.

    Python 3.11 and 3.12 start it again when it has ended, but raise ChildProcessError when they cannot ask how.
    """
    server: Any = forkserver._forkserver  # type: ignore[attr-defined]
    if server._forkserver_pid is None:
        return
    try:
        os.waitid(os.P_PID, server._forkserver_pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        os.close(server._forkserver_alive_fd)
        server._forkserver_address = server._forkserver_alive_fd = server._forkserver_pid = None


def _begin() -> None:
    """Keep libraries from starting threads, for there is a process for each processor, and end when the parent ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = "1"
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


def _end_with_parent() -> None:
    """Wait for the parent's end, which `kill -9` does not tell its children, and end at once."""
    parent = parent_process()
    assert parent is not None, "a worker has a parent"
    parent.join()
    os._exit(1)


def _ahead(submit: Callable[[T], Callable[[], R]], pieces: Iterable[T], num_ahead: int) -> Iterator[R]:
    """Yield results in order while up to `num_ahead` pieces are in work."""
    waiting: deque[Callable[[], R]] = deque()
    for piece in pieces:
        waiting.append(submit(piece))
        if len(waiting) >= num_ahead:
            yield waiting.popleft()()
    while waiting:
        yield waiting.popleft()()


def _on_cluster(address: str, function: Callable[[T], R], pieces: Iterable[T]) -> Iterator[R]:
    with _connect(address) as client:
        num_workers = len(client.scheduler_info(n_workers=-1)["workers"])
        say(f"cluster {address}: {num_workers} workers, dashboard {client.dashboard_link}")
        if not num_workers:
            raise ValueError(
                f"the cluster at {address} has no workers; start some with `dask worker {address}`"
            )
        yield from _ahead(
            lambda piece: client.submit(function, piece, pure=False, retries=LOSSES_ALLOWED).result,
            pieces,
            PIECES_AHEAD * num_workers,
        )


def _connect(address: str) -> "Client":
    from distributed import Client

    try:
        return Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{CLUSTER}={address}: no Dask scheduler answers ({error}); start one with `dask scheduler`, correct "
            "the address, or unset the variable to work on this machine"
        ) from None
