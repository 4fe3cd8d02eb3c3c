"""Nothing outlives a supervisor that is killed itself: not under a run that goes on, nor until the next run."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from scratch_project import is_gone, make_project, make_project_of_ranks, one_stage, processes_with
from sleepers import LIMIT_SECONDS, Sleepers, wait_until

from flows import orphans, servers
from flows.orphans import under_supervisor
from flows.stage_run import run_stage

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="adoption of orphans is Linux's")


@pytest.fixture(autouse=True)
def in_a_scratch_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("CAPTIONING_GRACE_SECONDS", "5")


def supervisors(folder: Path) -> list[psutil.Process]:
    children = psutil.Process().children()
    return [each for each in children if "flows.supervisor" in each.cmdline() and each.cwd() == str(folder)]


def test_a_stage_whose_supervisor_is_killed_is_ended_and_has_failed(
    sleepers: Sleepers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleep = f"sleep {sleepers.seconds}"
    command = f"{sleep} & setsid {sleep} & (setsid {sleep} &); echo begun; {sleep}"
    monkeypatch.chdir(make_project(tmp_path, one_stage(command)))
    lines: list[str] = []

    def kill_supervisor(line: str) -> None:
        lines.append(line)
        if line == "begun":
            sleepers.wait_for(4)
            (supervisor,) = supervisors(tmp_path)
            supervisor.kill()

    run = run_stage("only", kill_supervisor)
    assert sleepers.living() == []
    assert (run.outcome, run.has_begun) == ("failed", True)
    words = "the supervisor was killed by signal 9, and what it had started was ended"
    assert run.last_lines[-1] == lines[-1] == words


@pytest.mark.soak
@pytest.mark.slow
def test_a_rank_that_is_killed_takes_the_others_along_and_the_next_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make_project_of_ranks(tmp_path))
    lines: list[str] = []

    def kill_a_rank() -> None:
        wait_until(lambda: Path("state.txt").exists() and Path("state.txt").read_text() == "5", 120)
        psutil.Process(max(processes_with("ranks.py"))).kill()

    killer = threading.Thread(target=kill_a_rank)
    killer.start()
    killed = run_stage("only", lines.append)
    killer.join()
    assert killed.outcome == "failed"
    assert processes_with("ranks.py") == []
    assert run_stage("only", lines.append).outcome == "ran"
    assert "rank 1 begins at 5" in lines


def test_what_ignores_the_request_to_end_is_killed_after_the_grace(
    sleepers: Sleepers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTIONING_GRACE_SECONDS", "0.5")
    with under_supervisor(sleepers.family(before="trap '' TERM;")) as supervisor:
        sleepers.wait_for(4)
        supervisor.kill()
    assert sleepers.living() == []


def test_a_server_whose_supervisor_is_killed_is_ended(
    sleepers: Sleepers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTIONING_HOME", str(tmp_path))
    server = servers.Server(name="Test", command=sleepers.family(), address="", health_url="")
    with servers.serving(server) as supervisor:
        sleepers.wait_for(4)
        supervisor.kill()
    assert sleepers.living() == []


def test_what_a_killed_run_and_its_killed_supervisor_left_is_ended_by_the_next_in_that_folder(
    sleepers: Sleepers, tmp_path: Path
) -> None:
    here, elsewhere, others = tmp_path / "here", tmp_path / "elsewhere", Sleepers()
    here.mkdir()
    elsewhere.mkdir()
    program = (
        "import sys, time; from flows.orphans import under_supervisor\n"
        "with under_supervisor(sys.argv[1:]) as one: print(one.pid, flush=True); time.sleep(300)"
    )
    command = [sys.executable, "-c", program, *sleepers.family()]
    with (
        under_supervisor(others.family(), cwd=here) as living,
        subprocess.Popen(command, cwd=here, stdout=subprocess.PIPE) as run,
    ):
        assert run.stdout is not None
        supervisor = psutil.Process(int(run.stdout.readline()))
        sleepers.wait_for(4)
        others.wait_for(4)
        run.send_signal(signal.SIGSTOP)  # so it sweeps nothing
        supervisor.kill()
        run.kill()
        run.wait()
        wait_until(lambda: is_gone(supervisor.pid))
        orphans.clear(elsewhere)
        assert len(sleepers.living()) == 4
        orphans.clear(here)
        assert sleepers.living() == []
        assert len(others.living()) == 4, "their supervisor lives"
        living.terminate()
    assert others.living() == []


def test_what_a_supervisor_starts_carries_its_mark_and_folder(tmp_path: Path) -> None:
    with under_supervisor(["bash", "-c", "echo $CAPTIONING_SUPERVISOR"], cwd=tmp_path) as process:
        assert process.stdout is not None
        mark, folder = process.stdout.read().decode().split()
    assert process.wait(LIMIT_SECONDS) == 0
    assert (len(mark), folder) == (32, str(tmp_path))
    assert "CAPTIONING_SUPERVISOR" not in os.environ
