"""A function that crashes, hangs or eats memory harms no process but its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from captioning.isolation import Crashed, Isolated
from tests.crashing import act
from tests.scratch_project import is_gone, wait_until


@pytest.fixture
def isolated() -> Iterator[Isolated[str, object]]:
    with Isolated(act, max_seconds=20) as own:
        yield own


def test_calls_are_answered_by_one_other_process(isolated: Isolated[str, object]) -> None:
    first, second = isolated("print"), isolated("print")
    assert first == second != os.getpid()


def test_what_the_function_raises_is_raised_here(isolated: Isolated[str, object]) -> None:
    first = isolated("work")
    with pytest.raises(ValueError, match="no such molecule"):
        isolated("refuse")
    assert isolated("work") == first


@pytest.mark.parametrize(
    ("what", "message"),
    [("abort", "its process was ended by SIGABRT"), ("leave", "its process ended with code 7")],
)
def test_after_a_crash_the_next_call_has_a_new_process(
    isolated: Isolated[str, object], what: str, message: str
) -> None:
    first = isolated("work")
    with pytest.raises(Crashed, match=message) as crash:
        isolated(what)
    assert crash.value.reason == "crashed"
    assert isolated("work") not in {first, os.getpid()}


def test_native_code_that_hangs_is_ended() -> None:
    with Isolated(act, max_seconds=0.3) as isolated:
        with pytest.raises(Crashed, match=r"took longer than 0.3 seconds") as crash:
            isolated("loop")
        assert crash.value.reason == "too-slow"
        assert isolated("work")


def test_memory_is_bounded(isolated: Isolated[str, object]) -> None:
    with pytest.raises(MemoryError):
        isolated("eat")


def test_the_process_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import time; from captioning.isolation import Isolated; from tests.crashing import act\n"
        "isolated = Isolated(act, max_seconds=20)\n"
        "print(isolated('work'), flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert psutil.pid_exists(child)
    parent.kill()
    parent.wait()
    wait_until(lambda: is_gone(child))
