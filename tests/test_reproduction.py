"""Versions made again: real git, DVC and MLflow, on a project of three small stages."""

import os
import signal
import subprocess
import sys
import time
from contextlib import chdir
from pathlib import Path

import pytest
from lineage_samples import MODEL, commit, git, make_project, register, run
from scratch_project import wait_until

from captioning import reproduction, store
from captioning.cli import main
from captioning.reproduction import reproduce
from captioning.reproduction.stage_order import upstream

pytestmark = pytest.mark.slow
HERE = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def shared_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with version 1, of which everything is committed but dvc.lock and params.yaml."""
    folder = make_project(tmp_path_factory.mktemp("reproduced") / "project")
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        run(folder, seed=7)
        register(folder)
    return folder


@pytest.fixture
def project(shared_project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    enter(shared_project, monkeypatch)
    return shared_project


def enter(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.chdir(folder)
    patch.setenv("CAPTIONING_HOME", str(folder))
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)
    search_path = [str(Path(sys.executable).parent), os.environ["PATH"]]
    patch.setenv("PATH", os.pathsep.join(search_path))


def num_versions() -> int:
    return len(store.client().search_model_versions(f"name = '{MODEL}'"))


def test_a_version_is_made_again_beside_the_tree_and_nothing_else_changes(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (project / "params.yaml").write_text("train: {seed: 1, number: 1}\n")
    before = git(project, "status", "--porcelain"), (project / "dvc.lock").read_bytes(), num_versions()
    with pytest.raises(SystemExit) as ended:
        main(["reproduce", "1", "--model", MODEL])
    said = capfd.readouterr()
    assert ended.value.code == 0, said
    assert said.out.splitlines()[-1] == (
        "version 1 of tiny is reproduced: all 3 numbers of its reports/metrics.json are equal"
    )
    assert "reproduce: train, stage 1 of 2" in said.err and "training" in said.out
    assert (
        git(project, "status", "--porcelain"),
        (project / "dvc.lock").read_bytes(),
        num_versions(),
    ) == before
    assert len(git(project, "worktree", "list").splitlines()) == 1
    assert list((project / ".work" / reproduction.FOLDER / "tiny-1").iterdir()) == []


def test_each_number_that_differs_is_named(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CHANCE", "0.5")
    with pytest.raises(SystemExit) as ended:
        main(["reproduce", "1", "--model", MODEL, "--in", str(tmp_path / "there"), "--keep"])
    assert ended.value.code == 1
    assert capfd.readouterr().out.splitlines()[-3:] == [
        f"the checkout is {tmp_path / 'there'}; `git worktree remove --force {tmp_path / 'there'}` removes it",
        "version 1 of tiny is not reproduced:",
        "  test.chance: 0.0 then, 0.5 now",
    ]
    assert (tmp_path / "there" / "reports" / "metrics.json").exists()
    with pytest.raises(
        ValueError, match=r"there exists and is not what a reproduction left; name another folder"
    ):
        reproduce(MODEL, "1", tree=tmp_path / "there")
    git(project, "worktree", "remove", "--force", str(tmp_path / "there"))


def test_code_that_was_not_committed_travels_as_a_patch_and_the_rest_is_said(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train = project / "stages" / "train.py"
    committed = train.read_text()
    train.write_text(
        "import stages.doubled\n" + committed.replace("* number", "* stages.doubled.BY * number")
    )
    (project / "stages" / "doubled.py").write_text("BY = 2\n")
    (project / "notes.txt").write_text("read by nobody\n")
    run(project, seed=7)
    version = register(project, fingerprint="doubled")
    train.write_text(committed)
    for name in ("stages/doubled.py", "notes.txt"):
        (project / name).unlink()
    assert reproduce(MODEL, version).differences == []
    said = capfd.readouterr().err
    assert "with the code that was not committed: stages/doubled.py, stages/train.py\n" in said
    assert "without other files that were not committed: notes.txt\n" in said


def test_data_that_left_the_cache_are_made_anew(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(project, seed=7, number=5)
    version = register(project, fingerprint="other data")
    run(project, seed=7)
    with chdir(project):
        subprocess.run([sys.executable, "-m", "dvc", "gc", "--workspace", "--force", "--quiet"], check=True)
    assert reproduce(MODEL, version).differences == []
    assert "no longer in DVC's cache, so made anew: data/raw" in capfd.readouterr().err


def test_one_that_was_killed_goes_on_and_leaves_no_process(
    project: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = f"from captioning.reproduction import reproduce; reproduce({MODEL!r}, '1')"
    environment = {**os.environ, "TRAIN_WAITS_FOR": str(tmp_path / "go"), "PYTHONPATH": str(HERE)}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"training\n"
        with pytest.raises(ValueError, match="version 1 of tiny is being reproduced by another process"):
            reproduce(MODEL, "1")
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while True:
        try:
            done = reproduce(MODEL, "1")
            break
        except ValueError as error:  # its stage, which is asked to end, holds the lock a moment longer
            assert "by another process" in str(error) and time.monotonic() < deadline
            time.sleep(0.1)
    assert done.differences == []
    assert "reproduce: an earlier run was ended; going on in" in capfd.readouterr().err
    wait_until(lambda: len(git(project, "worktree", "list").splitlines()) == 1)


def test_one_that_was_killed_while_it_was_checked_out_is_begun_anew(project: Path) -> None:
    place = project / ".work" / reproduction.FOLDER / "tiny-1"
    git(project, "worktree", "add", "--detach", "--lock", str(place / "tree"))
    (place / "tree" / ".git").unlink()
    (place / "state.json").write_text(
        f'{{"tree": "{place / "tree"}", "identity": "", "is_prepared": false, "stages": [], "done": []}}'
    )
    assert reproduce(MODEL, "1", is_everything=True).differences == []
    assert len(git(project, "worktree", "list").splitlines()) == 1


def test_a_revision_that_is_not_what_made_the_version_is_refused(project: Path) -> None:
    run(project, seed=7)
    evaluate = project / "stages" / "evaluate.py"
    evaluate.write_text(evaluate.read_text() + "print('another')\n")
    commit(project, "another evaluation, never run")
    version = register(project, fingerprint="not run")
    with pytest.raises(
        ValueError, match=r"is not what made the version: stages/evaluate\.py differ from its dvc"
    ):
        reproduce(MODEL, version)
    commit_of = git(project, "rev-parse", "HEAD")
    git(project, "reset", "-q", "--hard", "HEAD~1")
    git(project, "reflog", "expire", "--expire=now", "--all")
    git(project, "prune", "--expire=now")
    with pytest.raises(
        ValueError, match=f"of revision {commit_of}, which this repository does not have; `git fetch`"
    ):
        reproduce(MODEL, version)


def test_what_made_a_version_must_be_known(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(project, seed=7)
    monkeypatch.setattr("captioning.revision.MOST_PATCH_BYTES", 10)
    (project / "stages" / "large.py").write_text("LARGE = 1000000\n")
    version = register(project, fingerprint="large")
    (project / "stages" / "large.py").unlink()
    with pytest.raises(
        ValueError, match=r"nor, being too large, kept as a patch: stages/large\.py; it cannot be"
    ):
        reproduce(MODEL, version)
    with pytest.raises(ValueError, match=r"version 99 of tiny has no lineage\.json that can be read"):
        reproduce(MODEL, "99")


def test_stages_come_after_those_whose_outputs_they_read() -> None:
    lock = {
        "stages": {
            "evaluate": {"deps": [{"path": "models/tiny"}, {"path": "data/raw/rows.txt"}], "outs": []},
            "train": {"deps": [{"path": "data/clean"}], "outs": [{"path": "models/tiny"}]},
            "clean": {"deps": [{"path": "data/raw"}, {"path": "code.py"}], "outs": [{"path": "data/clean"}]},
            "download": {"outs": [{"path": "data/raw"}]},
            "unrelated": {"outs": [{"path": "other"}]},
        }
    }
    assert upstream(lock, ["train", "evaluate"]) == ["download", "clean", "train", "evaluate"]
