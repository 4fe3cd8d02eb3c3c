import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import forkserver

import psutil
import pytest

from captioning import workers
from tests.scratch_project import wait_until


def double(number: int) -> int:
    time.sleep(0.01 * (number % 3))
    return 2 * number


def process(_: int) -> int:
    return os.getpid()


def die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(number: int) -> None:
    raise ValueError(f"cannot do {number}")


def threads(_: int) -> int:
    import torch

    return torch.get_num_threads()


def test_outcomes_come_in_the_order_of_the_pieces():
    assert list(workers.run(double, range(40))) == [2 * number for number in range(40)]


def test_work_goes_on_where_the_fork_server_ended_and_was_collected():
    assert list(workers.run(double, range(2))) == [0, 2]
    pid = forkserver._forkserver._forkserver_pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert list(workers.run(double, range(2))) == [0, 2]


def test_only_a_few_pieces_are_taken_ahead():
    taken = []

    def pieces() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    done = workers.run(double, pieces())
    next(done)
    assert len(taken) <= workers.PIECES_AHEAD * workers.num_processes() + 1
    done.close()  # type: ignore[attr-defined]


def test_work_is_done_in_other_processes_with_one_thread_each():
    pids = set(workers.run(process, range(20)))
    assert os.getpid() not in pids
    assert len(pids) <= workers.num_processes()
    assert list(workers.run(threads, range(4), preload=["torch"])) == [1, 1, 1, 1]


def test_a_killed_process_is_one_clear_message():
    with pytest.raises(ValueError, match=r"a worker process was killed, most often because memory ran out"):
        list(workers.run(die, range(3)))


PARENT = """
import time
from captioning import workers
from tests.test_workers import linger

for pid in workers.run(linger, range(8)):
    print(pid, flush=True)
"""


def linger(number: int) -> int:
    time.sleep(600 if number > 1 else 0)
    return os.getpid()


def test_workers_end_with_a_parent_that_is_killed():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = {int(parent.stdout.readline()) for _ in range(2)}
        parent.kill()
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def test_an_error_of_a_piece_comes_through_and_ends_the_work():
    before = threading.active_count()
    with pytest.raises(ValueError, match="cannot do 0"):
        list(workers.run(refuse, range(1000)))
    assert threading.active_count() <= before


def test_a_cluster_that_does_not_answer_is_refused_with_the_next_step(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CAPTIONING_CLUSTER", "tcp://127.0.0.1:9")
    monkeypatch.setattr(workers, "CONNECT_SECONDS", 1)
    with pytest.raises(
        ValueError, match=r"CAPTIONING_CLUSTER=tcp://127.0.0.1:9: no Dask scheduler answers.*unset"
    ):
        list(workers.run(double, range(3)))
