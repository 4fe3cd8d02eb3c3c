"""A run ends itself when its runner is gone, or when it was cancelled and nobody told it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from scratch_project import LIMIT_SECONDS, wait_until

ROOT = Path(__file__).parents[1]

RUN = """
import sys, time
from pathlib import Path
from prefect import flow
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run
from prefect.states import Cancelled
from flows import cancellation

cancellation.SECONDS_BETWEEN_LOOKS = 1.0

@flow
def long():
    with cancellation.watched() as watch:
        try:
            Path("begun").write_text(str(flow_run.id))
            time.sleep(120)
        except TerminationSignal:
            Path("tidying").touch()
            deadline = time.monotonic() + (60 if Path("late").exists() else 1)
            while not Path("told").exists() and time.monotonic() < deadline:
                time.sleep(0.1)
            Path("tidied").touch()
            if watch.is_cancelled:
                return Cancelled(message="seen")
            raise

long()
"""
"""A flow that takes a second to tidy when it is ended; with a file `late` until there is a file `told`."""


@contextmanager
def running(folder: Path, api_url: str, *, under_a_runner: bool) -> Iterator[subprocess.Popen[bytes]]:
    """Start the flow, as the child of another process where it is to have a runner; yield that or the flow's own."""
    (folder / "run.py").write_text(RUN)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    environment = {**inherited, "PREFECT_API_URL": api_url, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "run.py"]
    if under_a_runner:
        environment["PREFECT__FLOW_RUN_ID"] = "of the runner"
        command = [sys.executable, "-c", f"import subprocess; subprocess.run({command})"]
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL) as process:
        children = []
        try:
            wait_until(lambda: (folder / "begun").exists() and bool((folder / "begun").read_text()))
            children = psutil.Process(process.pid).children()
            yield process
        finally:
            for one in [*children, process]:
                if one.is_running() if isinstance(one, psutil.Process) else one.poll() is None:
                    one.kill()


@pytest.mark.slow
def test_a_run_ends_when_its_runner_is_killed(prefect: str, tmp_path: Path) -> None:
    with running(tmp_path, prefect, under_a_runner=True) as runner:
        (run,) = psutil.Process(runner.pid).children()
        runner.kill()
        run.wait(LIMIT_SECONDS)
    assert (tmp_path / "tidied").exists()


@pytest.mark.slow
def test_a_run_that_was_cancelled_sees_it_and_ends_tidily_even_if_it_is_told_late(
    prefect: str, tmp_path: Path
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling

    (tmp_path / "late").touch()
    with running(tmp_path, prefect, under_a_runner=False) as run, get_client(sync_client=True) as client:
        run_id = (tmp_path / "begun").read_text()
        client.set_flow_run_state(run_id, Cancelling(), force=True)
        wait_until((tmp_path / "tidying").exists)
        run.send_signal(signal.SIGTERM)
        (tmp_path / "told").touch()
        run.wait(LIMIT_SECONDS)
        state = client.read_flow_run(run_id).state
    assert state is not None
    assert (state.name, state.message) == ("Cancelled", "seen")
    assert (tmp_path / "tidied").exists()


@pytest.mark.slow
def test_a_run_that_its_runner_cancels_never_passes_for_crashed(prefect: str, tmp_path: Path) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling

    with running(tmp_path, prefect, under_a_runner=False) as run, get_client(sync_client=True) as client:
        run_id = (tmp_path / "begun").read_text()
        client.set_flow_run_state(run_id, Cancelling(), force=True)
        run.send_signal(signal.SIGTERM)
        run.wait(LIMIT_SECONDS)
        states = client.request("GET", "/flow_run_states/", params={"flow_run_id": run_id}).json()
    assert [state["name"] for state in states] == ["Pending", "Running", "Cancelling", "Cancelled"]
