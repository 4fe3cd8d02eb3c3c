"""What DVC does with large outputs: linked rather than copied, pushed to and pulled from a remote."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows import links
from tests.s3 import serving_s3
from tests.scratch_project import THREE_STAGES, make_project


def dvc(project: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A pipeline that has run, its outputs linked as `make setup` chooses."""
    project = make_project(tmp_path / "project", THREE_STAGES)
    links.main(project)
    dvc(project, "repro")
    return project


def test_an_output_and_its_cached_copy_share_one_place_on_the_disk(project: Path):
    if links.supported(project) != "hardlink":
        pytest.skip("this file system has reflinks, whose sharing cannot be seen from here")
    assert (project / "second.txt").stat().st_nlink >= 2


def test_a_file_system_without_links_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def refuse(*_: object) -> None:
        raise OSError("Operation not supported")

    (tmp_path / ".dvc").mkdir()
    for kind in links.CHOICES:
        monkeypatch.setattr(links.LocalFileSystem, kind, refuse)
    links.main(tmp_path)
    assert "what is cached is on the disk twice" in capsys.readouterr().out


def forget(project: Path) -> None:
    """Lose every output and the cache, as a fresh clone on another machine has neither."""
    shutil.rmtree(project / ".dvc" / "cache")
    for name in ("first.txt", "second.txt", "third.txt", "order.log", "metrics.json"):
        (project / name).unlink()


def check_remote(project: Path) -> None:
    """Push, forget, pull one stage's output only, then the rest, and see that nothing is left to run."""
    dvc(project, "push")
    forget(project)
    dvc(project, "pull", "second")
    assert (project / "second.txt").read_text() == "the source"
    assert not (project / "third.txt").exists()
    dvc(project, "pull")
    assert "Running stage" not in dvc(project, "repro")
    assert not (project / "order.log").exists()


def test_what_a_folder_holds_is_pulled_stage_by_stage_and_nothing_runs_again(project: Path, tmp_path: Path):
    dvc(project, "remote", "add", "--default", "store", str(tmp_path / "remote"))
    check_remote(project)


@pytest.fixture
def s3() -> Iterator[str]:
    with serving_s3() as address:
        yield address


def test_what_an_s3_bucket_holds_is_pulled_stage_by_stage_and_nothing_runs_again(project: Path, s3: str):
    dvc(project, "remote", "add", "--default", "store", "s3://captioning/store")
    dvc(project, "remote", "modify", "--local", "store", "endpointurl", s3)
    check_remote(project)
