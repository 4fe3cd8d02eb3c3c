"""200 concurrent clients of `captioning serve` with good and bad requests, against one client after the other."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from bench.comparison import Comparison
from bench.photographs import shared
from bench.served_model import NAME, write_registry

NUM_CLIENTS, SECONDS, SEQUENTIAL_SECONDS = 200, 60.0, 20.0
EARLY, LATE = 20.0, 60.0
"""Seconds after which the memory is measured."""
MOST_GROWTH = 1.1
ANNOUNCED = "captioning: serving at "


def http_vs_sequential() -> Comparison:
    """Measure captioned pictures a second; nothing may be lost, and no answer may be a 5xx but 503 with Retry-After."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        write_registry(home)
        with _served(home) as (process, url):
            _clients(url, 4, 5.0)  # everything is loaded and warm then
            before = _rate(_clients(url, 1, SEQUENTIAL_SECONDS))
            memory: dict[float, int] = {}
            timers = [_measured_after(seconds, process, memory) for seconds in (EARLY, LATE)]
            came = _clients(url, NUM_CLIENTS, SECONDS)
            for timer in timers:
                timer.join()
            after = _rate(_clients(url, 1, SEQUENTIAL_SECONDS))
    _refuse_failures(came, memory)
    p50, p95 = (statistics.quantiles(came["seconds"], n=20)[place] for place in (9, 18))
    return Comparison(
        value=_rate(came),
        baseline=statistics.mean([before, after]),
        unit="pictures/s",
        what=f"{NUM_CLIENTS} clients against one, {sum(came['statuses'].values()):,} answers, "
        f"{came['statuses'].get('503', 0):,} of them 503; half within {p50:.1f} s, 95 % within {p95:.1f} s; "
        f"memory {memory[EARLY] / 2**20:,.0f} MiB after {EARLY:g} s, {memory[LATE] / 2**20:,.0f} after {LATE:g} s",
        target=2.0,
    )


def _refuse_failures(came: dict[str, Any], memory: dict[float, int]) -> None:
    failed = {
        status: num for status, num in came["statuses"].items() if int(status) >= 500 and status != "503"
    }
    assert not failed, f"{failed} of {came['statuses']}: {came['wrong'][:3]}"
    assert not came["lost"], f"{len(came['lost'])} answers were lost, such as {came['lost'][0]}"
    assert not came["wrong"], f"{len(came['wrong'])} answers were wrong, such as {came['wrong'][0]}"
    growth = memory[LATE] / memory[EARLY]
    assert growth < MOST_GROWTH, (
        f"memory grew by {growth:.2f}, from {memory[EARLY]:,} to {memory[LATE]:,} bytes"
    )


@contextmanager
def _served(home: Path) -> Iterator[tuple[psutil.Process, str]]:
    env = os.environ | {"CAPTIONING_HOME": str(home)}
    env.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-m", "captioning", "serve", "--model", NAME, "--port", "0"]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        announced = process.stdout.readline()
        try:
            yield psutil.Process(process.pid), announced.removeprefix(ANNOUNCED).strip()
        finally:
            process.terminate()


def _clients(url: str, num_clients: int, seconds: float) -> dict[str, Any]:
    """Return what came of so many clients, in a process of their own."""
    folder = str(shared("coco_cc_by/images"))
    command = [sys.executable, "-m", "bench.http_clients", url, str(num_clients), str(seconds), folder]
    began = time.perf_counter()
    answered = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    came: dict[str, Any] = json.loads(answered.stdout)
    return came | {"took": time.perf_counter() - began}


def _rate(came: dict[str, Any]) -> float:
    """Return captioned pictures a second, until the last answer."""
    return came["num_captioned"] / came["took"]


def _measured_after(seconds: float, process: psutil.Process, memory: dict[float, int]) -> threading.Timer:
    """Note the memory of the service and its processes at a later time."""

    def measure() -> None:
        everyone = [process, *process.children(recursive=True)]
        memory[seconds] = sum(own.memory_info().rss for own in everyone)

    timer = threading.Timer(seconds, measure)
    timer.start()
    return timer
