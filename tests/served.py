"""`captioning serve` as a process of its own, on any free port."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[1]
LIMIT_SECONDS = 120.0
"""To start, on a busy machine."""
ANNOUNCED = "captioning: serving at "


class Served:
    """A running service."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert process.stdout is not None
        announced = process.stdout.readline()
        assert announced.startswith(ANNOUNCED), f"{announced!r}, {self.end_of_log()}"
        self.url = announced.removeprefix(ANNOUNCED).strip()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.append(line)

    def line_of(self, request_id: str) -> dict[str, Any]:
        """Return a request's line of the log, which comes after its answer."""
        end = time.monotonic() + LIMIT_SECONDS
        while not (found := [own for own in self.log() if own.get("request_id") == request_id]):
            assert time.monotonic() < end, f"no line of {request_id}"
            time.sleep(0.01)
        (line,) = found
        return line

    def log(self) -> list[dict[str, Any]]:
        """Return the lines so far."""
        return [json.loads(line) for line in self._lines if line.startswith("{")]

    def end_of_log(self) -> str:
        self._reader.join(timeout=5)
        return "".join(self._lines[-20:])

    def metric(self, line: str) -> float:
        """Return the value of a metric, by its name and labels as /metrics writes them; 0 before its first."""
        for own in httpx.get(f"{self.url}/metrics").text.splitlines():
            name, _, value = own.rpartition(" ")
            if name == line:
                return float(value)
        return 0.0


@contextmanager
def serve(*options: str, home: Path, **environment: str) -> Iterator[Served]:
    """Start the service, and end it if it has not ended by then."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CAPTIONING_HOME": str(home), **environment}
    env.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-m", "captioning", "serve", "--port", "0", *options]
    with subprocess.Popen(
        command, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Served(process)
        finally:
            process.kill()
