"""Cleaning, on real versions, runs and caches: what nothing holds goes, all else stays, and a kill breaks nothing."""

import fcntl
import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from lineage_samples import MODEL, commit, find_run, git, make_project, register, run
from mlflow.entities import ViewType

from captioning import lineage, retention, store
from captioning.cli import main
from captioning.retention import leftovers, records
from captioning.retention.removals import DAY

pytestmark = pytest.mark.slow
VERSIONS = ("1", "2", "3", "4")
UNNAMED = "3"
"""1 has the tag that keeps it, 2 is the champion, 4 is the last."""


@pytest.fixture(scope="module")
def four_versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with four versions, each of data of its own."""
    folder = make_project(tmp_path_factory.mktemp("cleaned") / "project")
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        for version in VERSIONS:
            run(folder, number=int(version))
            register(folder, fingerprint=f"f{version}", **({records.KEEP: "true"} if version == "1" else {}))
        store.client().set_registered_model_alias(MODEL, "champion", "2")
    return folder


@pytest.fixture
def project(four_versions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it for each test."""
    folder = tmp_path / "project"
    shutil.copytree(four_versions, folder, symlinks=True)
    enter(folder, monkeypatch)
    return folder


def enter(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.chdir(folder)
    patch.setenv("CAPTIONING_HOME", str(folder))
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)


def clean(**options: Any) -> retention.Plan:
    return retention.clean([MODEL], **({"keep_last": 1, "days": 30.0} | options))


def versions() -> set[str]:
    return {str(own.version) for own in store.client().search_model_versions(f"name = '{MODEL}'")}


def trainings() -> set[str]:
    """Return the fingerprints of all runs, deleted ones too."""
    experiment = store.client().get_experiment_by_name(MODEL)
    found = store.client().search_runs([experiment.experiment_id], "", ViewType.ALL)
    return {own.data.tags["captioning.fingerprint"] for own in found}


def files(folder: Path) -> dict[str, int]:
    """Return the size of each file, but those that are written whenever MLflow or DVC is used."""
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and not {"mlflow.db", "locks", "tmp", ".git"} & set(path.parts)
    }


def objects_of(version: str) -> set[str]:
    return set(lineage.outs(lineage.read(MODEL, version)[0].dvc_lock).values())


def cached(project: Path) -> set[str]:
    with Repo(str(project)) as repo:
        return set(repo.cache.local.all())


def age(path: Path, days: float) -> Path:
    """Make a file or folder, if need be, that was last changed some days ago."""
    if not path.exists():
        file = (
            path
            if path.suffix in {".npy", ".partial", ".txt"} and "champions" not in path.parts
            else path / "file"
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"some state")
    for own in (*path.rglob("*"), path):
        os.utime(own, (time.time() - days * DAY,) * 2)
    return path


def test_nothing_is_removed_until_one_says_so(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    age(project / ".work" / "train" / "f3", days=2)
    before = files(project), versions(), trainings()
    with pytest.raises(SystemExit) as ended:
        main(["clean", "--model", MODEL, "--keep-last", "1"])
    assert ended.value.code == 0
    assert (files(project), versions(), trainings()) == before
    *_, version, cache, state, total = said = capsys.readouterr().out.splitlines()
    assert said[:3] == [
        "stays: tiny/4: of the last 1",
        "stays: tiny/2: champion",
        "stays: tiny/1: captioning.keep",
    ]
    assert version.startswith(
        "tiny/3, with its model and its run  0.0 MB  neither an alias, nor one of the last"
    )
    assert cache.split("  ")[0].endswith(" objects of DVC's cache")
    assert state.startswith(".work/train/f3") and state.endswith("  its training ended well")
    assert total.startswith("would be removed: ") and total.endswith("; `captioning clean --yes` removes it")


def test_what_no_alias_last_version_or_tag_holds_goes_and_all_else_stays_usable(project: Path) -> None:
    objects = {version: objects_of(version) for version in VERSIONS}
    gone = objects[UNNAMED] - set().union(*(objects[version] for version in VERSIONS if version != UNNAMED))
    assert gone
    clean()
    assert versions() == set(VERSIONS) - {UNNAMED}
    assert trainings() == {"f1", "f2", "f4"}
    assert store.client().get_registered_model(MODEL).aliases == {"champion": 2}
    for version in versions():
        assert lineage.read(MODEL, version)[0].params["train"]["number"] == int(version)
        assert objects[version] <= cached(project)
    assert not gone & cached(project)
    experiment = project / "mlruns" / MODEL
    assert len(list((experiment / "models").iterdir())) == 3
    assert len([path for path in experiment.iterdir() if path.name != "models"]) == 3
    assert (retention.plan([MODEL], keep_last=1, days=30).removals) == []


def test_a_version_that_was_named_meanwhile_stays(project: Path) -> None:
    planned = retention.plan([MODEL], keep_last=1, days=30)
    store.client().set_registered_model_alias(MODEL, "challenger", UNNAMED)
    planned.removals[0].remove()
    assert versions() == set(VERSIONS)
    assert lineage.read(MODEL, UNNAMED)[0].seed == 0


def test_the_run_of_a_training_at_work_stays_when_its_version_goes(project: Path) -> None:
    client, run_id = store.client(), find_run_id("f3")
    client.update_run(run_id, status="RUNNING")
    clean()
    assert versions() == set(VERSIONS) - {UNNAMED}
    assert client.get_run(run_id).info.lifecycle_stage == "active"
    assert clean().removals == []


@pytest.mark.parametrize("step", ["_remove_model", "_erase", "_remove_run", "_forget"])
def test_a_kill_at_any_step_leaves_nothing_broken_and_the_next_run_finishes(
    step: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: object) -> None:
        raise SystemExit(137)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(records, step, killed)
        clean()
    assert versions() == set(VERSIONS) - {UNNAMED}
    for version in versions():
        assert lineage.read(MODEL, version)[0].seed == 0
    clean()
    assert trainings() == {"f1", "f2", "f4"}
    assert len(list((project / "mlruns" / MODEL / "models").iterdir())) == 3
    assert (retention.plan([MODEL], keep_last=1, days=30).removals) == []


def test_old_runs_that_were_never_registered_go_and_young_ones_stay(project: Path) -> None:
    client = store.client()
    experiment_id = client.get_experiment_by_name(MODEL).experiment_id

    def train(fingerprint: str, days_ago: float, **tags: str) -> str:
        at = int((time.time() - days_ago * DAY) * 1000)
        tags |= {"captioning.fingerprint": fingerprint} if fingerprint else {}
        made = client.create_run(experiment_id, start_time=at, tags=tags)
        client.log_dict(made.info.run_id, {"some": "caption"}, "captions.json")
        client.set_terminated(made.info.run_id, "KILLED", end_time=at)
        return str(made.info.run_id)

    old, young, binned = train("old", 31), train("young", 29), train("binned", 29)
    parent = train("", 400)
    for run_id in (binned, find_run("f2").info.run_id):  # that of the champion by mistake
        client.delete_run(run_id)
        with sqlite3.connect(project / "mlruns" / "mlflow.db") as database:
            long_ago = int((time.time() - 40 * DAY) * 1000)
            database.execute("UPDATE runs SET deleted_time = ? WHERE run_uuid = ?", [long_ago, run_id])
    why = {own.what.split()[1]: own.why for own in clean(keep_last=4).removals if own.what.startswith("run ")}
    assert why == {
        old[:8]: "never registered, and without news for 31 days",
        binned[:8]: "deleted more than 30 days ago",
    }
    left = {own.name for own in (project / "mlruns" / MODEL).iterdir()}
    assert not {old, binned} & left
    assert {young, parent, find_run_id("f2")} <= left


def find_run_id(fingerprint: str) -> str:
    experiment_id = store.client().get_experiment_by_name(MODEL).experiment_id
    (found,) = store.client().search_runs(
        [experiment_id], f"tags.`captioning.fingerprint` = '{fingerprint}'", ViewType.ALL
    )
    return str(found.info.run_id)


def test_data_of_other_checkouts_branches_and_models_stay(project: Path) -> None:
    run(project, number=11)
    git(project, "switch", "-q", "--create", "experiment")
    commit(project, "another number")
    git(project, "switch", "-q", "main")
    run(project, number=12)
    git(project, "worktree", "add", "-q", "--detach", str(project / ".work" / "checkouts" / "one"))
    (project / "dvc.lock").replace(project / ".work" / "checkouts" / "one" / "dvc.lock")
    git(project, "checkout", "-q", "--force", "main")
    run(project, number=13)
    register(project, fingerprint="f13", model_name="another")
    run(project, number=14)
    before = cached(project)
    run(project, number=4)
    clean()
    kept = cached(project)
    assert data_of(11) <= kept and data_of(12) <= kept and data_of(13) <= kept
    assert data_of(14) <= before and not data_of(14) & kept


def data_of(number: int) -> set[str]:
    """Return the one object that only the data of this number have."""
    return {hashlib.md5(str(number).encode()).hexdigest()}


def test_the_cache_is_left_alone_while_dvc_is_at_work_or_others_share_it(
    project: Path, tmp_path: Path
) -> None:
    before = cached(project)
    with Repo(str(project)) as repo, repo.lock:
        assert clean().notes == [
            "DVC is at work, so that its cache was not looked at; clean again when it has ended"
        ]
    shutil.move(project / ".dvc" / "cache", tmp_path / "shared")
    (project / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {tmp_path / 'shared'}\n")
    (note,) = clean().notes
    assert f"lies outside of {project}; name each clone that shares it (--clone FOLDER)" in note
    assert cached(project) == before
    clean(clones=[project])
    assert cached(project) < before


def test_a_held_version_whose_data_cannot_be_told_keeps_the_cache_as_it_is(project: Path) -> None:
    before = cached(project)
    client = store.client()
    shutil.rmtree(Path(client.get_model_version_download_uri(MODEL, "2").removeprefix("file://")))
    client.delete_run(find_run("f2").info.run_id)
    shutil.rmtree(project / "mlruns" / MODEL / find_run_id("f2"))
    with sqlite3.connect(project / "mlruns" / "mlflow.db") as database:
        database.execute("UPDATE runs SET artifact_uri = 'nowhere://x' WHERE lifecycle_stage = 'deleted'")
    assert clean().notes == ["DVC's cache was not looked at: the data of tiny/2 cannot be told"]
    assert cached(project) == before


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("CAPTIONING_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path / ".work"


def left_over(finished: set[str] = frozenset(), named: dict[str, set[str]] | None = None) -> list[str]:  # type: ignore[assignment]
    planned = list(leftovers.plan(30, finished, named or {}))
    for removal in planned:
        removal.remove()
    return [removal.what.removeprefix(".work/") for removal in planned]


def test_interrupted_work_goes_when_it_is_old_and_a_finished_training_s_state_after_a_day(work: Path) -> None:
    for name, days in (("ended", 2), ("just-ended", 0.1), ("interrupted", 29), ("forgotten", 31)):
        age(work / "train" / name, days)
    for kind in leftovers.INTERRUPTED:
        age(work / kind / "young", 29)
        age(work / kind / "old", 31)
    gone = left_over(finished={"ended", "just-ended"})
    assert gone == ["train/ended", "train/forgotten", *(f"{kind}/old" for kind in leftovers.INTERRUPTED)]
    assert {path.name for path in (work / "train").iterdir()} == {"just-ended", "interrupted"}
    assert {path.name for path in (work / "clean").iterdir()} == {"young"}


def test_what_a_process_holds_is_not_touched(work: Path) -> None:
    for held in ("download/one", "clean/one/tables", "preprocess/one/examples"):
        age(work / held, 99)
        age(work / held.partition("/")[0] / "one", 99)
    age(work / "features" / "train-1.npy", 99)
    age(work / "features" / "train-2.npy", 1)
    handles = [os.open(work / held, os.O_RDONLY) for held in ("download/one", "clean/one/tables", "features")]
    for handle in handles:
        fcntl.flock(handle, fcntl.LOCK_EX)
    assert set(left_over()) == {"preprocess/one", "features/train-1.npy"}
    assert (work / "features" / "train-1.npy").exists()
    for handle in handles:
        os.close(handle)
    assert set(left_over()) == {"download/one", "clean/one", "features/train-1.npy"}
    assert not (work / "features" / "train-1.npy").exists()


def test_features_that_a_training_read_lately_stay_however_long_ago_they_were_computed(work: Path) -> None:
    for name in ("train-a.npy", "val-a.npy"):
        path = age(work / "features" / name, 90)
    os.utime(path, (time.time(), path.stat().st_mtime))
    assert left_over() == ["features/train-a.npy"]


def test_features_of_the_last_training_stay_however_old(work: Path) -> None:
    for name, days in (
        ("train-a.npy", 90),
        ("val-a.npy", 90.2),
        ("train-b.npy", 95),
        ("train-c.partial", 99),
    ):
        age(work / "features" / name, days)
    assert left_over() == ["features/train-b.npy", "features/train-c.partial"]


def test_downloaded_versions_stay_while_an_alias_names_them(work: Path) -> None:
    for version in ("1", "2", "3", "3.partial"):
        age(work / "champions" / MODEL / version, 2)
    age(work / "champions" / MODEL / "4", 0.1)
    age(work / "checked" / "stamp.txt", 40)
    gone = left_over(named={MODEL: {"2"}})
    assert gone == [
        "champions/tiny/1",
        "champions/tiny/3",
        "champions/tiny/3.partial",
        "1 files of .work/checked",
    ]


def test_the_checkout_of_a_reproduction_goes_with_its_folder(project: Path) -> None:
    place = project / ".work" / "reproductions" / "tiny-1"
    git(project, "worktree", "add", "-q", "--detach", str(place / "tree"))
    state = place / "state.json"
    state.write_text(json.dumps({"tree": str(place / "tree")}))
    assert left_over() == []
    age(state, 31)
    age(place.with_name("empty"), 31)
    (place.with_name("empty") / "file").unlink()
    age(place.with_name("empty"), 31)
    assert left_over() == ["reproductions/empty", "reproductions/tiny-1"]
    assert not place.exists()
    assert len(git(project, "worktree", "list").splitlines()) == 1


def test_at_least_one_version_stays(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["clean", "--keep-last", "0"])
    assert "0 is less than 1" in capsys.readouterr().err
