"""Tracking against a real MLflow on SQLite; first uses, kills and failures in processes of their own."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow.entities import Run

from captioning import machine, store, tracking

PARAMS = {
    "train": {
        "seed": 0,
        "decoder": {"name": "soft_attention", "dropout": 0.3},
        "layers": [1, 2],
        "clip": None,
    },
    "register": {"model_name": "tasks"},
}


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def home(shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use(shared_home, monkeypatch)


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield use(tmp_path / "home", monkeypatch)


def use(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CAPTIONING_HOME", str(folder))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder.mkdir(exist_ok=True)
    return folder


def start(code: str, home: Path, cwd: Path | None = None) -> subprocess.Popen[str]:
    env = {**os.environ, "CAPTIONING_HOME": str(home)}
    command = [sys.executable, "-c", code]
    return subprocess.Popen(
        command, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def runs_of(fingerprint: str) -> list[Run]:
    experiment = store.client().get_experiment_by_name("tasks")
    found = store.client().search_runs([experiment.experiment_id])
    return [run for run in found if run.data.tags["captioning.fingerprint"] == fingerprint]


def curve(run: Run, name: str) -> list[tuple[int, float]]:
    return [(each.step, each.value) for each in store.client().get_metric_history(run.info.run_id, name)]


# --- opening


@pytest.mark.slow
def test_three_processes_may_use_a_fresh_database_at_once_and_say_nothing(tmp_path: Path) -> None:
    code = (
        "from captioning import tracking\n"
        "with tracking.training_run('abc', {}, 'tasks') as report: report(1, {'loss': 1.0}, {})"
    )
    processes = [start(code, tmp_path, cwd=tmp_path) for _ in range(3)]
    said = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert said == [("", "")] * 3
    with sqlite3.connect(tmp_path / "mlruns" / "mlflow.db") as database:
        names = [name for (name,) in database.execute("SELECT name FROM experiments")]
        assert sorted(names) == ["Default", "tasks"]
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".work", "mlruns"]


@pytest.mark.slow
def test_a_process_killed_while_the_database_is_made_leaves_nothing_in_its_place(tmp_path: Path) -> None:
    killed = start(
        "import os, signal\n"
        "from sqlalchemy import Engine, event\n"
        "@event.listens_for(Engine, 'before_cursor_execute')\n"
        "def see(connection, cursor, statement, *_):\n"
        "    if 'CREATE TABLE review_queues' in statement: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from captioning import store\n"
        "store.client()",
        tmp_path,
        cwd=tmp_path,
    )
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "mlruns" / "mlflow.db").exists()
    after = start("from captioning import store; store.client()", tmp_path, cwd=tmp_path)
    assert after.communicate() == ("", "")
    assert [path.name for path in (tmp_path / "mlruns").iterdir()] == ["mlflow.db"]


def test_the_environment_names_another_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.uri() == f"sqlite:///{home}/mlruns/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert store.uri() == "http://tracking:5000"
    assert store.local_database() is None


def test_the_default_uri_is_lent_and_not_exported(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with store.as_default_uri():
        assert os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{home}/mlruns/mlflow.db"
    assert "MLFLOW_TRACKING_URI" not in os.environ
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    with store.as_default_uri():
        pass
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://tracking:5000"


def test_records_that_cannot_be_opened_are_named_with_the_next_step(own_home: Path) -> None:
    (own_home / "mlruns").mkdir()
    (own_home / "mlruns" / "mlflow.db").write_text(
        "no database at all, but long enough to be taken for one" * 9
    )
    with pytest.raises(
        ValueError, match=r"mlflow\.db cannot be opened: file is not a database; `mlflow db upgrade"
    ):
        store.client()


# --- the run of a training


def test_a_training_is_one_finished_run_with_params_curves_and_identity(home: Path, tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text("{}")
    with tracking.training_run("whole", PARAMS, "tasks", examples=tmp_path) as report:
        for epoch in (1, 2):
            report(epoch, {"val_loss": 3.0 - epoch}, {})
        assert [run.info.status for run in runs_of("whole")] == ["RUNNING"]
    (run,) = runs_of("whole")
    assert run.info.status == "FINISHED"
    assert curve(run, "val_loss") == [(1, 2.0), (2, 1.0)]
    assert run.data.params == {
        "train.seed": "0",
        "train.decoder.name": "soft_attention",
        "train.decoder.dropout": "0.3",
        "train.layers": "[1, 2]",
        "train.clip": "null",
        "register.model_name": "tasks",
    }
    assert (
        run.data.tags["captioning.data"] == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    )
    assert run.info.artifact_uri.startswith(f"file://{home}/mlruns/tasks/")
    assert tracking.machines(run.info.run_id) == [machine.describe()]


def test_a_resumed_training_continues_its_run_and_repeats_no_point(home: Path) -> None:
    with pytest.raises(KeyboardInterrupt), tracking.training_run("resumed", PARAMS, "tasks") as report:
        report(1, {"loss": 2.0}, {})
        report(2, {"loss": 1.0}, {})
        raise KeyboardInterrupt
    assert [run.info.status for run in runs_of("resumed")] == ["KILLED"]
    changed = {"train": {"seed": 0}, "evaluate": {"beam_width": 3}}
    with tracking.training_run("resumed", changed, "tasks") as report:
        report(2, {"loss": 1.0}, {})
        report(3, {"loss": 0.5}, {})
    (run,) = runs_of("resumed")
    assert run.info.status == "FINISHED"
    assert curve(run, "loss") == [(1, 2.0), (2, 1.0), (3, 0.5)]
    assert run.data.params["evaluate.beam_width"] == "3"


@pytest.mark.parametrize(
    ("end", "status"),
    [(ValueError("the loss is nan"), "FAILED"), (SystemExit(1), "FAILED"), (SystemExit(143), "KILLED")],
)
def test_a_run_ends_as_its_training_did(home: Path, end: BaseException, status: str) -> None:
    with pytest.raises(type(end)), tracking.training_run(f"end{status}", PARAMS, "tasks"):
        raise end
    assert {run.info.status for run in runs_of(f"end{status}")} == {status}


def test_a_terminated_training_is_recorded_as_killed(home: Path) -> None:
    store.client()
    code = (
        "import time\nfrom captioning import tracking\n"
        "with tracking.training_run('terminated', {}, 'tasks'):\n"
        "    print('ready', flush=True)\n    time.sleep(60)"
    )
    process = start(code, home)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    assert [run.info.status for run in runs_of("terminated")] == ["KILLED"]


def test_a_handler_of_sigterm_that_is_set_already_stays(home: Path) -> None:
    def own(number: int, frame: Any) -> None: ...

    before = signal.signal(signal.SIGTERM, own)
    try:
        with tracking.training_run("handled", PARAMS, "tasks"):
            assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_experiment_that_was_deleted_is_restored(home: Path) -> None:
    experiment_id = store.client().create_experiment("deleted", artifact_location=(home / "deleted").as_uri())
    store.client().delete_experiment(experiment_id)
    with tracking.training_run("again", {}, "deleted"):
        pass
    assert store.client().get_experiment(experiment_id).lifecycle_stage == "active"


# --- training goes on


def test_training_goes_on_when_the_records_cannot_be_opened(
    own_home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (own_home / "mlruns").write_text("a file where a folder should be")
    with tracking.training_run("untracked", PARAMS, "tasks") as report:
        report(1, {"loss": 1.0}, {})
    said = capfd.readouterr()
    assert said.err.count("\n") == 1
    assert said.err.startswith(
        "the training goes on without MLflow, `register` completes its record: MLflow's records"
    )
    assert said.out == ""


def test_training_goes_on_when_the_records_break_on_the_way(
    own_home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with tracking.training_run("broken", PARAMS, "tasks") as report:
        report(1, {"loss": 1.0}, {})
        with sqlite3.connect(own_home / "mlruns" / "mlflow.db") as database:
            database.execute("ALTER TABLE metrics RENAME TO lost")
        began = time.monotonic()
        for epoch in range(2, 50):
            report(epoch, {"loss": 1.0}, {})
        assert time.monotonic() - began < 5
    said = capfd.readouterr()
    assert said.err.count("\n") == 1 and "no such table: metrics" in said.err


def test_the_error_of_a_training_is_not_hidden_by_broken_records(own_home: Path) -> None:
    (own_home / "mlruns").write_text("")
    with pytest.raises(ValueError, match="the loss is nan"), tracking.training_run("nan", PARAMS, "tasks"):
        raise ValueError("the loss is nan")


# --- a training that DVC restored


def test_a_restored_training_gets_its_run_from_the_history(home: Path) -> None:
    history = pd.DataFrame(
        {"epoch": [1, 2], "loss": [2.0, 1.0], "val_cider": [float("nan"), 0.5], "note": ["a", "b"]}
    )
    run_id = tracking.log_training("restored", history, PARAMS, "tasks")
    assert tracking.log_training("restored", history, PARAMS, "tasks") == run_id
    (run,) = runs_of("restored")
    assert (run.info.run_id, run.info.status) == (run_id, "FINISHED")
    assert curve(run, "loss") == [(1, 2.0), (2, 1.0)]
    assert curve(run, "val_cider") == [(2, 0.5)]
    assert "note" not in run.data.metrics


def test_missing_points_of_a_run_are_completed_from_the_history(home: Path) -> None:
    with tracking.training_run("gaps", PARAMS, "tasks") as report:
        report(1, {"loss": 2.0}, {})
    tracking.log_training("gaps", pd.DataFrame({"epoch": [1, 2], "loss": [2.0, 1.0]}), PARAMS, "tasks")
    (run,) = runs_of("gaps")
    assert curve(run, "loss") == [(1, 2.0), (2, 1.0)]


def test_a_long_history_is_logged_in_several_requests(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "POINTS_PER_REQUEST", 2)
    history = pd.DataFrame({"epoch": range(1, 6), "loss": [5.0, 4.0, 3.0, 2.0, 1.0]})
    tracking.log_training("long", history, PARAMS, "tasks")
    (run,) = runs_of("long")
    assert len(curve(run, "loss")) == 5


# --- identity


def test_identity_names_revision_changes_and_dvc_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = repository(tmp_path, monkeypatch)
    (tmp_path / "dvc.lock").write_text("one")
    (tmp_path / "code.py").write_text("pass")
    git("add", ".")
    git("commit", "-qm", "all")
    clean = tracking.identity()
    assert clean["captioning.git_dirty"] == "false"
    assert clean["captioning.git_revision"] == git("rev-parse", "HEAD").strip()
    (tmp_path / "dvc.lock").write_text("two")
    rerun = tracking.identity()
    assert rerun["captioning.git_dirty"] == "false"
    assert rerun["captioning.dvc_lock"] != clean["captioning.dvc_lock"]
    for recorded in ("params.yaml", "source.json"):
        (tmp_path / recorded).write_text("{}")
    assert tracking.identity()["captioning.git_dirty"] == "false"
    (tmp_path / "new_part.py").write_text("pass")
    assert tracking.identity()["captioning.git_dirty"] == "true"


def test_without_a_repository_there_is_no_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert tracking.identity() == {}


def repository(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.chdir(folder)
    for name in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{name}_NAME", "tester")
        monkeypatch.setenv(f"{name}_EMAIL", "tester@example.org")

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    return git
