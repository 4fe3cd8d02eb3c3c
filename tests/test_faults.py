"""Servers, disks, locks and clocks that fail while a run or a registration is under way.

Each time nothing is left half-done, and what follows ends as if nothing had been. Kills of stages, ranks, flows and
schedules are tested where those are; PostgreSQL's death in test_servers.py.
"""

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from mlflow import MlflowClient
from outages import Line, kill_tree
from registry_samples import Project, split_data, write_model
from s3 import serving_s3
from scratch_project import LIMIT_SECONDS, THREE_STAGES, make_project, make_repository, run_git, wait_until

from captioning import aliases, champion, registry, servability, store, tracking
from captioning.registry import DataFolders
from captioning.servability import Answer
from flows import pages
from flows.servers import Server, free_port, mlflow_server, serving, wait_for_answer

ROOT = Path(__file__).parents[1]
MARK = "CAPTIONING_TEST_OF_FAULTS"


@contextmanager
def at(home: Path, mlflow: str | None = None) -> Iterator[None]:
    """Work in a home, with its own records or a server's, without asking models in processes of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPTIONING_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        if mlflow:
            patch.setenv("MLFLOW_TRACKING_URI", mlflow)
        patch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
        patch.setattr(servability, "ask_alone", lambda *_: Answer(problem="", seconds_per_caption=0.5))
        yield


@pytest.fixture(scope="module")
def data(tiny_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> DataFolders:
    folder = tmp_path_factory.mktemp("data")
    with at(folder):
        places = {"train": range(16), "val": range(16, 20), "test": range(20, 48)}
        return split_data(tiny_tables, folder / "data", places)


@pytest.fixture(scope="module")
def with_champion(data: DataFolders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose registry has a champion of quality 0.25."""
    home = tmp_path_factory.mktemp("registered")
    write_model(home / "models" / "captioner", "abc123")
    with at(home):
        Project(home, "captioner", data).register(0.25)
    return home


@pytest.fixture
def home(with_champion: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it, in use."""
    home = shutil.copytree(with_champion, tmp_path / "home")
    with at(home):
        yield home


@pytest.fixture(scope="module")
def s3() -> Iterator[Line]:
    """A line to an S3 that the environment names."""
    with serving_s3() as address, pytest.MonkeyPatch.context() as patch:
        line = Line(int(address.rpartition(":")[2]))
        patch.setenv("AWS_ENDPOINT_URL", line.address)
        yield line


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def once_before(method: str, act: Callable[[], None]) -> "pytest.MonkeyPatch":
    """Have `act` called before the next call of a method of MLflow's client."""
    patch, original = pytest.MonkeyPatch(), getattr(MlflowClient, method)

    def called(*arguments: Any, **keywords: Any) -> Any:
        patch.undo()
        act()
        return original(*arguments, **keywords)

    patch.setattr(MlflowClient, method, called)
    return patch


def is_as_undisturbed(project: Project) -> bool:
    """Tell whether the registry is as after two registrations, of which the second won, and every version is whole."""
    found = aliases.versions(project.model_name)
    told = [(row.version, row.from_version) for row in registry.history(project.model_name)]
    return (
        sorted(str(version.version) for version in found) == ["1", "2"]
        and all(aliases.has_files(version) for version in found)
        and project.aliases() == {"champion": 2, "previous": 1}
        and told == [("1", None), ("2", "1")]
        and registry.folder_digest(champion.champion_folder(project.model_name))
        == registry.folder_digest(project.model)
    )


# the embedded records


@pytest.mark.slow
def test_a_registration_waits_for_a_database_that_another_process_has_locked(
    home: Path, data: DataFolders
) -> None:
    program = (
        "import sqlite3, sys, time\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('BEGIN EXCLUSIVE'); print('locked', flush=True); time.sleep(6)"
    )
    others: list[subprocess.Popen[bytes]] = []

    def lock() -> None:
        command = [sys.executable, "-c", program, str(home / "mlruns" / "mlflow.db")]
        others.append(subprocess.Popen(command, stdout=subprocess.PIPE))
        assert others[0].stdout is not None
        assert others[0].stdout.readline() == b"locked\n"

    project = Project(home, "captioner", data)
    once_before("create_model_version", lock)
    assert project.register(0.75).decision == "better"
    assert is_as_undisturbed(project)
    others[0].communicate()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a file system of its own needs the right to mount one")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_moment_of_a_registration_costs_nothing_but_a_repetition(
    with_champion: Path, data: DataFolders, small_disk: Path
) -> None:
    home = shutil.copytree(with_champion, small_disk / "home")
    project, ballast = Project(home, "captioner", data), small_disk / "ballast"
    failures = set()
    with at(home):
        for num_free in (0, 100_000, 900_000):
            with ballast.open("wb") as file:
                file.truncate()
                os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(small_disk).free - num_free)
            with (
                pytest.raises(
                    (OSError, ValueError), match=r"disk is full.*; free some space|No space left"
                ) as failure,
                store.in_words(),
            ):
                project.register(0.75)
            ballast.unlink()
            failures.add("cannot be opened" in str(failure.value))
            assert project.aliases() == {"champion": 1}
            assert all(aliases.has_files(version) for version in aliases.versions("captioner"))
        assert failures == {True, False}, "at the first look, and in the middle"
        assert project.register(0.75).decision == "better"
        assert is_as_undisturbed(project)


# MLflow's server, and S3 behind it


@pytest.fixture(scope="module")
def mlflow(s3: Line, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server's address and records, which keeps artifacts in S3; it is not started."""
    folder = tmp_path_factory.mktemp("mlflow")
    return mlflow_server(
        free_port(), database=f"sqlite:///{folder}/mlflow.db", artifacts="s3://captioning/mlflow"
    )


@pytest.fixture(scope="module")
def project(mlflow: Server, data: DataFolders, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A trained model."""
    home = tmp_path_factory.mktemp("home")
    write_model(home / "models" / "captioner", "abc123")
    return Project(home, "captioner", data)


def start(server: Server, stack: ExitStack, home: Path) -> "subprocess.Popen[bytes]":
    """Start a server until the end of the test; return once it answers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPTIONING_HOME", str(home))
        patch.setenv("MLFLOW_WORKERS", "1")
        process = stack.enter_context(serving(server))
        wait_for_answer(server, process)
    return process


@pytest.mark.soak
@pytest.mark.slow
def test_servers_that_go_away_during_a_registration_and_come_back_are_no_fault(
    mlflow: Server, project: Project, s3: Line, stack: ExitStack
) -> None:
    processes = [start(mlflow, stack, project.root)]
    line = Line(int(mlflow.address.rpartition(":")[2]))

    def restart() -> None:
        kill_tree(processes[-1])
        processes.append(start(mlflow, stack, project.root))  # the client's connections are broken

    def cut_s3() -> None:
        s3.cut()
        threading.Timer(60.0, s3.mend).start()

    with at(project.root, line.address):
        once_before("create_logged_model", cut_s3)
        assert project.register(0.25).decision == "no-champion"
        line.lose_the_answer_to(b"/model-versions/create")
        once_before("set_registered_model_alias", restart)
        assert project.register(0.75).decision == "better"
        assert not line.is_losing
        assert is_as_undisturbed(project)


@pytest.mark.slow
def test_what_is_made_again_after_a_lost_answer_is_there_once(
    project: Project, stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pause in ("BACKOFF_FACTOR", "BACKOFF_JITTER"):
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{pause}", "0")
    database = f"sqlite:///{tmp_path}/mlflow.db"
    server = mlflow_server(free_port(), database=database, artifacts=str(tmp_path / "artifacts"))
    start(server, stack, tmp_path)
    line = Line(int(server.address.rpartition(":")[2]))
    made = ("experiments/create", "runs/create", "registered-models/create", "logged-models", "runs/outputs")
    line.lose_the_answer_to(*(f"POST /api/2.0/mlflow/{name} ".encode() for name in made))
    with at(project.root, line.address):
        with tracking.training_run("abc123", {}, project.model_name) as report:
            report(1, {"val_bleu_4": 0.1}, {})
        assert project.register(0.5).version == "1"
        assert not line.is_losing
        client = store.client()
        experiment = client.get_experiment_by_name(project.model_name)
        (run,) = client.search_runs([experiment.experiment_id])
        assert (run.info.status, run.data.metrics["val_bleu_4"]) == ("FINISHED", 0.2)
        (logged,) = client.search_logged_models([experiment.experiment_id])
        (version,) = aliases.versions(project.model_name)
        assert [output.model_id for output in run.outputs.model_outputs] == [logged.model_id]
        assert (version.run_id, version.source) == (run.info.run_id, f"models:/{logged.model_id}")
        assert aliases.has_files(version)


@pytest.mark.soak
@pytest.mark.slow
def test_a_push_while_s3_is_away_fails_and_is_made_good_by_the_next(
    s3: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    project = make_project(tmp_path / "project", THREE_STAGES)

    def dvc(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "dvc", *arguments]
        return subprocess.run(command, cwd=project, check=False, capture_output=True, text=True)

    for arguments in (["repro"], ["remote", "add", "--default", "store", "s3://captioning/store"]):
        assert dvc(*arguments).returncode == 0
    s3.cut()
    away = dvc("push")
    s3.mend()
    assert away.returncode != 0
    assert "Could not connect to the endpoint URL" in away.stderr
    assert dvc("push").stdout.strip().endswith("files pushed")
    shutil.rmtree(project / ".dvc" / "cache")
    (project / "third.txt").unlink()
    assert dvc("pull").returncode == 0
    assert (project / "third.txt").read_text() == "the source"


# Prefect's server


TWO_STAGES = """
stages:
  first:
    cmd: touch begun; until [ -e go ]; do sleep 0.1; done; cp source.txt first.txt
    deps: [source.txt]
    outs: [first.txt]
  second:
    cmd: cp first.txt second.txt
    deps: [first.txt]
    outs: [second.txt]
"""


@contextmanager
def running(flow: str, folder: Path, api_url: str, **variables: str) -> "Iterator[subprocess.Popen[str]]":
    """Run a flow in a process of its own, which is marked with `folder`, and so is all that it starts."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "CAPTIONING_"))}
    environment = {**inherited, "PYTHONPATH": str(ROOT), "PREFECT_API_URL": api_url, MARK: str(folder)}
    with subprocess.Popen(
        [sys.executable, "-m", f"flows.{flow}"],
        cwd=folder,
        env=environment | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def left_over(folder: Path) -> list[str]:
    """Return the command lines of what still runs of flows that were started in `folder`."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == str(folder):
                found.append(" ".join(process.cmdline()))
    return found


@pytest.mark.soak
@pytest.mark.slow
def test_a_flow_goes_on_while_its_server_is_away_and_fails_in_words_when_it_stays_away(
    prefect: str, tmp_path: Path
) -> None:
    folder = make_project(tmp_path / "project", TWO_STAGES)
    line = Line(urlsplit(prefect).port or 0)
    api_url = f"{line.address}/api"
    with running("pipeline", folder, api_url) as flow:
        wait_until((folder / "begun").exists)
        line.cut()
        (folder / "go").touch()
        wait_until((folder / "dvc.lock").exists)  # the stage ends while nothing can be told
        line.mend()
        output, _ = flow.communicate(timeout=LIMIT_SECONDS)
    assert flow.returncode == 0, output
    assert output.endswith("ran: first, second\n")

    for name in ("begun", "go"):
        (folder / name).unlink()
    (folder / "source.txt").write_text("another source")
    with running("pipeline", folder, api_url, PREFECT_CLIENT_MAX_RETRIES="0") as flow:
        wait_until((folder / "begun").exists)
        line.cut()
        (folder / "go").touch()
        output, _ = flow.communicate(timeout=LIMIT_SECONDS)
    assert flow.returncode == 1
    assert re.search(
        r"^pipeline: Prefect's server at .* no longer answers .*: run again once it does", output, re.M
    )
    assert left_over(folder) == []
    subprocess.run([sys.executable, "-m", "dvc", "repro", "--quiet"], cwd=folder, check=True)
    assert (folder / "second.txt").read_text() == "another source"


@pytest.mark.soak
@pytest.mark.slow
def test_two_flows_started_at_once_take_turns_and_each_stage_runs_once(prefect: str, tmp_path: Path) -> None:
    stage = f"stages:\n  only:\n    cmd: echo ran >> {tmp_path}/order.log; sleep 1; cp source.txt out.txt\n"
    folder = make_repository(
        tmp_path / "project", f"{stage}    deps: [source.txt]\n    outs: [out.txt]\n", "/out.txt"
    )
    shutil.copy(ROOT / "params.yaml", folder)
    run_git(folder, "add", "params.yaml")
    run_git(folder, "commit", "--quiet", "--message", "Settings")
    with running("retrain", folder, prefect) as one, running("retrain", folder, prefect) as other:
        said = [flow.communicate(timeout=LIMIT_SECONDS)[0] for flow in (one, other)]
    assert [one.returncode, other.returncode] == [0, 0], said
    assert sorted(text.splitlines()[-1] for text in said) == ["ran: only", "unchanged: only"]
    assert (tmp_path / "order.log").read_text() == "ran\n"
    subjects = run_git(folder, "log", "--format=%s", "captioning/retrain").splitlines()
    assert len([subject for subject in subjects if subject.startswith("Retrained")]) == 1
    assert left_over(folder) == []


# a clock that was put back


def test_promotions_keep_their_order_when_the_clock_goes_back(
    home: Path, data: DataFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    class YearsAgo(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) - timedelta(days=800)

    monkeypatch.setattr(aliases, "datetime", YearsAgo)
    project = Project(home, "captioner", data)
    assert project.register(0.75).decision == "better"
    first, second = registry.history("captioner")
    assert second.at < first.at
    assert is_as_undisturbed(project)
    assert registry.rollback("captioner", by="Ada", why="") == "1"


def test_the_pages_of_a_run_are_kept_although_others_seem_to_be_newer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAPTIONING_HOME", str(tmp_path))
    report = Path("report.html")
    report.write_text("a page")
    for number in range(pages.NUM_RUNS_KEPT):
        pages.keep([report], f"run-{number}")
    for folder in (tmp_path / ".work" / "pages").iterdir():
        os.utime(folder, (4e9, 4e9))
    pages.keep([report], "now")
    kept = {folder.name for folder in (tmp_path / ".work" / "pages").iterdir()}
    assert "now" in kept
    assert len(kept) == pages.NUM_RUNS_KEPT
