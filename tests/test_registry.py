"""Registration and promotion against a real MLflow on SQLite, with a real, tiny, untrained captioner."""

import base64
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
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from registry_samples import (
    GENERATION,
    METRIC,
    PARAMS,
    ROOT,
    Project,
    python,
    split_data,
    write_model,
    write_reports,
)
from scratch_project import is_gone

from captioning import aliases, champion, lineage, params, registry, seen_images, servability, servable, store
from captioning.captioner import Captioner
from captioning.cli import main
from captioning.comparison import Captioned
from captioning.registry import DataFolders
from captioning.seen_images import CleanImage
from captioning.servability import Answer
from stages import register as stage

USUAL = {"train": range(16), "val": range(16, 20), "test": range(20, 48)}
MOVED = {"test": range(10, 42), "train": range(42, 48), "val": range(10)}
"""Of the images that are now in test, a version of USUAL has seen ten: 10 to 19."""


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    write_model(home / "models" / "captioner", "abc123")
    return home


@pytest.fixture(scope="module")
def usual_data(shared_home: Path, tiny_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> DataFolders:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPTIONING_HOME", str(shared_home))
        return split_data(tiny_tables, tmp_path_factory.mktemp("usual") / "data", USUAL)


@pytest.fixture(scope="module")
def moved_data(shared_home: Path, tiny_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> DataFolders:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPTIONING_HOME", str(shared_home))
        return split_data(tiny_tables, tmp_path_factory.mktemp("moved") / "data", MOVED)


@pytest.fixture
def serving_project(
    shared_home: Path,
    usual_data: DataFolders,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Project:
    """One database for all tests, a registered model of its own for each."""
    monkeypatch.setenv("CAPTIONING_HOME", str(shared_home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Project(shared_home, request.function.__name__, usual_data)


@pytest.fixture
def project(serving_project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose models are not asked in a process of their own, which takes ten seconds each."""
    answer = Answer(problem="", seconds_per_caption=0.5)
    monkeypatch.setattr(servability, "ask_alone", lambda *_: answer)
    return serving_project


# --- registering


def test_the_first_version_becomes_champion_with_its_lineage(project: Project) -> None:
    receipt = project.register(0.25)
    assert asdict(receipt) == {
        "model_name": project.model_name,
        "version": "1",
        "fingerprint": "abc123",
        "metric": METRIC,
        "value": 0.25,
        "champion": "1",
        "champion_before": None,
        "promoted": True,
        "decision": "no-champion",
        "reason": "Version 1 is the champion: there was none.",
        "reasons": [],
        "scores": {METRIC: 0.25, "cider": 0.5},
        "champion_scores": None,
        "num_images": 28,
        "gain": None,
        "gain_interval": None,
        "seconds_per_caption": 0.5,
    }
    client = store.client()
    version = client.get_model_version(project.model_name, "1")
    tags = {key.removeprefix("captioning."): value for key, value in version.tags.items()}
    assert (tags["fingerprint"], tags["metric"], tags["value"], tags["tokenizer"]) == (
        "abc123",
        METRIC,
        "0.25",
        "none",
    )
    assert json.loads(tags["scores"]) == {METRIC: 0.25, "cider": 0.5}
    assert tags["model_digest"] == registry.folder_digest(project.model)
    hypotheses = project.root / "reports" / "hypotheses.jsonl"
    assert tags["test_set"] == registry.read_test_set(hypotheses, project.data).digest
    made_by, _ = lineage.read(project.model_name, "1")
    assert (made_by.params, made_by.trained_on) == (PARAMS, [])
    assert made_by.metrics == json.loads((project.root / "reports" / "metrics.json").read_text())
    run = client.get_run(version.run_id)
    assert (run.info.status, run.data.tags["captioning.fingerprint"]) == ("FINISHED", "abc123")
    assert (run.data.metrics["test_cider"], run.data.metrics["val_bleu_4"]) == (0.5, 0.2)
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
    folder = champion.version_folder(project.model_name, "1")
    assert (folder / "hypotheses.jsonl").read_bytes() == hypotheses.read_bytes()
    assert len(seen_images.read_seen(folder / "seen_images.npy")) == 20


def test_the_champion_is_the_best_and_the_one_before_it_previous(project: Project) -> None:
    project.register(0.25)
    better = project.register(0.75)
    assert (better.version, better.champion, better.promoted, better.decision) == ("2", "2", True, "better")
    assert (better.champion_before, better.gain, better.num_images) == ("1", 0.5, 28)
    assert better.gain_interval and 0.2 < better.gain_interval[0] < 0.5 < better.gain_interval[1]
    assert better.reason == (
        f"Version 2 is the new champion: exact_match 0.7500 against 0.2500 of version 1 on 28 images (gain +0.5000, "
        f"95 % interval {better.gain_interval[0]:+.4f} to {better.gain_interval[1]:+.4f}). The test set is the same."
    )
    assert better.champion_scores == {METRIC: 0.25, "cider": 0.5}
    assert project.aliases() == {"champion": 2, "previous": 1}
    worse = project.register(0.5)
    assert (worse.version, worse.champion, worse.promoted, worse.decision) == ("3", "2", False, "not-better")
    assert worse.reason == (
        "Version 3 is not promoted, version 2 stays: It is not better: exact_match 0.5000 against 0.7500 of "
        f"version 2 on 28 images (gain -0.2500, 95 % interval {worse.gain_interval[0]:+.4f} to "  # type: ignore[index]
        f"{worse.gain_interval[1]:+.4f}). The test set is the same. "  # type: ignore[index]
        "`captioning promote 3` promotes it all the same."
    )
    assert project.aliases() == {"champion": 2, "previous": 1, "challenger": 3}
    tags = store.client().get_model_version(project.model_name, "3").tags
    assert tags["captioning.decision"] == f"not-better: {worse.reason}"
    again = project.register(0.75)
    assert (again.version, again.promoted, again.decision) == ("2", False, "is-champion")
    assert project.aliases() == {"champion": 2, "previous": 1, "challenger": 3}
    assert len(store.client().search_model_versions(f"name = '{project.model_name}'")) == 3


def test_a_gain_that_may_be_chance_does_not_win(project: Project) -> None:
    project.register(0.5)
    slight = project.register(15 / 28)
    assert (slight.decision, slight.gain) == ("not-better", pytest.approx(1 / 28))
    assert slight.reasons[0].startswith("That it is better may be chance: exact_match 0.5357 against 0.5000")
    assert project.register(15 / 28, must_be_sure=False).decision == "better"


def test_every_condition_that_does_not_hold_is_said(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.register(0.5)
    answer = Answer(problem="The model does not caption: no memory.", seconds_per_caption=None)
    monkeypatch.setattr(servability, "ask_alone", lambda *_: answer)
    receipt = project.register(0.25, floors={"cider": 0.7})
    assert [reason.split(":")[0] for reason in receipt.reasons] == [
        "It is not better",
        "cider is 0.5000, below the 0.7 of register.floors.",
        "The model does not caption",
    ]
    assert (receipt.decision, receipt.champion) == ("not-better", "1")


def test_an_unfit_version_is_no_champion_even_where_there_is_none(project: Project) -> None:
    receipt = project.register(0.5, max_seconds_per_caption=0.4)
    assert (receipt.champion, receipt.champion_before, receipt.decision) == (None, None, "unfit")
    assert receipt.reason == (
        "Version 1 is not promoted, there is no champion: A caption takes 0.500 s, more than "
        "register.max_seconds_per_caption, 0.4. `captioning promote 1` promotes it all the same."
    )
    assert project.aliases() == {"challenger": 1}


def test_what_would_win_waits_where_a_person_is_to_approve(project: Project) -> None:
    first = project.register(0.25, approval=True)
    assert (first.decision, first.champion, first.promoted) == ("awaiting-approval", None, False)
    assert first.reason == (
        "Version 1 would be the champion: there was none. It waits for a person's approval. "
        "`captioning promote 1` approves."
    )
    registry.promote(project.model_name, "1", by="Ada", why="looked at it")
    second = project.register(0.75, approval=True)
    assert (second.decision, second.champion) == ("awaiting-approval", "1")
    assert project.aliases() == {"champion": 1, "challenger": 2}
    assert second.gain == 0.5


def test_a_version_that_a_person_took_back_is_not_promoted_again_by_itself(project: Project) -> None:
    project.register(0.25)
    project.register(0.75)
    registry.rollback(project.model_name, by="Ada", why="says nothing of dogs")
    again = project.register(0.75)
    assert (again.version, again.decision, again.champion) == ("2", "rolled-back", "1")
    assert "It was the champion before, and was taken back: by Ada at 2" in again.reasons[0]
    assert again.reasons[0].endswith(", 'says nothing of dogs'.")
    registry.promote(project.model_name, "2", by="Bob", why="dogs do not matter")
    assert project.register(0.75).decision == "is-champion"


def test_a_champion_that_came_meanwhile_is_the_one_to_beat(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.register(0.25)
    project.register(0.75, approval=True)
    asked: list[str] = []

    def promote_the_other(model_uri: str, _: object) -> Answer:
        asked.append(model_uri)
        registry.promote(project.model_name, "2", by="Ada", why="while version 3 was looked at")
        return Answer(problem="", seconds_per_caption=0.5)

    monkeypatch.setattr(servability, "ask_alone", promote_the_other)
    receipt = project.register(0.5)
    assert (receipt.decision, receipt.champion_before, receipt.champion) == ("not-better", "2", "2")
    assert (receipt.gain, len(asked)) == (-0.25, 1)
    assert project.aliases() == {"champion": 2, "previous": 1, "challenger": 3}


# --- another test set


def test_on_another_test_set_the_champion_is_decoded_again_without_what_either_has_seen(
    project: Project, moved_data: DataFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.register(0.25)
    receipt = project.register(1.0, moved_data)
    assert (receipt.version, receipt.decision, receipt.num_images) == ("2", "better", 22)
    assert receipt.reason.endswith(
        "The test set is another one, on which version 1 was decoded again; 10 images that one of them was trained "
        "on are left out."
    )
    assert receipt.champion_scores is not None
    assert (receipt.champion_scores[METRIC], receipt.scores[METRIC], receipt.value) == (0.0, 1.0, 1.0)
    assert receipt.scores.keys() == receipt.champion_scores.keys() == {METRIC, "cider"}
    # A version of other captions is compared with the first one's captions, which were kept.
    registry.rollback(project.model_name, by="Ada", why="to compare once more")
    monkeypatch.setattr(Captioner, "load", None)
    assert project.register(0.9, moved_data).decision == "better"


def test_too_few_images_that_neither_has_seen_compare_nothing(
    project: Project, moved_data: DataFolders
) -> None:
    project.register(0.25)
    receipt = project.register(1.0, moved_data, min_images=30)
    assert (receipt.decision, receipt.champion, receipt.gain) == ("not-comparable", "1", None)
    assert receipt.reasons == [
        "It cannot be compared with the champion, version 1: 22 images of the test set are seen by neither, fewer "
        "than register.min_images, 30."
    ]


def test_a_champion_that_does_not_say_what_it_has_seen_is_not_compared_on_another_test_set(
    project: Project, moved_data: DataFolders
) -> None:
    project.register(0.25)
    (champion.version_folder(project.model_name, "1") / "seen_images.npy").unlink()
    receipt = project.register(1.0, moved_data)
    assert receipt.decision == "not-comparable"
    assert "version 1, of an older program, does not say which images it was trained on" in receipt.reason
    assert receipt.reason.endswith("`captioning promote 2` promotes it all the same.")
    assert project.aliases() == {"champion": 1, "challenger": 2}


def test_a_test_set_is_its_pictures_and_references_in_any_order() -> None:
    images = {str(number): CleanImage(archive="", member="", sha256="ab", group="") for number in range(3)}
    references = {image_id: [f"caption {image_id}"] for image_id in images}

    def digest(references: dict[str, list[str]], images: dict[str, CleanImage] = images) -> str:
        captioned = Captioned(hypotheses=dict.fromkeys(references, "a"), references=references)
        return registry.digest_of_test_set(captioned, images)

    assert digest(references) == digest(dict(reversed(references.items())))
    assert digest(references) != digest({"0": ["caption 0"], "1": ["caption 1"]})
    assert digest(references) != digest(references | {"0": ["caption  0"]})
    assert digest(references) != digest(references, images | {"0": replace(images["0"], sha256="cd")})


# --- by hand


def test_promotions_by_hand_are_in_the_history_with_who_and_why(project: Project) -> None:
    first, second = project.register(0.5), project.register(0.25)
    registry.promote(project.model_name, "2", by="Ada", why="reads better")
    registry.promote(project.model_name, "2", by="Bob", why="again")
    assert project.aliases() == {"champion": 2, "previous": 1}
    assert registry.rollback(project.model_name, by="Bob", why="it does not") == "1"
    assert project.aliases() == {"champion": 1, "previous": 2}
    rows = registry.history(project.model_name)
    assert [(row.version, row.from_version, row.by, row.why, row.is_rollback) for row in rows] == [
        ("1", None, "register", first.reason, False),
        ("2", "1", "Ada", "reads better", False),
        ("1", "2", "Bob", "it does not", True),
    ]
    runs = [store.client().get_model_version(project.model_name, row.version).run_id for row in rows]
    assert [row.run_id for row in rows] == runs
    assert all(row.at.endswith("+00:00") for row in rows)
    assert second.champion == "1"


def test_what_cannot_be_promoted_is_refused(project: Project) -> None:
    with pytest.raises(ValueError, match="nobody has no version 1; it has none"):
        registry.promote("nobody", "1", by="Ada", why="")
    project.register(0.5)
    with pytest.raises(
        ValueError, match="has no previous champion to go back to; `captioning promote VERSION`"
    ):
        registry.rollback(project.model_name, by="Ada", why="")
    project.register(0.25)
    with pytest.raises(ValueError, match="has no version 7; it has 1, 2"):
        registry.promote(project.model_name, "7", by="Ada", why="")
    shutil.rmtree(champion.version_folder(project.model_name, "2"))
    with pytest.raises(
        ValueError, match=r"version 2 of .* has lost its files, and no champion can do without"
    ):
        registry.promote(project.model_name, "2", by="Ada", why="")
    assert len(registry.history(project.model_name)) == 1


def test_the_commands_promote_roll_back_and_tell(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    def say(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main([*words, "--model", project.model_name])
        assert ended.value.code == 0
        return capsys.readouterr().out

    project.register(0.5)
    project.register(0.25)
    capsys.readouterr()
    promoted = say("promote", "2", "--by", "Ada", "--why", "reads better")
    assert promoted == (
        f"version 2 is the champion of {project.model_name}; `captioning rollback` takes it back\n"
    )
    assert say("rollback", "--by", "Bob") == f"version 1 is the champion of {project.model_name} again\n"
    lines = say("history").splitlines()
    assert "champion 2 after 1, by Ada, run " in lines[2] and lines[3] == "  reads better"
    assert "back to 1 after 2, by Bob, run " in lines[4]
    assert lines[-1] == f"{project.model_name}: champion is version 1, previous is version 2"
    rows = [json.loads(line) for line in say("history", "--json").splitlines()]
    assert [row["version"] for row in rows] == ["1", "2", "1"]
    store.client().set_registered_model_alias(project.model_name, "champion", "2")
    assert "The champion was named by other means than `captioning` since" in say("history")


class Killed(BaseException):
    """Stands for SIGKILL in the middle of a promotion."""


WRITES = (
    "set_registered_model_tag",
    "delete_registered_model_tag",
    "set_registered_model_alias",
    "delete_registered_model_alias",
)


def kill_after(num_writes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the registry be written so many times, and then no more."""
    client, left = store.client(), [num_writes]

    def limited(write: Callable[..., None]) -> Callable[..., None]:
        def attempt(*arguments: Any) -> None:
            if not left[0]:
                raise Killed
            left[0] -= 1
            write(*arguments)

        return attempt

    for name in WRITES:
        monkeypatch.setattr(client, name, limited(getattr(client, name)))


def test_a_kill_at_any_moment_leaves_one_whole_champion_and_a_true_history(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = project.model_name
    for quality in (0.25, 0.5, 0.75):
        project.register(quality, must_be_sure=False)
    ended = []
    for num_writes in range(6):
        registry.promote(name, "2", by="Ada", why="as it was")
        registry.promote(name, "1", by="Ada", why="as it was")
        store.client().set_registered_model_alias(name, "challenger", "3")
        before = [row.version for row in registry.history(name)]
        with monkeypatch.context() as patch:
            kill_after(num_writes, patch)
            with suppress(Killed):
                registry.promote(name, "3", by="Ada", why="better")
                ended.append(num_writes)
        now, told = project.aliases()["champion"], registry.history(name)
        assert [row.version for row in told] == before + ["3"] * (now == 3)
        assert told[-1].version == str(now)
        with store.locked(aliases.LOCK):
            aliases.mend(name)
        whole = {1: {"champion": 1, "previous": 2, "challenger": 3}, 3: {"champion": 3, "previous": 1}}
        assert project.aliases() == whole[now]
        assert registry.history(name) == told
    assert ended == [5]  # a record, two aliases, one alias less, and the record is done


@pytest.mark.slow
def test_a_promotion_killed_with_its_process_is_undone_by_the_next_command(project: Project) -> None:
    project.register(0.25)
    project.register(0.0)
    code = (
        "import os, signal; from captioning import aliases, registry, store\n"
        "client = store.client(); real = client.set_registered_model_alias\n"
        "def set_alias(*arguments):\n"
        "    real(*arguments); os.kill(os.getpid(), signal.SIGKILL)\n"
        "client.set_registered_model_alias = set_alias\n"
        f"registry.promote({project.model_name!r}, '2', by='Ada', why='')"
    )
    process = python("-c", code, home=project.root)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert project.aliases() == {"champion": 1, "previous": 1, "challenger": 2}
    assert [row.version for row in registry.history(project.model_name)] == ["1"]
    with pytest.raises(ValueError, match="has no previous champion"):
        registry.rollback(project.model_name, by="Ada", why="")
    assert project.aliases() == {"champion": 1, "challenger": 2}


@pytest.mark.slow
def test_two_registrations_at_once_leave_one_champion_the_better_and_two_true_receipts(
    project: Project, tmp_path: Path
) -> None:
    project.register(0.0)
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from pathlib import Path; from captioning import registry, servability\n"
        "answer = servability.Answer(problem='', seconds_per_caption=0.5)\n"
        "servability.ask_alone = lambda *_: answer\n"
        "from registry_samples import PARAMS; from captioning.registry import DataFolders, RegisterSettings\n"
        "raw, clean, splits, examples, model, reports, receipt = map(Path, sys.argv[1:8])\n"
        "data = DataFolders(raw=raw, clean=clean, splits=splits, examples=examples)\n"
        "settings = RegisterSettings.model_validate_json(sys.argv[8])\n"
        "registry.register(model, reports, data, settings, PARAMS).write(receipt)"
    )
    data = project.data
    folders = [data.raw, data.clean, data.splits, data.examples, project.model]
    processes = []
    for quality in (0.9, 0.5):
        reports, receipt = tmp_path / str(quality), tmp_path / f"{quality}.json"
        write_reports(reports, data, quality)
        arguments = [*map(str, [*folders, reports, receipt]), project.settings.model_dump_json()]
        processes.append(
            python("-c", f"import sys; sys.path.insert(0, 'tests')\n{code}", *arguments, home=project.root)
        )
    said = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert said == [("", "")] * 2
    better, other = (json.loads((tmp_path / f"{quality}.json").read_text()) for quality in (0.9, 0.5))
    assert {better["version"], other["version"]} == {"2", "3"}
    told = [(row.version, row.from_version) for row in registry.history(project.model_name)]
    assert project.aliases()["champion"] == int(better["version"])
    assert (better["decision"], better["promoted"], better["champion"]) == ("better", True, better["version"])
    if other["promoted"]:  # it was first
        assert (other["champion_before"], better["champion_before"]) == ("1", other["version"])
        assert told == [("1", None), (other["version"], "1"), (better["version"], other["version"])]
    else:
        assert (other["decision"], other["champion"], other["champion_before"]) == (
            "not-better",
            *[better["version"]] * 2,
        )
        assert told == [("1", None), (better["version"], "1")]
        assert project.aliases()["challenger"] == int(other["version"])


# --- what is refused


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("reports/metrics.json", "metrics.json does not exist; `dvc repro` makes it"),
        ("reports/training/history.csv", "history.csv does not exist; `dvc repro` makes it"),
    ],
)
def test_a_missing_input_is_named(project: Project, path: str, message: str) -> None:
    write_reports(project.root / "reports", project.data, 0.5)
    (project.root / path).unlink()
    with pytest.raises(ValueError, match=message):
        project.register_reports()


def test_scores_that_were_not_computed_are_refused(project: Project) -> None:
    write_reports(project.root / "reports", project.data, 0.5)
    with pytest.raises(
        ValueError, match=r"names the score 'bleu_4', but .*metrics.json has cider, exact_match; name one"
    ):
        project.register_reports(metric="bleu_4")
    with pytest.raises(ValueError, match="names the score 'meteor'"):
        project.register_reports(floors={"meteor": 0.2})


def test_captions_of_other_images_than_the_test_split_are_refused(
    project: Project, moved_data: DataFolders
) -> None:
    write_reports(project.root / "reports", moved_data, 0.5)
    with pytest.raises(ValueError, match=r"hypotheses\.jsonl has images that are not in the test split of"):
        project.register_reports()


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


# --- the champion and the receipt, read without MLflow


def test_the_champion_is_found_without_importing_mlflow(project: Project) -> None:
    project.register(0.25)
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
    project.register(0.25)
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
    receipt = project.register(0.25)
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
    project.register(0.25).write(tmp_path / "registration.json")
    monkeypatch.setenv("CAPTIONING_HOME", str(tmp_path / "new"))
    assert "has no such version" in str(champion.check_receipt(tmp_path / "registration.json"))


def test_a_champion_that_lost_its_files_is_noticed_and_replaced(project: Project, tmp_path: Path) -> None:
    receipt = project.register(0.25)
    receipt.write(tmp_path / "registration.json")
    shutil.rmtree(champion.champion_folder(project.model_name).parents[1])
    with pytest.raises(
        ValueError, match=r"version 1 of .* has lost its files \(file:///.*`dvc repro --force"
    ):
        champion.champion_folder(project.model_name)
    assert "is gone; delete the version in MLflow" in str(
        champion.check_receipt(tmp_path / "registration.json")
    )
    again = project.register(0.25)
    assert (again.version, again.decision) == ("2", "no-champion")
    again.write(tmp_path / "registration.json")
    assert champion.check_receipt(tmp_path / "registration.json") is None


def test_a_moved_project_keeps_its_champion_and_writes_to_its_new_place(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.register(0.25)
    moved = tmp_path / "moved"
    shutil.copytree(project.root, moved)
    monkeypatch.setenv("CAPTIONING_HOME", str(moved))
    before = sorted(path for path in project.root.rglob("*") if ".work" not in path.parts)
    assert champion.champion_folder(project.model_name).is_relative_to(moved)
    receipt = Project(moved, project.model_name, project.data).register(0.75)
    assert (receipt.version, receipt.decision) == ("2", "better")
    assert champion.champion_folder(project.model_name).is_relative_to(moved)
    with sqlite3.connect(moved / "mlruns" / "mlflow.db") as database:
        for table, column in store.ARTIFACT_LOCATIONS:
            stale = f"SELECT {column} FROM {table} WHERE {column} LIKE 'file://{project.root}/%'"
            assert database.execute(stale).fetchall() == []
    assert sorted(path for path in project.root.rglob("*") if ".work" not in path.parts) == before


# --- serving


def test_the_logged_model_captions_with_the_code_it_carries(project: Project, tmp_path: Path) -> None:
    project.register(0.25)
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
        "not base64: send the bytes of an image file, encoded in base64, or an http or https address",
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


@pytest.mark.soak
@pytest.mark.slow
def test_a_server_holds_runs_versions_and_champion_as_the_local_database_does(
    server: str, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTIONING_HOME", str(tmp_path / "laptop"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    with pytest.raises(ValueError, match=f"has no champion at {server}"):
        champion.champion_folder(project.model_name)
    project.register(0.25)
    receipt = project.register(0.75)
    assert (receipt.version, receipt.decision) == ("2", "better")
    receipt.write(tmp_path / "registration.json")
    assert champion.check_receipt(tmp_path / "registration.json") is None
    replace(receipt, version="3").write(tmp_path / "registration.json")
    assert "has no such version" in str(champion.check_receipt(tmp_path / "registration.json"))
    folder = champion.champion_folder(project.model_name)
    assert registry.folder_digest(folder) == registry.folder_digest(project.model)
    assert champion.champion_folder(project.model_name) == folder
    profile = champion.champion_profile(project.model_name)
    assert profile is not None and json.loads(profile.read_text()) == {"num_images": 2}
    assert not (tmp_path / "laptop" / "mlruns").exists()


# --- alone


@pytest.mark.slow
def test_a_model_is_asked_alone_with_the_code_it_carries_before_it_is_promoted(
    serving_project: Project, tmp_path: Path
) -> None:
    first = serving_project.register(0.25)
    assert first.seconds_per_caption and 0 < first.seconds_per_caption < 60
    assert first.decision == "no-champion"
    model_uri, pictures = f"models:/{serving_project.model_name}/1", [base64.b64decode(servable.RED_SQUARE)]
    folder = champion.version_folder(serving_project.model_name, "1")
    package = folder / "code" / "captioning"
    package.rename(tmp_path / "captioning")
    borrowed = servability.ask_alone(model_uri, pictures)
    assert borrowed.problem.startswith(
        "Loaded from the registry in a process of its own, the model does not caption: it captions with code that it "
        "does not carry: "
    )
    (tmp_path / "captioning").rename(package)
    (champion.captioner_folder(folder) / "weights.safetensors").write_bytes(b"torn")
    torn = servability.ask_alone(model_uri, pictures)
    assert "the process ended with code 1: " in torn.problem
    assert "is not a captioner's folder" in torn.problem


def test_a_process_that_does_not_answer_in_time_is_ended_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    monkeypatch.setattr(servability, "PROGRAM", program)
    answer = servability.ask_alone("models:/captioner/1", [b""], timeout_seconds=5.0)
    assert answer.problem.endswith("the model does not caption: it had not answered after 5 s.")
    child = int((tmp_path / "child").read_text())
    assert is_gone(child)


def test_a_model_that_finds_no_words_does_not_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import json; json.dump({'seconds': [1], 'problem': 'no caption', 'files': []}, open('answer.json', 'w'))"
    monkeypatch.setattr(servability, "PROGRAM", program)
    assert servability.ask_alone("models:/captioner/1", [b""]).problem.endswith(": it answered 'no caption'.")


# --- the stage


def test_the_stage_writes_its_receipt_and_says_why(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    reports, receipt, data = tmp_path / "reports", tmp_path / "receipt.json", project.data
    write_reports(reports, data, 0.5, bleu_4=0.25)
    folders = (data.raw, data.clean, data.splits, data.examples, project.model, reports)
    stage.main(*folders, receipt)
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
        stage.main(*folders, tmp_path / "another.json")
    assert not (tmp_path / "another.json").exists()
