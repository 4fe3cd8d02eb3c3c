"""A project whose retrains a served schedule runs against Prefect's server, and what can go wrong with them."""

import json
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from flows.servers import HOST, free_port
from soak.project import environment, make_project

MARK = "CAPTIONING_SOAK"
"""A variable that every process of the campaign inherits."""
START_SECONDS, RUN_SECONDS, SETTLE_SECONDS = 240.0, 1200.0, 120.0
LOCKED_SECONDS, AWAY_SECONDS = 8.0, 5.0

FAULTS_OF_RUNS = ("kill_flow", "kill_stage", "kill_dvc", "kill_supervisor", "cancel", "lock_records")
FAULTS_OF_SERVERS = ("kill_server", "kill_schedule")
"""Methods of `Campaign`."""


class Campaign:
    """A project, Prefect's server, and the schedule that serves it.

    Args:
        folder: in which all of it is made.
        settings: overrides of the recipe `scenes`.
    """

    def __init__(self, folder: Path, settings: Sequence[str]) -> None:
        self._folder = folder
        self.project = make_project(folder / "project", settings)
        self._port = free_port()
        self._environment = {
            **environment(self.project),
            MARK: str(folder),
            "PREFECT_HOME": str(self.project / ".work" / "prefect"),
            "PREFECT_API_URL": f"http://{HOST}:{self._port}/api",
            "PREFECT_RUNNER_POLL_FREQUENCY": "2",
            "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "5",
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            "CAPTIONING_GRACE_SECONDS": "10",
        }
        Path(self._environment["PREFECT_HOME"]).mkdir(parents=True)
        self.server = self._start_server()
        self.schedule = self._start_schedule()
        self._deployment = self.ask("/deployments/name/retrain/captioner")["id"]

    def _start(self, name: str, *command: str) -> "subprocess.Popen[bytes]":
        with (self._folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=self.project,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _start_server(self) -> "subprocess.Popen[bytes]":
        server = self._start("server", "prefect", "server", "start", f"--host={HOST}", f"--port={self._port}")
        wait_until(lambda: self.ask("/health"), START_SECONDS, "Prefect's server answers")
        return server

    def _start_schedule(self) -> "subprocess.Popen[bytes]":
        """Start it with crons that are far away: the campaign is the clock."""
        far = "0 0 29 2 *"
        schedule = self._start("schedule", "flows.schedule", "--retrain", far, "--probe", far)
        log = self._folder / "schedule.log"
        wait_until(lambda: "Ctrl-C" in log.read_text(), START_SECONDS, "the schedule serves")
        return schedule

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Return the server's answer; None where it is away."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._environment["PREFECT_API_URL"] + path, data, {"Content-Type": "application/json"}
        )
        with suppress(OSError), urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or "null")
        return None

    def begin(self, overrides: list[str]) -> str:
        """Start a run as a person does, asking a busy server again; return its id."""
        wanted = {"parameters": {"overrides": overrides}, "idempotency_key": str(uuid4())}
        begun: list[dict[str, Any]] = []

        def is_begun() -> bool:
            begun[:] = [found] if (found := self.ask(path, wanted)) else []
            return bool(begun)

        path = f"/deployments/{self._deployment}/create_flow_run"
        wait_until(is_begun, START_SECONDS, "the server begins a run")
        return str(begun[0]["id"])

    def state(self, run_id: str) -> dict[str, Any]:
        """Return the state of a run; an empty one where the server is away."""
        found: dict[str, Any] = (self.ask(f"/flow_runs/{run_id}") or {}).get("state") or {}
        return found

    def is_over(self, run_id: str) -> bool:
        """Tell whether a run has ended, in whatever way."""
        return self.state(run_id).get("type") in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}

    def end(self, run_id: str) -> dict[str, Any]:
        """Wait until a run is over and nothing of it is left; return its state."""
        wait_until(lambda: self.is_over(run_id), RUN_SECONDS, f"run {run_id} is over")
        wait_until(lambda: not self._of_runs(), SETTLE_SECONDS, "no process of a run is left over")
        return self.state(run_id)

    def stop(self) -> None:
        """End schedule and server; nothing may be left."""
        for process in (self.schedule, self.server):
            process.send_signal(signal.SIGTERM)
            process.wait(SETTLE_SECONDS)
        wait_until(lambda: not self.processes(), SETTLE_SECONDS, "no process is left over at the end")

    def processes(self) -> list[psutil.Process]:
        """Return every process of the campaign, wherever it hangs."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == str(self._folder):
                    found.append(process)
        return found

    def _of_runs(self) -> list[psutil.Process]:
        lasting = {process.pid for own in (self.server, self.schedule) for process in family(own.pid)}
        return [
            process for process in self.processes() if process.pid not in lasting or self._is_flow(process)
        ]

    def _is_flow(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error):
            return "PREFECT__FLOW_RUN_ID" in process.environ()
        return False

    def find(self, word: str) -> list[psutil.Process]:
        """Return the processes with this module, or one of this package, in their command line."""
        found = []
        for process in self.processes():
            with suppress(psutil.Error):
                if any(part == word or part.startswith(f"{word}.") for part in process.cmdline()):
                    found.append(process)
        return found

    # what goes wrong

    def kill_flow(self, run_id: str) -> None:
        """Kill the process of the run."""
        flows = {process.pid for process in self.processes() if self._is_flow(process)}
        for process in psutil.Process(self.schedule.pid).children():
            if process.pid in flows:
                kill(process)

    def kill_stage(self, run_id: str) -> None:
        """Kill the process of the stage."""
        for process in self.find("stages"):
            kill(process)

    def kill_dvc(self, run_id: str) -> None:
        """Kill DVC, which leaves the stage without a parent."""
        for process in self.find("dvc"):
            if "flows.supervisor" not in process.cmdline():
                kill(process)

    def kill_supervisor(self, run_id: str) -> None:
        """Kill what watches over DVC, which leaves DVC and the stage without a parent."""
        for process in self.find("flows.supervisor"):
            kill(process)

    def cancel(self, run_id: str) -> None:
        """Cancel the run, as in the pages."""
        self.ask(f"/flow_runs/{run_id}/set_state", {"state": {"type": "CANCELLING"}})

    def lock_records(self, run_id: str) -> None:
        """Lock MLflow's database for a while."""
        with closing(
            sqlite3.connect(self.project / "mlruns" / "mlflow.db", isolation_level=None)
        ) as database:
            database.execute("PRAGMA busy_timeout = 20000")
            database.execute("BEGIN EXCLUSIVE")
            time.sleep(LOCKED_SECONDS)

    def kill_server(self, run_id: str) -> None:
        """Kill Prefect's server; it is back a while later."""
        for process in reversed(family(self.server.pid)):
            kill(process)
        self.server.wait()
        time.sleep(AWAY_SECONDS)
        self.server = self._start_server()

    def kill_schedule(self, run_id: str) -> None:
        """Kill the schedule alone, and start it again."""
        self.schedule.kill()
        self.schedule.wait()
        self.schedule = self._start_schedule()


def family(pid: int) -> list[psutil.Process]:
    """Return a process and its descendants."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def held(processes: list[psutil.Process]) -> tuple[int, int]:
    """Return the bytes of memory and the number of handles of those that still live."""
    num_bytes = num_handles = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            handles = process.num_fds()
            num_bytes += process.memory_info().rss
            num_handles += handles
    return num_bytes, num_handles


def kill(process: psutil.Process) -> None:
    """Send SIGKILL to what may just have ended."""
    with suppress(psutil.NoSuchProcess):
        process.kill()


def wait_until(claim: Callable[[], object], seconds: float, what: str) -> None:
    """Wait until `claim` holds; the campaign ends where it does not."""
    deadline = time.monotonic() + seconds
    while not claim():
        if time.monotonic() > deadline:
            sys.exit(f"waited {seconds:.0f} s in vain until {what}")
        time.sleep(0.5)
