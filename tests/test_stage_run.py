"""A stage runs by DVC in the order of DVC's graph; what it prints is passed on."""

import re
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from scratch_project import THREE_STAGES, make_project, one_stage, processes_with

from flows import stage_run
from flows.servers import Server, free_port, serving, wait_for_answer
from flows.stage_graph import Stage, read_stages
from flows.stage_run import read_lines, run_stage

ROOT = Path(__file__).parents[1]


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
    assert (first.timeout_seconds, second.timeout_seconds) == (3600.0, None)
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
    assert (run.outcome, run.has_begun) == ("failed", True)
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
