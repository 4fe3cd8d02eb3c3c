"""A flow has its checkout for itself, and leaves the files that it replaced for one run as they were."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.lock import LockError
from dvc.repo import Repo
from dvc.rwlock import rwlock
from scratch_project import make_project, one_stage, wait_until

from flows import checkout

ROOT = Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(make_project(tmp_path, one_stage("touch begun; sleep 60")))
    return tmp_path


def test_a_second_flow_is_told_that_the_checkout_is_busy(project: Path) -> None:
    busy = pytest.raises(checkout.BusyError, match=f"another flow works in {project}")
    with checkout.alone(), busy, checkout.alone():
        pass
    with checkout.alone():
        pass


@pytest.mark.slow
def test_a_flow_that_waits_says_so_and_begins_when_the_first_is_killed(project: Path) -> None:
    hold = "from flows import checkout; import time\nwith checkout.alone(): open('held', 'w'); time.sleep(60)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", hold], env=environment) as first:
        wait_until((project / "held").exists)
        said = []

        def say(sentence: str) -> None:
            said.append(sentence)
            first.kill()

        with checkout.alone(say):
            pass
    assert said == [f"another flow works in {project}; waiting until it has ended"]


def test_a_folder_without_dvc_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused = pytest.raises(
        ValueError, match=f"{tmp_path} is no DVC project; start the flow in the project's"
    )
    with refused, checkout.alone():
        pass


@pytest.mark.slow
def test_a_file_is_in_use_while_a_stage_that_depends_on_it_runs(project: Path) -> None:
    with subprocess.Popen([sys.executable, "-m", "dvc", "repro", "-q"], start_new_session=True) as repro:
        wait_until((project / "begun").exists)
        busy = pytest.raises(checkout.BusyError, match=r"source\.txt is in use: .*being blocked by")
        with busy, checkout.unread(Path("source.txt")):
            pass
        os.killpg(repro.pid, 9)
    with checkout.unread(Path("source.txt")):
        pass


def test_dvc_does_not_read_a_file_while_it_is_written(project: Path) -> None:
    path = str(project / "source.txt")
    busy = pytest.raises(LockError, match="is busy, it is being blocked by")
    lock = ("a stage", [path], [], False)
    with checkout.unread(Path("source.txt")), Repo() as repo, busy, rwlock(repo.tmp_dir, repo.fs, *lock):
        pass


def test_files_are_put_back_also_after_a_failure(project: Path) -> None:
    source, absent = Path("source.txt"), Path("absent.txt")
    with pytest.raises(ValueError, match="stage failed"), checkout.put_back(source, absent):
        source.write_text("for this run")
        raise ValueError("stage failed")
    assert source.read_text() == "the source"
    assert sorted(path.name for path in project.iterdir()) == [".dvc", ".dvcignore", "dvc.yaml", "source.txt"]


def test_what_a_killed_run_left_is_put_back_by_the_next(project: Path) -> None:
    source = Path("source.txt")
    kill = (
        "import os; from pathlib import Path; from flows import checkout\n"
        "with checkout.put_back(Path('source.txt')): "
        "Path('source.txt').write_text('for this run'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", kill], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert source.read_text() == "for this run"
    assert checkout.recover(source) == [source]
    assert source.read_text() == "the source"
    assert checkout.recover(source) == []
