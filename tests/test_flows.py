"""Flows run the stages that DVC's graph names, in its order, and tell Prefect what happened."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import chdir
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen
from uuid import UUID

import psutil
import pytest
from dvc.repo import Repo

from flows import artifacts, stage_run
from flows.servers import Server, free_port, serving, wait_for_answer
from flows.stage_graph import Stage, read_stages
from flows.stage_run import StageRun, read_lines, run_stage

ROOT = Path(__file__).parents[1]
LIMIT_SECONDS = 120.0

THREE_STAGES = """
stages:
  third:
    cmd: echo third >> order.log; cp second.txt third.txt; echo '{"test":{"bleu_4":0.25}}' > metrics.json
    deps: [second.txt]
    outs: [third.txt]
    metrics: [metrics.json]
  first:
    desc: Copies the source
    cmd: echo first >> order.log; echo a line of the first; echo a warning >&2; cp source.txt first.txt
    deps: [source.txt]
    outs: [first.txt]
    meta: {retries: 2, retry_delay_seconds: 0.5}
  second:
    cmd: echo second >> order.log; cp first.txt second.txt
    deps: [first.txt]
    outs: [second.txt]
"""


def make_project(folder: Path, dvc_yaml: str) -> Path:
    folder.mkdir(exist_ok=True)
    Repo.init(str(folder), no_scm=True).close()
    (folder / "dvc.yaml").write_text(dvc_yaml)
    (folder / "source.txt").write_text("the source")
    return folder


def one_stage(command: str, *, out: str = "out.txt", meta: str = "{}") -> str:
    stage = {"cmd": command, "deps": ["source.txt"], "outs": [{out: {"cache": False}}]}
    return f"stages:\n  only: {json.dumps(stage)[:-1]}, meta: {meta}}}\n"


def wait_until(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not claim():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def processes_with(text: str) -> list[int]:
    """Return the ids of the processes in whose command line `text` stands, without this one."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        if process.pid != os.getpid() and any(text in word for word in process.info["cmdline"] or []):
            found.append(process.pid)
    return found


@pytest.fixture(autouse=True)
def flows_can_be_imported_from_a_scratch_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


# --- the graph


def stages_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Stage]:
    monkeypatch.chdir(folder)
    return read_stages()


def test_the_order_is_that_of_the_graph_not_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = stages_of(make_project(tmp_path, THREE_STAGES), monkeypatch)
    assert [stage.name for stage in stages] == ["first", "second", "third"]
    assert [stage.upstream for stage in stages] == [(), ("first",), ("second",)]


def test_description_retries_outputs_and_metrics_are_those_of_dvc_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = stages_of(make_project(tmp_path, THREE_STAGES), monkeypatch)
    assert (first.desc, first.retries, first.retry_delay_seconds) == ("Copies the source", 2, 0.5)
    assert (second.desc, second.retries, second.retry_delay_seconds) == ("", 0, 0.0)
    assert set(third.outs) == {Path("third.txt"), Path("metrics.json")}
    assert third.metrics == (Path("metrics.json"),)


def test_an_output_inside_a_folder_and_a_foreach_make_edges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dvc_yaml = """
stages:
  join: {cmd: "true", deps: [parts/a/rows.txt, parts/b], outs: [joined]}
  part: {foreach: [a, b], do: {cmd: "true", outs: ["parts/${item}"]}}
"""
    *parts, join = stages_of(make_project(tmp_path, dvc_yaml), monkeypatch)
    assert {part.name for part in parts} == {"part@a", "part@b"}
    assert set(join.upstream) == {"part@a", "part@b"}


def test_a_folder_without_dvc_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=f"DVC cannot read the pipeline in {re.escape(str(tmp_path))}: "):
        stages_of(tmp_path, monkeypatch)


def test_a_circle_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dvc_yaml = 'stages:\n  a: {cmd: "true", deps: [y], outs: [x]}\n  b: {cmd: "true", deps: [x], outs: [y]}\n'
    with pytest.raises(ValueError, match=r"DVC cannot read the pipeline .*both a dependency and an output"):
        stages_of(make_project(tmp_path, dvc_yaml), monkeypatch)


# --- one stage and its lines


def lines_of(content: bytes, tmp_path: Path) -> list[str]:
    (tmp_path / "output").write_bytes(content)
    with (tmp_path / "output").open("rb") as stream:
        return list(read_lines(stream))


def test_lines_end_at_newlines_of_any_kind_and_blank_ones_are_left_out(tmp_path: Path) -> None:
    assert lines_of(b"one\n\n  two\r\nthree", tmp_path) == ["one", "  two", "three"]


def test_a_progress_bar_is_thinned_to_its_first_and_last_line(tmp_path: Path) -> None:
    bar = b"".join(b"\r %d%%" % percent for percent in range(1, 101))
    assert lines_of(b"begins" + bar + b"\nends\n", tmp_path) == ["begins", " 100%", "ends"]


def test_a_long_line_is_cut_and_bytes_that_are_no_text_are_replaced(tmp_path: Path) -> None:
    long, broken = lines_of(b"x" * 5000 + b"\n\xff!\n", tmp_path)
    assert long == "x" * stage_run.MAX_LINE_CHARACTERS + " ... (5,000 characters)"
    assert broken == "\N{REPLACEMENT CHARACTER}!"


def test_lines_are_passed_on_while_the_stage_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = "echo begun; until [ -e seen.txt ]; do sleep 0.05; done; echo yes > out.txt"
    monkeypatch.chdir(make_project(tmp_path, one_stage(command)))
    run = run_stage("only", lambda line: Path("seen.txt").touch() if line == "begun" else None)
    assert run.outcome == "ran"


def test_a_stage_finds_bash_and_this_python_and_is_not_buffered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("SHELL", "/bin/sh")
    command = (
        'echo $SHELL $PYTHONUNBUFFERED; python -c "import sys; print(sys.prefix)"; [[ x ]] && touch out.txt'
    )
    monkeypatch.chdir(make_project(tmp_path, one_stage(command)))
    lines: list[str] = []
    assert run_stage("only", lines.append).outcome == "ran"
    assert {"/bin/bash 1", sys.prefix} <= set(lines)


def test_a_failed_run_keeps_the_last_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make_project(tmp_path, one_stage("seq 100; echo the reason >&2; exit 3")))
    run = run_stage("only", lambda line: None)
    assert run.outcome == "failed"
    assert len(run.last_lines) == stage_run.NUM_LAST_LINES
    assert run.last_lines[-2] == "the reason"
    assert run.last_lines[-1].endswith("exited with 3")


def test_a_stage_is_ended_when_the_run_is_left_by_an_exception(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make_project(tmp_path, one_stage("sleep 301.5 & echo begun; sleep 301.5")))

    def cancel(line: str) -> None:
        if line == "begun":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage("only", cancel)
    assert processes_with("301.5") == []


# --- what a stage shows


def page(folder: Path, **files: Any) -> str:
    outs = [folder / name.replace("__", ".") for name in files]
    for out, content in zip(outs, files.values(), strict=True):
        rows = content if isinstance(content, list) else [content]
        out.write_text("\n".join(json.dumps(row) for row in rows))
    stage = Stage(
        name="only",
        desc="Does it",
        upstream=(),
        outs=tuple(outs),
        metrics=tuple(out for out in outs if out.name == "scores.json"),
        retries=0,
        retry_delay_seconds=0.0,
    )
    run = StageRun(outcome="failed", exit_code=255, seconds=1.25, last_lines=("the reason",))
    return artifacts.stage_markdown(stage, run)


def test_a_page_says_how_the_run_ended(tmp_path: Path) -> None:
    assert page(tmp_path) == "**failed** in 1.2 s\n\nDoes it\n\n### Its last lines\n\n```\nthe reason\n```"


def test_a_page_has_the_metrics_of_dvc_yaml_as_a_table(tmp_path: Path) -> None:
    text = page(tmp_path, scores__json={"test": {"bleu_4": 0.25}, "tokenizer": "ptb"}, other__json={"a": 1})
    assert "| test.bleu_4 | 0.2500 |\n| tokenizer | ptb |" in text
    assert "other.json" not in text


@pytest.mark.parametrize(("accepted", "word"), [(True, "\naccepted"), (False, "**refused**")])
def test_a_page_has_the_verdict_of_a_gate(tmp_path: Path, accepted: bool, word: str) -> None:
    assert word in page(tmp_path, verdict__json={"accepted": accepted})


def test_a_page_has_the_expectations_that_do_not_hold(tmp_path: Path) -> None:
    row = {
        "claim": "every caption has words",
        "severity": "refusal",
        "observed": 0.5,
        "expected": "0.9 or more",
    }
    report = {"expectations": [{**row, "holds": False}, {**row, "claim": "another", "holds": True}]}
    text = page(tmp_path, report__json=report)
    assert "| refusal | every caption has words | 0.5 | 0.9 or more |" in text
    assert "another" not in text
    report["expectations"] = report["expectations"][1:]
    assert "all 1 expectations hold" in page(tmp_path, report__json=report)


def test_a_page_has_the_first_captions_in_cells_that_cannot_break_the_table(tmp_path: Path) -> None:
    rows = [{"image_id": f"i{n}", "hypothesis": "a | b\nc", "references": ["a dog"]} for n in range(30)]
    text = page(tmp_path, hypotheses__jsonl=rows)
    assert "| i0 | a \\| b c | a dog |" in text
    assert text.count("a dog") == artifacts.NUM_SAMPLE_CAPTIONS


def test_a_page_has_the_receipt_of_the_registry(tmp_path: Path) -> None:
    assert "| version | 3 |" in page(tmp_path, registration__json={"model_name": "captioner", "version": "3"})


@pytest.mark.parametrize(
    ("name", "key"), [("train", "train"), ("sub/dvc.yaml:My_stage@a", "sub-dvc-yaml-my-stage-a")]
)
def test_a_key_has_only_letters_that_prefect_allows(name: str, key: str) -> None:
    assert artifacts.artifact_key(name) == key


# --- servers


def test_a_server_that_cannot_start_is_named_with_its_last_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTIONING_HOME", str(tmp_path))
    command = [sys.executable, "-c", "import sys; sys.exit('no database')"]
    server = Server(name="Test", command=command, address="", health_url=f"http://127.0.0.1:{free_port()}/")
    with (
        pytest.raises(
            ValueError, match=r"the Test server ended with exit code 1; the end of .*test.log:\nno database"
        ),
        serving(server) as process,
    ):
        wait_for_answer(server, process)


def test_a_port_that_is_taken_is_replaced() -> None:
    port = free_port()
    with HTTPServer(("127.0.0.1", port), BaseHTTPRequestHandler):
        assert free_port(port) not in (0, port)


# --- under Prefect


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


@pytest.fixture(scope="module")
def prefect() -> Iterator[str]:
    """A Prefect server with a database of its own; its address."""
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=int(LIMIT_SECONDS)):
        yield str(PREFECT_API_URL.value())


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
