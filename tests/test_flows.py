"""The flow runs what changed, tells Prefect what happened, and leaves nothing behind."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import chdir
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from uuid import UUID

import pytest
from scratch_project import (
    LIMIT_SECONDS,
    THREE_STAGES,
    ask_server,
    make_project,
    make_project_of_ranks,
    one_stage,
    processes_with,
    wait_until,
)

from flows.servers import free_port

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def flows_can_be_imported_from_a_scratch_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def flow_process(folder: Path, api_url: str = "", **environment: str) -> subprocess.Popen[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "CAPTIONING_HOME"))}
    if api_url:
        inherited["PREFECT_API_URL"] = api_url
    return subprocess.Popen(
        [sys.executable, "-m", "flows.pipeline"],
        cwd=folder,
        env={**inherited, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_server_that_does_not_answer_is_one_message(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/api"
    with flow_process(make_project(tmp_path, THREE_STAGES), api_url=url) as process:
        output, _ = process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode == 1
    assert re.fullmatch(
        rf"pipeline: no Prefect server answers at {url} \(.*\): start one there \(`make ui`\), or unset "
        r"PREFECT_API_URL to have one started for this run\n",
        output,
    )


def start(api_url: str) -> str:
    """Start a run of the deployment, once it is served; return its id."""
    found: list[str] = []

    def is_deployed() -> bool:
        found[:] = [
            row["id"] for row in ask_server(f"{api_url}/deployments/filter", {}) if row["name"] == "cancelled"
        ]
        return bool(found)

    wait_until(is_deployed)
    return str(ask_server(f"{api_url}/deployments/{found[0]}/create_flow_run", {})["id"])


def state_of(api_url: str, run_id: str) -> dict[str, Any]:
    state: dict[str, Any] = ask_server(f"{api_url}/flow_runs/{run_id}")["state"]
    return state


def run_flow(folder: Path) -> Any:
    """Run the flow in this process; return its final state."""
    from flows.pipeline import pipeline

    with chdir(folder):
        return pipeline(return_state=True)


@pytest.fixture(scope="module")
def two_runs(prefect: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """A project of three stages after two runs of the flow, and the states of both."""
    folder = make_project(tmp_path_factory.mktemp("two_runs"), THREE_STAGES)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        return folder, run_flow(folder), run_flow(folder)


def ask(api_url: str, what: str, flow_run_id: UUID) -> list[dict[str, Any]]:
    """Return the rows of kind `what` that the server has stored for a flow run."""
    body: dict[str, Any] = {"flow_runs": {"id": {"any_": [str(flow_run_id)]}}}
    if what == "logs":
        body = {"logs": {"flow_run_id": {"any_": [str(flow_run_id)]}}}
    rows: list[dict[str, Any]] = ask_server(f"{api_url}/{what}/filter", body)
    return rows


def artifacts(api_url: str, state: Any) -> dict[str, Any]:
    rows = ask(api_url, "artifacts", state.state_details.flow_run_id)
    return {row["key"]: row["data"] for row in rows}


def task_runs(api_url: str, state: Any, number: int) -> dict[str, dict[str, Any]]:
    """Return the task runs of a flow run by name, once the server has stored that so many ended."""
    runs: dict[str, dict[str, Any]] = {}

    def ended() -> bool:
        runs.update((run["name"], run) for run in ask(api_url, "task_runs", state.state_details.flow_run_id))
        final = [run for run in runs.values() if run["state_type"] in {"COMPLETED", "FAILED"}]
        return len(final) == number

    wait_until(ended)
    return runs


@pytest.mark.slow
def test_the_first_run_runs_every_stage_once_in_order_and_the_second_none(
    two_runs: tuple[Path, Any, Any],
) -> None:
    folder, first, second = two_runs
    assert first.is_completed()
    assert first.message == "ran: first, second, third"
    assert second.is_completed()
    assert second.message == "unchanged: first, second, third"
    assert (folder / "order.log").read_text().split() == ["first", "second", "third"]


@pytest.mark.slow
def test_each_stage_is_a_task_run_of_its_name_with_its_outcome(
    prefect: str, two_runs: tuple[Path, Any, Any]
) -> None:
    _, first, second = two_runs
    names = ["first", "second", "third"]
    for state, outcome in ((first, "Ran"), (second, "Unchanged")):
        runs = task_runs(prefect, state, len(names))
        assert {name: run["state_name"] for name, run in runs.items()} == dict.fromkeys(names, outcome)


@pytest.mark.slow
def test_the_lines_of_a_stage_are_log_records_of_its_task(
    prefect: str, two_runs: tuple[Path, Any, Any]
) -> None:
    _, state, _ = two_runs
    task_run_id = task_runs(prefect, state, 3)["first"]["id"]

    def are_stored() -> bool:
        logs = ask(prefect, "logs", state.state_details.flow_run_id)
        messages = {log["message"] for log in logs if log["task_run_id"] == task_run_id}
        return {"a line of the first", "a warning"} <= messages

    wait_until(are_stored)


@pytest.mark.slow
def test_each_stage_publishes_a_page(prefect: str, two_runs: tuple[Path, Any, Any]) -> None:
    _, state, _ = two_runs
    pages = artifacts(prefect, state)
    assert set(pages) == {"first", "first-progress", "second", "third", "stages"}
    assert pages["first"].startswith("**ran** in ")
    assert "| test.bleu_4 | 0.2500 |" in pages["third"]


@pytest.mark.slow
def test_the_progress_that_a_stage_prints_is_shown_and_ends_at_the_whole(
    prefect: str, two_runs: tuple[Path, Any, Any]
) -> None:
    _, first, second = two_runs
    assert artifacts(prefect, first)["first-progress"] == 100.0
    assert "first-progress" not in artifacts(prefect, second)


@pytest.mark.slow
def test_the_graph_says_at_the_end_how_every_stage_ended(
    prefect: str, two_runs: tuple[Path, Any, Any]
) -> None:
    for state, outcome in zip(two_runs[1:], ("ran", "unchanged"), strict=True):
        graph = artifacts(prefect, state)["stages"]
        assert [line.split(" | ")[1] for line in graph.splitlines()[2:5]] == [outcome] * 3
        assert graph.count(f":::{outcome}") == 3


@pytest.mark.slow
def test_a_restored_stage_is_called_cached(two_runs: tuple[Path, Any, Any]) -> None:
    folder, *_ = two_runs
    (folder / "first.txt").unlink()
    (folder / "dvc.lock").unlink()
    assert run_flow(folder).message == "cached: first, second, third"


@pytest.mark.slow
def test_a_failure_stops_what_follows_and_names_the_stage_with_its_last_lines(
    prefect: str, tmp_path: Path
) -> None:
    dvc_yaml = THREE_STAGES.replace("cp first.txt", "echo the reason; exit 3; cp first.txt")
    state = run_flow(make_project(tmp_path, dvc_yaml))
    assert state.is_failed()
    assert state.message.startswith("stage 'second' failed; its last lines:\n")
    assert "\nthe reason\n" in state.message
    assert set(task_runs(prefect, state, 2)) == {"first", "second"}
    assert (tmp_path / "order.log").read_text().split() == ["first", "second"], "no stage is tried again"


@pytest.mark.slow
def test_a_stage_is_tried_again_as_often_as_dvc_yaml_says(prefect: str, tmp_path: Path) -> None:
    command = "[ -e tried ] || { touch tried; exit 1; }; echo done > out.txt"
    assert run_flow(make_project(tmp_path, one_stage(command, meta="{retries: 1}"))).is_completed()


@pytest.mark.slow
def test_a_stage_that_takes_too_long_is_ended_and_the_message_says_so(prefect: str, tmp_path: Path) -> None:
    command = "(setsid sleep 303.25 &); sleep 303.25"
    state = run_flow(make_project(tmp_path, one_stage(command, meta="{timeout_seconds: 4}")))
    assert state.is_failed()
    assert state.message.startswith(
        "stage 'only' was ended after 4 s, its meta.timeout_seconds in dvc.yaml; "
    )
    assert task_runs(prefect, state, 1)["only"]["state_name"] == "TimedOut"
    assert processes_with("303.25") == []


@pytest.mark.slow
def test_a_change_during_the_run_is_noticed_at_its_end(prefect: str, tmp_path: Path) -> None:
    dvc_yaml = THREE_STAGES.replace("echo third", "echo other > source.txt; echo third")
    state = run_flow(make_project(tmp_path, dvc_yaml))
    assert state.is_failed()
    assert re.match(
        r"every stage ran, but `dvc status` is not clean: first: .*source\.txt.*run again$", state.message
    )


@pytest.mark.slow
def test_a_receipt_that_the_registry_does_not_know_makes_the_stage_run_again(
    prefect: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTIONING_HOME", str(tmp_path))
    command = "echo ran >> order.log; echo '{}' > registration.json"
    state = run_flow(make_project(tmp_path, one_stage(command, out="registration.json")))
    assert state.is_failed()
    assert state.message.startswith("stage 'only' ran, but its receipt is still wrong: registration.json ")
    assert (tmp_path / "order.log").read_text().split() == ["ran", "ran"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the death of a parent is reported on Linux only")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_survives_the_flow_process(prefect: str, tmp_path: Path, number: signal.Signals) -> None:
    seconds = f"302.{int(number)}"
    command = f"trap '' TERM; setsid sleep {seconds} & sleep {seconds}"
    folder = make_project(tmp_path, one_stage(command))
    with flow_process(folder, api_url=prefect, CAPTIONING_GRACE_SECONDS="0.5") as process:
        wait_until(lambda: len(processes_with(seconds)) >= 2)
        process.send_signal(number)
        process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode != 0
    wait_until(lambda: processes_with(seconds) == [])


SERVE = "from flows.pipeline import pipeline; pipeline.serve(name='cancelled', pause_on_shutdown=False)"


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the supervisor adopts orphans on Linux only")
def test_cancelling_in_the_pages_ends_every_rank_within_30_seconds_and_the_next_run_goes_on(
    prefect: str, tmp_path: Path
) -> None:
    folder = make_project_of_ranks(tmp_path)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "CAPTIONING_"))}
    settings = {
        "PREFECT_API_URL": prefect,
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        "CAPTIONING_GRACE_SECONDS": "5",
    }
    with subprocess.Popen([sys.executable, "-c", SERVE], cwd=folder, env={**inherited, **settings}) as served:
        try:
            first = start(prefect)
            wait_until(lambda: (folder / "state.txt").exists() and (folder / "state.txt").read_text() == "5")
            assert len(processes_with("ranks.py")) >= 3, "torchrun and two ranks"
            began = time.monotonic()
            ask_server(f"{prefect}/flow_runs/{first}/set_state", {"state": {"type": "CANCELLING"}})
            wait_until(lambda: state_of(prefect, first)["type"] == "CANCELLED")
            wait_until(lambda: processes_with("ranks.py") == [])
            assert time.monotonic() - began < 30
            states = ask_server(f"{prefect}/flow_run_states/?flow_run_id={first}")
            assert "Crashed" not in [state["name"] for state in states]
            second = start(prefect)
            wait_until(lambda: state_of(prefect, second)["type"] in {"COMPLETED", "FAILED"})
            assert state_of(prefect, second)["message"] == "ran: only"
        finally:
            served.terminate()
    wait_until(lambda: "rank 1 begins at 5" in {log["message"] for log in ask(prefect, "logs", UUID(second))})


@pytest.mark.slow
def test_without_a_server_one_is_started_and_ended_and_a_failure_is_one_message(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "project", one_stage("echo the reason; exit 3"))
    with flow_process(folder, HOME=str(tmp_path / "user")) as process:
        output, _ = process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode == 1
    assert "pipeline: stage 'only' failed; its last lines:\n" in output
    assert not re.search("warning|traceback|NoneType", output, re.IGNORECASE)
    assert (folder / ".work" / "prefect" / "prefect.db").is_file()
    assert not (tmp_path / "user" / ".prefect").exists()
    address = re.search(r"http://127\.0\.0\.1:(\d+)", output)
    assert address
    assert processes_with(f"--port={address[1]}") == []


@pytest.mark.slow
def test_the_pages_of_both_servers_are_served_until_ctrl_c(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_TRACKING"))}
    environment |= {"CAPTIONING_HOME": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    report = tmp_path / ".work" / "pages" / "a-run" / "reports" / "evaluation.html"
    report.parent.mkdir(parents=True)
    report.write_text("how the run went")
    command = [sys.executable, "-m", "flows.ui"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert isinstance(process.stdout, io.TextIOBase)
        begun = list(iter(process.stdout.readline, "Ctrl-C stops both\n"))
        addresses = dict(
            re.findall(r"^(Prefect|MLflow) +(http://127\.0\.0\.1:\d+)$", "".join(begun), re.MULTILINE)
        )
        assert set(addresses) == {"Prefect", "MLflow"}, begun
        for address in addresses.values():
            with urlopen(address, timeout=30) as answer:
                assert answer.status == 200
        (told,) = re.findall(r"export PREFECT_API_URL=(\S+)/api CAPTIONING_PAGES_URL=(\S+)\n", "".join(begun))
        assert told[0] == addresses["Prefect"]
        with urlopen(f"{told[1]}/a-run/reports/evaluation.html", timeout=30) as answer:
            assert answer.read() == b"how the run went"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "\nstopped\n"
    assert process.returncode == 0
    for address in addresses.values():
        assert processes_with(f"--port={address.rsplit(':')[-1]}") == []
