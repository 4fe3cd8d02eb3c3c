"""The same things against the embedded records and against a team's servers: PostgreSQL, and S3 for artifacts."""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psycopg
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from postgresql import PostgreSQL
from registry_samples import Project, split_data, write_model
from s3 import keys, serving_s3
from scratch_project import LIMIT_SECONDS, THREE_STAGES, make_project, one_stage, wait_until

from captioning import champion, doctor, migration, registry, servability, store, tracking
from captioning.doctor import locations
from captioning.doctor.findings import OK, PROBLEM, WARNING
from captioning.registry import DataFolders
from captioning.servability import Answer
from flows import ui
from flows.servers import free_port

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Team:
    """A team's servers, and what is behind them."""

    prefect: str
    mlflow: str
    postgresql: PostgreSQL
    s3: str
    embedded: Path
    """A home whose records were migrated into MLflow's database before its server was started for the first time."""


@contextmanager
def at(home: Path, mlflow: str | None = None) -> Iterator[None]:
    """Work in a home, with its own records or with those of a server."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("CAPTIONING_HOME", str(home))
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        if mlflow:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow)
        yield


@contextmanager
def without_asking_models() -> Iterator[None]:
    """Register models without asking each in a process of its own, which takes ten seconds."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(servability, "ask_alone", lambda *_: Answer(problem="", seconds_per_caption=0.5))
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "models" / "captioner", "abc123")


@pytest.fixture(scope="module")
def data(tiny_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> DataFolders:
    folder = tmp_path_factory.mktemp("data")
    with at(folder):
        places = {"train": range(16), "val": range(16, 20), "test": range(20, 48)}
        return split_data(tiny_tables, folder / "data", places)


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    server = PostgreSQL()
    yield server
    server.remove()


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with serving_s3() as address:
        yield address


@pytest.fixture(scope="module")
def embedded(model: Path, data: DataFolders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a training, registered as two versions of `before`."""
    home = tmp_path_factory.mktemp("embedded")
    shutil.copytree(model, home / "models" / "captioner")
    with at(home), without_asking_models():
        with tracking.training_run("abc123", {}, "before") as report:
            report(1, {"val_bleu_4": 0.1}, {"7": "a red square"})
        for quality in (0.1, 0.5):
            Project(home, "before", data).register(quality)
    return home


@pytest.fixture(scope="module")
def team(
    postgresql: PostgreSQL, s3: str, embedded: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Team]:
    """Both servers as a team starts them, by one command; MLflow's after a migration."""
    databases = {name: postgresql.create(name) for name in ui.SERVERS}
    artifacts = "s3://captioning/mlflow"
    with at(embedded):
        migration.migrate(databases["mlflow"], artifacts)
    ports = {name: free_port() for name in ui.SERVERS}
    places = [
        f"--{name}-{what}={of[name]}"
        for what, of in (("port", ports), ("database", databases))
        for name in ui.SERVERS
    ]
    command = [sys.executable, "-m", "flows.ui", "--host=localhost", f"--artifacts={artifacts}", *places]
    home = tmp_path_factory.mktemp("server")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_"))}
    environment = inherited | {
        "CAPTIONING_HOME": str(home),
        "MLFLOW_WORKERS": "1",
        "CAPTIONING_GRACE_SECONDS": "1",
    }
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            if line == "Ctrl-C stops both\n":
                break
            said += line
        try:
            told = dict(re.findall(r"export (\w+)=(\S+)", said))
            assert told == {
                "PREFECT_API_URL": f"http://localhost:{ports['prefect']}/api",
                "MLFLOW_TRACKING_URI": f"http://localhost:{ports['mlflow']}",
            }, said
            yield Team(told["PREFECT_API_URL"], told["MLFLOW_TRACKING_URI"], postgresql, s3, embedded)
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=LIMIT_SECONDS)


@pytest.fixture(params=["embedded", "servers"])
def records(
    request: pytest.FixtureRequest, model: Path, data: DataFolders, tmp_path: Path
) -> Iterator[Project]:
    """A project with a training that is finished, its records embedded or on the team's server."""
    shutil.copytree(model, tmp_path / "models" / "captioner")
    project = Project(tmp_path, "captioner", data)
    if request.param == "embedded":
        with at(tmp_path), without_asking_models():
            yield project
    else:
        with at(tmp_path, request.getfixturevalue("team").mlflow), without_asking_models():
            yield project


def versions_of(model_name: str) -> list[str]:
    found = store.every(store.client().search_model_versions, f"name = '{model_name}'")
    return sorted(str(version.version) for version in found)


@pytest.mark.slow
def test_a_training_is_recorded_and_registered_and_its_champion_fetched(records: Project) -> None:
    name, receipt_path = records.model_name, records.root / "registration.json"
    with pytest.raises(champion.NoChampionError):
        champion.champion_folder(name)
    with tracking.training_run("abc123", {"train": {"seed": 0}}, name) as report:
        report(1, {"val_bleu_4": 0.1}, {"7": "a red square"})
    receipt = records.register(0.5)
    assert (receipt.version, receipt.champion, receipt.promoted) == ("1", "1", True)
    assert records.register(0.5).version == "1"
    receipt.write(receipt_path)
    assert champion.check_receipt(receipt_path) is None
    replace(receipt, version="2").write(receipt_path)
    assert "has no such version" in str(champion.check_receipt(receipt_path))
    fetched = champion.champion_folder(name)
    assert registry.folder_digest(fetched) == registry.folder_digest(records.root / "models" / "captioner")
    (run,) = store.client().search_runs([store.client().get_experiment_by_name(name).experiment_id])
    assert (run.info.status, run.data.params["train.seed"]) == ("FINISHED", "0")
    assert {(each.step, each.value) for each in history(run.info.run_id, "val_bleu_4")} >= {(1, 0.1)}
    assert [each.path for each in store.client().list_artifacts(run.info.run_id, "captions")] == [
        "captions/epoch-001.json"
    ]
    is_embedded = (records.root / "mlruns" / "mlflow.db").exists()
    assert is_embedded == (store.local_database() is not None)


def history(run_id: str, curve: str) -> list[Any]:
    return list(store.client().get_metric_history(run_id, curve))


# a migration


@pytest.mark.slow
def test_a_migration_keeps_runs_curves_versions_and_the_champion(
    team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look() -> dict[str, Any]:
        client = store.client()
        (run,) = client.search_runs([client.get_experiment_by_name("before").experiment_id])
        versions = client.search_model_versions("name = 'before'")
        aliases = client.get_registered_model("before").aliases
        return {
            "run": run.info.run_id,
            "times": (run.info.start_time, run.info.end_time, run.info.status),
            "data": run.data.to_dictionary(),
            "curve": [each.to_dictionary() for each in history(run.info.run_id, "val_bleu_4")],
            "files": sorted(each.path for each in client.list_artifacts(run.info.run_id)),
            "versions": {str(each.version): (each.run_id, each.source, each.tags) for each in versions},
            "aliases": {alias: str(version) for alias, version in aliases.items()},
            "model": registry.folder_digest(champion.champion_folder("before")),
        }

    in_s3 = keys(team.s3)
    for variable in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(variable)  # the server alone needs a key
    with at(team.embedded):
        embedded = look()
    with at(tmp_path, team.mlflow):
        assert look() == embedded
        assert champion.champion_folder("before").is_relative_to(tmp_path)
    assert embedded["aliases"] == {"champion": "2", "previous": "1"}
    assert any(re.match(r"mlflow/before/models/.*/captioner/weights\.safetensors", key) for key in in_s3)


@pytest.mark.slow
def test_a_database_in_use_is_not_migrated_into(team: Team) -> None:
    with (
        at(team.embedded),
        pytest.raises(ValueError, match=r"holds records already \(.*migrate into an empty"),
    ):
        migration.migrate(team.postgresql.address("mlflow"), "s3://captioning/mlflow")


@pytest.mark.slow
def test_a_migration_that_fails_leaves_an_empty_database_and_can_be_repeated(
    embedded: Path, postgresql: PostgreSQL, tmp_path: Path
) -> None:
    database = postgresql.create("interrupted")
    (tmp_path / "file").write_text("where a folder should be made")
    with at(embedded):
        with pytest.raises(OSError, match="file"):
            migration.migrate(database, str(tmp_path / "file" / "artifacts"))
        migrated = migration.migrate(database, str(tmp_path / "artifacts"))
    assert (migrated.num_runs, migrated.num_versions, migrated.num_left) == (1, 2, 0)
    copied = {path.name for path in (tmp_path / "artifacts" / "before").iterdir()}
    assert copied == {path.name for path in (embedded / "mlruns" / "before").iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("database", "message"),
    [
        (
            "mysql://somebody@there/mlflow",
            "migrated to PostgreSQL, got mysql://somebody@there/mlflow; expected",
        ),
        (
            "postgresql://a:secret@127.0.0.1:1/mlflow",
            r"a:\*\*\*@127.0.0.1:1/mlflow cannot be used: .*refused",
        ),
    ],
)
def test_a_migration_to_nowhere_is_refused(embedded: Path, database: str, message: str) -> None:
    with at(embedded), pytest.raises(ValueError, match=f"(?s){message}") as refusal:
        migration.migrate(database, "s3://captioning/mlflow")
    assert "secret" not in str(refusal.value)


def test_a_migration_of_nothing_is_refused(tmp_path: Path) -> None:
    with at(tmp_path), pytest.raises(ValueError, match=r"no embedded records at sqlite:///.* to be migrated"):
        migration.migrate("postgresql://captioning@there/mlflow", "s3://captioning/mlflow")
    assert not (tmp_path / "mlruns").exists()


# PostgreSQL dies


@pytest.mark.soak
@pytest.mark.slow
def test_a_registration_that_lost_its_database_leaves_the_champion_and_is_repeated(
    team: Team, data: DataFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the model whose first two versions were migrated."""
    project = Project(team.embedded, "before", data)

    def restart() -> None:
        team.postgresql.kill()
        threading.Timer(2.0, team.postgresql.start).start()

    with at(team.embedded, team.mlflow), without_asking_models():
        for call, num_calls, versions in (
            ("create_model_version", 0, ["1", "2"]),
            ("set_registered_model_alias", 1, ["1", "2", "3"]),  # `previous` is moved, `champion` is not
        ):
            with monkeypatch.context() as fault:
                fault.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
                die_then_call = before(num_calls, team.postgresql.kill, getattr(MlflowClient, call))
                fault.setattr(MlflowClient, call, die_then_call)
                with pytest.raises(MlflowException, match=r"50\d"):
                    project.register(0.9)
            team.postgresql.start()
            assert versions_of("before") == versions
            assert project.aliases()["champion"] == 2
        with monkeypatch.context() as fault:  # and away for a moment is no fault at all
            call = "set_registered_model_alias"
            fault.setattr(MlflowClient, call, before(0, restart, getattr(MlflowClient, call)))
            receipt = project.register(0.9)
        assert (receipt.version, receipt.champion, receipt.promoted) == ("3", "3", True)
        assert versions_of("before") == ["1", "2", "3"]
        assert {alias: project.aliases()[alias] for alias in ("champion", "previous")} == {
            "champion": 3,
            "previous": 2,
        }


def before(num_calls: int, act: Callable[[], None], method: Callable[..., Any]) -> Callable[..., Any]:
    """Return `method`, with `act` called once, after so many calls of it."""
    calls = 0

    def called(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        if calls == num_calls:
            act()
        calls += 1
        return method(*arguments, **keywords)

    return called


# Prefect


@pytest.mark.soak
@pytest.mark.slow
def test_a_flow_outlasts_a_database_that_dies_under_it_and_nothing_of_it_is_lost(
    team: Team, tmp_path: Path
) -> None:
    words = " ".join(f"word{number}" for number in range(5))
    wait = "touch begun; until [ -e go ]; do sleep 0.1; done"
    stage = one_stage(f"{wait}; for word in {words}; do echo $word; done; cp source.txt out.txt")
    folder = make_project(tmp_path / "project", stage)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "CAPTIONING_"))}
    environment = {**inherited, "PYTHONPATH": str(ROOT), "PREFECT_API_URL": team.prefect}
    with subprocess.Popen(
        [sys.executable, "-m", "flows.pipeline"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        wait_until((folder / "begun").exists)
        team.postgresql.kill()
        (folder / "go").touch()
        wait_until((folder / "dvc.lock").exists)  # the stage ends while nothing can be recorded
        team.postgresql.start()
        output, _ = process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode == 0, output
    with psycopg.connect(team.postgresql.address("prefect")) as connection:
        for table in ("task_run", "flow_run"):
            states = connection.execute(f"SELECT state_type::text FROM {table}").fetchall()
            assert states == [("COMPLETED",)]
        recorded = [
            message for (message,) in connection.execute("SELECT message FROM log ORDER BY timestamp")
        ]
    assert [message for message in recorded if message.startswith("word")] == words.split()


# the doctor


@pytest.mark.slow
def test_the_doctor_finds_the_servers_and_what_is_wrong_with_a_remote(
    team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_project(tmp_path / "project", THREE_STAGES)
    for name, bucket in (("store", "captioning"), ("lost", "no-such-bucket")):
        remote = f"['remote \"{name}\"']\n    url = s3://{bucket}/store\n    endpointurl = {team.s3}\n"
        with (folder / ".dvc" / "config").open("a") as file:
            file.write(remote)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PREFECT_API_URL", team.prefect)
    with at(folder, team.mlflow):
        found = {
            check: [(finding.state, finding.what) for finding in doctor.CHECKS[check]()]
            for check in ("prefect", "mlflow", "s3", "clock", "dvc remotes")
        }
    lost = found["dvc remotes"].pop()
    assert {state for own in found.values() for state, _ in own} == {OK}
    assert found["prefect"][0][1].endswith(f"answers at {team.prefect}")
    assert found["mlflow"][0][1].endswith(f"answers at {team.mlflow}")
    assert lost == (PROBLEM, "remote lost at s3://no-such-bucket/store: there is no such bucket")


@pytest.mark.slow
def test_the_doctor_names_a_moved_and_a_lost_place_of_artifacts(embedded: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    with at(moved):
        assert [finding.what for finding in locations.artifacts()] == ["no embedded records"]
    shutil.copytree(embedded / "mlruns", moved / "mlruns")
    for home, state, what in (
        (embedded, OK, "the locations in .* exist"),
        (moved, WARNING, "[46] locations in .* are of a folder this project was in before, such as file:///"),
    ):
        with at(home):
            (found,) = locations.artifacts()
        assert found.state == state
        assert re.match(what, found.what)
    shutil.rmtree(moved / "mlruns" / "before")
    with sqlite3.connect(moved / "mlruns" / "mlflow.db") as database:
        database.execute("UPDATE runs SET artifact_uri = 'file:///no/such/folder'")
    with at(moved):
        (found,) = locations.artifacts()
    assert found.state == PROBLEM and "do not exist, such as file:///no/such/folder" in found.what


# what is said and refused


@pytest.mark.slow
def test_mlflow_answers_under_its_name_and_to_its_own_pages_alone(team: Team) -> None:
    def ask(**headers: str) -> int:
        body = json.dumps({"max_results": 1}).encode()
        address = f"{team.mlflow}/api/2.0/mlflow/experiments/search"
        try:
            with urlopen(
                Request(address, body, headers | {"Content-Type": "application/json"}), timeout=30
            ) as answer:
                return int(answer.status)
        except HTTPError as refusal:
            return refusal.code

    assert ask(Origin=team.mlflow) == 200
    assert ask(Host="elsewhere.example.org") == 403
    assert ask(Origin="http://elsewhere.example.org") == 403


@pytest.mark.slow
def test_prefects_pages_ask_the_name_that_other_machines_know(team: Team) -> None:
    with urlopen(f"{team.prefect.removesuffix('/api')}/ui-settings", timeout=30) as answer:
        assert json.load(answer)["api_url"] == team.prefect


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mlfow"], "ui: no server mlfow; there are prefect and mlflow"),
        (
            ["mlflow", "--host=there"],
            "for other machines, .* add --mlflow-database postgresql://USER@HOST/DAT",
        ),
        (["mlflow", "--artifacts=s3://bucket"], "artifacts elsewhere, needs a database of its own"),
    ],
)
def test_what_cannot_be_served_is_refused(
    tmp_path: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTIONING_HOME", str(tmp_path))
    with pytest.raises(SystemExit, match=message):
        ui.main(arguments)


def test_the_records_of_another_server_are_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    with pytest.raises(
        SystemExit, match=r"records are at http://tracking:5000, so open that; `python -m flows.ui"
    ):
        ui.main(["mlflow"])


def test_a_server_that_does_not_answer_is_named_with_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    expected = r"records at http://127\.0\.0\.1:1 cannot be opened: .*see whether its server runs \(`captioning doctor`"
    with at(tmp_path, "http://127.0.0.1:1"), pytest.raises(ValueError, match=expected):
        store.client()


@pytest.mark.parametrize(
    ("address", "with_driver"),
    [
        ("postgresql://a@b/c", "postgresql+psycopg://a@b/c"),
        ("postgres://a@b/c", "postgresql+psycopg://a@b/c"),
        ("postgresql+asyncpg://a@b/c?ssl=require", "postgresql+psycopg://a@b/c?ssl=require"),
        ("sqlite:////home/mlflow.db", "sqlite:////home/mlflow.db"),
    ],
)
def test_a_database_is_addressed_with_the_driver_that_its_reader_has(address: str, with_driver: str) -> None:
    assert store.with_driver(address, "psycopg") == with_driver


def test_a_missing_driver_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"needs no_such_driver; install it with `pip install 'captioning\[post"
    ):
        store.with_driver("postgresql://a@b/c", "no_such_driver")
