"""The flow runs what changed, tells Prefect what happened, and leaves nothing behind."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import chdir
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen
from uuid import UUID

import pytest
from scratch_project import LIMIT_SECONDS, THREE_STAGES, make_project, one_stage, processes_with, wait_until

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
    body = json.dumps({"flow_runs": {"id": {"any_": [str(flow_run_id)]}}}).encode()
    if what == "logs":
        body = json.dumps({"logs": {"flow_run_id": {"any_": [str(flow_run_id)]}}}).encode()
    request = Request(f"{api_url}/{what}/filter", body, {"Content-Type": "application/json"})
    with urlopen(request, timeout=30) as answer:
        rows: list[dict[str, Any]] = json.load(answer)
    return rows


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
    pages = {row["key"]: row["data"] for row in ask(prefect, "artifacts", state.state_details.flow_run_id)}
    assert set(pages) == {"first", "second", "third"}
    assert pages["first"].startswith("**ran** in ")
    assert "| test.bleu_4 | 0.2500 |" in pages["third"]


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
    command = [sys.executable, "-m", "flows.ui"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert isinstance(process.stdout, io.TextIOBase)
        begun = [process.stdout.readline() for _ in range(5)]
        addresses = dict(
            re.findall(r"^(Prefect|MLflow) +(http://127\.0\.0\.1:\d+)$", "".join(begun), re.MULTILINE)
        )
        assert set(addresses) == {"Prefect", "MLflow"}, begun
        for address in addresses.values():
            with urlopen(address, timeout=30) as answer:
                assert answer.status == 200
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "\nstopped\n"
    assert process.returncode == 0
    for address in addresses.values():
        assert processes_with(f"--port={address.rsplit(':')[-1]}") == []
