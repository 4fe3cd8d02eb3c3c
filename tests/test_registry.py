"""Registration and promotion against a real MLflow on SQLite, with a real, tiny, untrained captioner."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from captioning import champion, encoders, params, registry, servable, store
from captioning.captioner import Captioner
from captioning.decoders import soft_attention
from captioning.generation import PLAIN_BEAM
from captioning.images import PixelTransform
from captioning.params import Settings
from captioning.registry import Receipt, RegisterSettings, Scored, decide
from captioning.vocabulary import Vocabulary
from stages import register as stage

ROOT = Path(__file__).parents[1]
GENERATION = PLAIN_BEAM.replaced(beam_width=2, max_words=5).model_dump()
PARAMS: dict[str, Any] = {"evaluate": {"generation": GENERATION}, "train": {"seed": 0}}


def write_model(folder: Path, fingerprint: str) -> Path:
    """Write an untrained captioner of a few words."""
    torch.manual_seed(0)
    widths = {name: 8 for name in soft_attention.Settings.model_fields if name.endswith("_width")}
    decoder = {"name": "soft_attention", "dropout": 0.0, "tied_embeddings": False, **widths}
    captioner = Captioner(
        encoder=encoders.Settings(name="resnet18", weights="none", layer="layer1", pooled=False),
        decoder=soft_attention.Settings.model_validate(decoder),
        vocabulary=Vocabulary.build(["a red square", "a blue circle"], min_word_count=1),
        transform=PixelTransform(height=32, width=32),
    )
    folder.mkdir(parents=True)
    captioner.save(folder, fingerprint=fingerprint)
    return folder


def write_reports(folder: Path, scores: dict[str, float], references: list[str], tokenizer: str) -> None:
    """Write what the stages before register leave in reports/."""
    for name in ("training", "figures", "validation", "inspection"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "training" / "history.csv").write_text("epoch,train_loss,val_bleu_4\n1,2.0,0.1\n2,1.0,0.2\n")
    (folder / "figures" / "learning_curve.png").write_bytes(b"\x89PNG")
    for name in ("evaluation.html", "data_card.md", "model_card.md", "model.json"):
        (folder / name).write_text("{}")
    for name in ("validation", "inspection"):
        (folder / name / "verdict.json").write_text('{"accepted": true}\n')
    (folder / "validation" / "profile.json").write_text(json.dumps({"num_images": 2}) + "\n")
    metrics = {"test": scores, "tokenizer": tokenizer, "num_images": 2}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    rows: list[dict[str, Any]] = [
        {"image_id": each, "hypothesis": "a", "references": references, "scores": {}} for each in ("1", "2")
    ]
    (folder / "hypotheses.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@dataclass(frozen=True)
class Project:
    """A finished pipeline run, up to the register stage."""

    root: Path
    model_name: str

    @property
    def settings(self) -> RegisterSettings:
        return RegisterSettings(model_name=self.model_name, metric="bleu_4")

    def register(
        self,
        bleu_4: float,
        *,
        references: list[str] | None = None,
        tokenizer: str = "ptb",
        metric: str = "bleu_4",
    ) -> Receipt:
        scores = {metric: bleu_4, "cider": 0.5}
        write_reports(self.root / "reports", scores, references or ["a red square"], tokenizer)
        settings = self.settings.model_copy(update={"metric": metric})
        return registry.register(self.root / "models" / "captioner", self.root / "reports", settings, PARAMS)

    def aliases(self) -> dict[str, int]:
        found = store.client().get_registered_model(self.model_name).aliases
        return {alias: int(version) for alias, version in found.items()}


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    write_model(home / "models" / "captioner", "abc123")
    return home


@pytest.fixture
def project(shared_home: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Project:
    """One database for all tests, a registered model of its own for each."""
    monkeypatch.setenv("CAPTIONING_HOME", str(shared_home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Project(shared_home, request.function.__name__)


def python(*arguments: str, home: Path, cwd: Path = ROOT) -> subprocess.Popen[str]:
    env = {**os.environ, "CAPTIONING_HOME": str(home)}
    command = [sys.executable, *arguments]
    return subprocess.Popen(
        command, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


# --- the decision


SCORED = Scored(version="1", scores={"bleu_4": 0.3}, test_set="same", tokenizer="ptb")


@pytest.mark.parametrize(
    ("value", "is_higher_better", "word"),
    [
        (0.31, True, "better"),
        (0.29, True, "not-better"),
        (0.3, True, "not-better"),
        (0.31, False, "not-better"),
        (0.29, False, "better"),
        (0.3, False, "not-better"),
    ],
)
def test_only_a_strictly_better_score_wins_in_the_metrics_own_direction(
    value: float, is_higher_better: bool, word: str
) -> None:
    challenger = replace(SCORED, version="2", scores={"bleu_4": value})
    decision, reason = decide(challenger, SCORED, "bleu_4", is_higher_better)
    assert decision == word
    assert f"bleu_4 {value:.4f} against 0.3000 of version 1 on the same test set." in reason


@pytest.mark.parametrize(
    ("champion_", "word", "reason"),
    [
        (None, "no-champion", "Version 2 is the champion: there was none."),
        (replace(SCORED, version="2"), "is-champion", "Version 2 is the champion already."),
        (replace(SCORED, test_set="other"), "different-test-set", "they were scored on different test sets."),
        (
            replace(SCORED, tokenizer="spaces"),
            "different-tokenizer",
            "with different tokenizers, ptb and spaces.",
        ),
        (replace(SCORED, scores={}), "metric-missing", "the champion has no bleu_4."),
    ],
)
def test_what_cannot_be_compared_does_not_win(champion_: Scored | None, word: str, reason: str) -> None:
    challenger = replace(SCORED, version="2", scores={"bleu_4": 0.9})
    decision, sentence = decide(challenger, champion_, "bleu_4", True)
    assert decision == word
    assert sentence.endswith(reason)


def test_a_test_set_is_its_images_and_references_in_any_order(tmp_path: Path) -> None:
    rows = [
        {"image_id": str(number), "references": [f"caption {number}"], "hypothesis": "a"}
        for number in range(3)
    ]

    def digest(rows: list[dict[str, Any]]) -> str:
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return registry.digest_of_test_set(tmp_path / "rows.jsonl")

    same = [row | {"hypothesis": "another"} for row in reversed(rows)]
    assert digest(rows) == digest(same)
    assert digest(rows) != digest(rows[:2])
    assert digest(rows) != digest([rows[0] | {"references": ["caption  0"]}, *rows[1:]])


# --- registering


def test_the_first_version_becomes_champion_with_its_lineage(project: Project) -> None:
    receipt = project.register(0.2)
    assert receipt == Receipt(
        model_name=project.model_name,
        version="1",
        fingerprint="abc123",
        metric="bleu_4",
        value=0.2,
        champion="1",
        promoted=True,
        decision="no-champion",
        reason="Version 1 is the champion: there was none.",
    )
    client = store.client()
    version = client.get_model_version(project.model_name, "1")
    tags = {key.removeprefix("captioning."): value for key, value in version.tags.items()}
    assert (tags["fingerprint"], tags["metric"], tags["value"], tags["tokenizer"]) == (
        "abc123",
        "bleu_4",
        "0.2",
        "ptb",
    )
    assert json.loads(tags["scores"]) == {"bleu_4": 0.2, "cider": 0.5}
    assert tags["model_digest"] == registry.folder_digest(project.root / "models" / "captioner")
    assert tags["test_set"] == registry.digest_of_test_set(project.root / "reports" / "hypotheses.jsonl")
    run = client.get_run(version.run_id)
    assert (run.info.status, run.data.tags["captioning.fingerprint"]) == ("FINISHED", "abc123")
    assert (run.data.metrics["test_bleu_4"], run.data.metrics["val_bleu_4"]) == (0.2, 0.2)
    assert run.data.params["evaluate.generation.beam_width"] == "2"
    logged = {
        path.path for folder in ("", "reports") for path in client.list_artifacts(version.run_id, folder)
    }
    assert logged >= {"params.yaml", "reports/metrics.json", "reports/hypotheses.jsonl", "reports/figures"}
    assert logged >= {"reports/validation", "reports/inspection", "reports/training"}
    assert logged >= {
        "reports/evaluation.html",
        "reports/data_card.md",
        "reports/model_card.md",
        "reports/model.json",
    }


def test_the_champion_is_the_best_and_the_one_before_it_previous(project: Project) -> None:
    project.register(0.2)
    better = project.register(0.3)
    assert (better.version, better.champion, better.promoted, better.decision) == ("2", "2", True, "better")
    assert project.aliases() == {"champion": 2, "previous": 1}
    worse = project.register(0.25)
    assert (worse.version, worse.champion, worse.promoted, worse.decision) == ("3", "2", False, "not-better")
    assert worse.reason == (
        "Version 3 does not win, the champion stays: "
        "bleu_4 0.2500 against 0.3000 of version 2 on the same test set."
    )
    again = project.register(0.3)
    assert (again.version, again.promoted, again.decision) == ("2", False, "is-champion")
    assert project.aliases() == {"champion": 2, "previous": 1}
    assert len(store.client().search_model_versions(f"name = '{project.model_name}'")) == 3


def test_on_another_test_set_the_champion_stays_until_a_person_promotes(project: Project) -> None:
    project.register(0.2)
    receipt = project.register(0.9, references=["a blue circle"])
    assert (receipt.version, receipt.champion, receipt.promoted) == ("2", "1", False)
    assert receipt.decision == "different-test-set"
    sentence, _, command = receipt.reason.partition(" It stays; to replace it all the same: ")
    assert sentence == (
        "Version 2 is not compared with the champion, version 1: they were scored on different test sets."
    )
    assert command == (
        f"python -c \"from captioning import registry; registry.promote('{project.model_name}', '2')\""
    )
    exec(command.removeprefix('python -c "').removesuffix('"'))
    assert project.aliases() == {"champion": 2, "previous": 1}
    with pytest.raises(ValueError, match="has no version 7; it has 1, 2"):
        registry.promote(project.model_name, "7")


@pytest.mark.slow
def test_two_registrations_at_once_leave_one_champion_the_better(project: Project, tmp_path: Path) -> None:
    project.register(0.1)
    code = (
        "import json, sys; from pathlib import Path; from captioning import registry\n"
        f"settings = registry.RegisterSettings(model_name={project.model_name!r}, metric='bleu_4')\n"
        f"registry.register(Path(sys.argv[1]), Path(sys.argv[2]), settings, {PARAMS!r})"
    )
    for name, bleu_4 in (("a", 0.4), ("b", 0.3)):
        write_reports(tmp_path / name, {"bleu_4": bleu_4}, ["a red square"], "ptb")
    model = str(project.root / "models" / "captioner")
    processes = [python("-c", code, model, str(tmp_path / name), home=project.root) for name in ("a", "b")]
    said = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert said == [("", "")] * 2
    versions = store.client().search_model_versions(f"name = '{project.model_name}'")
    values = {int(version.version): version.tags["captioning.value"] for version in versions}
    assert sorted(values.values()) == ["0.1", "0.3", "0.4"]
    aliases = project.aliases()
    assert values[aliases["champion"]] == "0.4"
    assert values[aliases["previous"]] in {"0.1", "0.3"}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("reports/metrics.json", "metrics.json does not exist; `dvc repro` makes it"),
        ("reports/training/history.csv", "history.csv does not exist; `dvc repro` makes it"),
    ],
)
def test_a_missing_input_is_named(project: Project, tmp_path: Path, path: str, message: str) -> None:
    shutil.copytree(project.root / "models", tmp_path / "models")
    write_reports(tmp_path / "reports", {"bleu_4": 0.1}, ["a"], "ptb")
    (tmp_path / path).unlink()
    with pytest.raises(ValueError, match=message):
        registry.register(tmp_path / "models" / "captioner", tmp_path / "reports", project.settings, PARAMS)


def test_a_metric_that_was_not_computed_is_refused(project: Project, tmp_path: Path) -> None:
    write_reports(tmp_path, {"cider": 1.0, "meteor": 0.3}, ["a"], "ptb")
    folder = project.root / "models" / "captioner"
    with pytest.raises(
        ValueError, match=r"metric is 'bleu_4', but .*metrics.json has cider, meteor; name one"
    ):
        registry.register(folder, tmp_path, project.settings, PARAMS)


def test_scores_of_val_alone_are_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"val": {"bleu_4": 0.3}, "tokenizer": "ptb"}')
    with pytest.raises(
        ValueError, match=r"no scores of the test split, only \['tokenizer', 'val'\]; set evaluate"
    ):
        registry.read_scored(tmp_path)


def test_a_model_without_its_trainings_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "captioner.json").write_text("{}")
    with pytest.raises(ValueError, match=r"names no training: fingerprint is None; train again"):
        registry.read_fingerprint(tmp_path)


def test_a_model_that_does_not_caption_gets_no_version(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "captioner"
    shutil.copytree(project.root / "models" / "captioner", folder)
    (folder / "weights.safetensors").write_bytes(b"torn")
    write_reports(tmp_path / "reports", {"bleu_4": 0.1}, ["a"], "ptb")
    with pytest.raises(
        ValueError, match="the logged model does not caption a sound picture, so no version was made"
    ):
        registry.register(folder, tmp_path / "reports", project.settings, PARAMS)
    assert store.client().search_model_versions(f"name = '{project.model_name}'") == []


def test_settings_refuse_a_name_that_mlflow_or_a_folder_would_not_take() -> None:
    assert isinstance(RegisterSettings(model_name="scenes-2", metric="cider"), Settings)
    with pytest.raises(ValueError, match="model_name"):
        RegisterSettings(model_name="a/b", metric="bleu_4")


# --- the champion and the receipt, read without MLflow


def test_the_champion_is_found_without_importing_mlflow(project: Project) -> None:
    project.register(0.2)
    code = (
        "import sys; from captioning.champion import champion_folder\n"
        f"print(champion_folder({project.model_name!r}), 'mlflow' in sys.modules)"
    )
    out, _ = python("-c", code, home=project.root).communicate()
    folder, _, is_imported = out.strip().rpartition(" ")
    assert is_imported == "False"
    assert Captioner.load(Path(folder)).vocabulary.words[4:] == ("a", "blue", "circle", "red", "square")


def test_the_champion_carries_the_profile_of_its_training_data(project: Project) -> None:
    assert champion.champion_profile(project.model_name) is None
    project.register(0.2)
    profile = champion.champion_profile(project.model_name)
    assert profile is not None
    assert profile.read_bytes() == (project.root / "reports" / "validation" / "profile.json").read_bytes()
    assert "num_images" in json.loads(profile.read_text())


def test_without_a_champion_the_next_step_is_said(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        ValueError, match=r"has no champion at sqlite:///.*; `dvc repro` trains and registers one"
    ):
        champion.champion_folder("nobody")
    monkeypatch.setenv("CAPTIONING_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="has no champion"):
        champion.champion_folder(project.model_name)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_database_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTIONING_HOME", str(tmp_path))
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / "mlflow.db").write_text("no database at all, but long enough to be one" * 9)
    with pytest.raises(
        ValueError, match=r"mlflow\.db cannot be read as MLflow's database: file is not a database; "
    ):
        champion.champion_folder("captioner")


def test_a_receipt_is_checked_against_the_registry(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "reports" / "registration.json"
    assert champion.check_receipt(path) == (
        f"{path} is no receipt of a registration; `dvc repro --force --single-item register` writes one"
    )
    receipt = project.register(0.2)
    receipt.write(path)
    written = path.read_bytes()
    assert champion.check_receipt(path) is None
    replace(receipt, version="9").write(path)
    assert "says that version 9 of" in str(champion.check_receipt(path))
    assert "has no such version; run `dvc repro" in str(champion.check_receipt(path))
    replace(receipt, fingerprint="def456").write(path)
    assert "with the training def456, but it is of abc123" in str(champion.check_receipt(path))
    receipt.write(path)
    assert path.read_bytes() == written


def test_a_registry_that_was_deleted_is_noticed_and_filled_again(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.register(0.2).write(tmp_path / "registration.json")
    monkeypatch.setenv("CAPTIONING_HOME", str(tmp_path / "new"))
    assert "has no such version" in str(champion.check_receipt(tmp_path / "registration.json"))


def test_a_champion_that_lost_its_files_is_noticed_and_replaced(project: Project, tmp_path: Path) -> None:
    receipt = project.register(0.2)
    receipt.write(tmp_path / "registration.json")
    shutil.rmtree(champion.champion_folder(project.model_name).parents[1])
    with pytest.raises(ValueError, match=r"version 1, has lost its files \(file:///.*`dvc repro --force"):
        champion.champion_folder(project.model_name)
    assert "is gone; delete the version in MLflow" in str(
        champion.check_receipt(tmp_path / "registration.json")
    )
    again = project.register(0.2)
    assert (again.version, again.decision) == ("2", "no-champion")
    again.write(tmp_path / "registration.json")
    assert champion.check_receipt(tmp_path / "registration.json") is None


def test_a_moved_project_keeps_its_champion_and_writes_to_its_new_place(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.register(0.2)
    moved = tmp_path / "moved"
    shutil.copytree(project.root, moved)
    monkeypatch.setenv("CAPTIONING_HOME", str(moved))
    before = sorted(path for path in project.root.rglob("*") if ".work" not in path.parts)
    assert champion.champion_folder(project.model_name).is_relative_to(moved)
    receipt = Project(moved, project.model_name).register(0.3)
    assert (receipt.version, receipt.decision) == ("2", "better")
    assert champion.champion_folder(project.model_name).is_relative_to(moved)
    with sqlite3.connect(moved / "mlruns" / "mlflow.db") as database:
        for table, column in store.ARTIFACT_LOCATIONS:
            stale = f"SELECT {column} FROM {table} WHERE {column} LIKE 'file://{project.root}/%'"
            assert database.execute(stale).fetchall() == []
    assert sorted(path for path in project.root.rglob("*") if ".work" not in path.parts) == before


# --- serving


def test_the_logged_model_captions_with_the_code_it_carries(project: Project, tmp_path: Path) -> None:
    project.register(0.2)
    folder = champion.champion_folder(project.model_name).parents[1]
    assert not list(folder.rglob("*.pkl")) and not list(folder.rglob("*.pt"))
    assert not list(folder.rglob("__pycache__"))
    shutil.copytree(folder, tmp_path / "model")
    code = (
        "import json, mlflow\n"
        "model = mlflow.pyfunc.load_model('model')\n"
        "import captioning.captioner\n"
        f"rows = model.predict([{servable.RED_SQUARE!r}, 'no picture!', 'aGVsbG8='])\n"
        "print(json.dumps([captioning.captioner.__file__] + [row.model_dump() for row in rows]))"
    )
    out, err = python("-c", code, home=tmp_path, cwd=tmp_path).communicate()
    assert err == ""
    file, *rows = json.loads(out)
    assert file == str(tmp_path / "model" / "code" / "captioning" / "captioner.py")
    assert [row["error"] for row in rows[:2]] == [
        None,
        "not base64: send the bytes of an image file, encoded in base64",
    ]
    assert rows[2]["error"].startswith("not a ")
    first, second = rows[0]["captions"]
    assert 1 >= first["probability"] >= second["probability"] > 0
    assert first["text"] != second["text"]
    assert max(len(row["text"].split()) for row in (first, second)) <= GENERATION["max_words"]
    assert rows[1]["captions"] == rows[2]["captions"] == []


def test_a_served_model_pins_what_made_it(tmp_path: Path) -> None:
    pins = dict(line.split("==") for line in servable.requirements(write_model(tmp_path / "model", "some")))
    assert pins["torch"] == torch.__version__.partition("+")[0]
    locked = (ROOT / "requirements.lock").read_text()
    assert [
        f"{name}=={version}" for name, version in pins.items() if f"{name}=={version} " not in locked
    ] == []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A tracking server of its own, with its artifacts behind it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = [
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/server.db",
        "--artifacts-destination",
        f"{tmp_path}/files",
    ]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1", *places]
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
        try:
            while True:
                assert process.poll() is None, (tmp_path / "server.log").read_text()
                with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                    break
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.slow
def test_a_server_holds_runs_versions_and_champion_as_the_local_database_does(
    server: str, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTIONING_HOME", str(tmp_path / "laptop"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    with pytest.raises(ValueError, match=f"has no champion at {server}"):
        champion.champion_folder(project.model_name)
    project.register(0.2)
    receipt = project.register(0.3)
    assert (receipt.version, receipt.decision) == ("2", "better")
    receipt.write(tmp_path / "registration.json")
    assert champion.check_receipt(tmp_path / "registration.json") is None
    replace(receipt, version="3").write(tmp_path / "registration.json")
    assert "has no such version" in str(champion.check_receipt(tmp_path / "registration.json"))
    folder = champion.champion_folder(project.model_name)
    assert registry.folder_digest(folder) == registry.folder_digest(project.root / "models" / "captioner")
    assert champion.champion_folder(project.model_name) == folder
    profile = champion.champion_profile(project.model_name)
    assert profile is not None and json.loads(profile.read_text()) == {"num_images": 2}
    assert not (tmp_path / "laptop" / "mlruns").exists()


# --- the stage


def test_the_stage_writes_its_receipt_and_says_why(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    model, reports, receipt = (
        project.root / "models" / "captioner",
        tmp_path / "reports",
        tmp_path / "receipt.json",
    )
    write_reports(reports, {"bleu_4": 0.25}, ["a red square"], "ptb")
    stage.main(model, reports, receipt)
    said = capfd.readouterr()
    name = params.load("register").model_name
    assert said.out == ""
    assert said.err.splitlines() == [
        f"register: version 1 of {name}, bleu_4 0.2500",
        "register: Version 1 is the champion: there was none.",
    ]
    assert json.loads(receipt.read_text())["champion"] == "1"
    assert champion.check_receipt(receipt) is None
    (reports / "metrics.json").unlink()
    with pytest.raises(ValueError, match=r"metrics\.json does not exist"):
        stage.main(model, reports, tmp_path / "another.json")
    assert not (tmp_path / "another.json").exists()
