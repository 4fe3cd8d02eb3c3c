"""A sweep trains several settings with one cache, says which is best, and goes on where it was killed."""

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
from scratch_project import make_repository, processes_with, run_git, wait_until

from captioning import params, store, tracking
from flows import devices, sweep_report
from flows.experiments import Experiment, Result, expand, shared_work

ROOT = Path(__file__).parents[1]

STAGES = """
stages:
  data:
    cmd: echo data >> $CAPTIONING_HOME/order.log && cp params.yaml data.yaml
    params: [download]
    outs: [data.yaml]
  train:
    cmd: python learn.py
    deps: [data.yaml, learn.py]
    params: [train]
    outs: [model, reports/hypotheses.jsonl]
    metrics: [reports/metrics.json: {cache: true}]
  register:
    cmd: echo register >> $CAPTIONING_HOME/order.log && cp reports/metrics.json registration.json
    deps: [reports/metrics.json]
    outs: [registration.json]
"""
LEARN = """
import json, os, sys, time
from pathlib import Path
from ruamel.yaml import YAML

seed = YAML(typ="safe").load(Path("params.yaml").read_text())["train"]["seed"]
with open(os.environ["CAPTIONING_HOME"] + "/order.log", "a") as log:
    log.write(f"train {seed}\\n")
with open(os.environ["CAPTIONING_HOME"] + "/devices.log", "a") as log:
    log.write(os.environ.get("CUDA_VISIBLE_DEVICES", "all") + "\\n")
if seed == 3:
    sys.exit("the loss is not a number")
if seed == 4 and not Path(os.environ["CAPTIONING_HOME"], "quick").exists():
    time.sleep(317.5)
Path("reports").mkdir(exist_ok=True)
Path("model").mkdir(exist_ok=True)
Path("model/captioner.json").write_text(json.dumps({"fingerprint": f"training{seed}"}))
score = seed / 10
Path("reports/metrics.json").write_text(json.dumps({"test": {"exact_match": score}, "tokenizer": "none"}))
row = {"image_id": "a", "hypothesis": "a cat", "references": ["a cat", "a dog"]}
Path("reports/hypotheses.jsonl").write_text(json.dumps(row))
"""
"""A training whose seed is its score."""


@pytest.fixture(autouse=True)
def flows_can_be_imported_from_a_scratch_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


# which experiments


def test_a_grid_gives_every_combination_and_the_last_setting_changes_first() -> None:
    found = expand(["train.seed=1,2", "train.decoder.name=luong,merge"], [])
    assert [own.overrides for own in found] == [
        ("train.seed=1", "train.decoder.name=luong"),
        ("train.seed=1", "train.decoder.name=merge"),
        ("train.seed=2", "train.decoder.name=luong"),
        ("train.seed=2", "train.decoder.name=merge"),
    ]
    assert [own.number for own in found] == [1, 2, 3, 4]
    assert found[1].name == "train.seed=1, train.decoder.name=merge"


def test_members_are_experiments_of_their_own_or_have_the_grid_each() -> None:
    members = [["train.seed=1"], ["train.seed=2", "clean.script=null"]]
    assert [own.overrides for own in expand([], members)] == [tuple(own) for own in members]
    assert [own.overrides for own in expand(["split.key=a,b"], members)][:2] == [
        ("train.seed=1", "split.key=a"),
        ("train.seed=1", "split.key=b"),
    ]


def test_a_comma_inside_of_brackets_or_quotes_parts_no_values() -> None:
    found = expand(["evaluate.metrics=[bleu, cider],[bleu]", "split.key='a,b',c"], [])
    assert [own.overrides for own in found] == [
        ("evaluate.metrics=[bleu, cider]", "split.key='a,b'"),
        ("evaluate.metrics=[bleu, cider]", "split.key=c"),
        ("evaluate.metrics=[bleu]", "split.key='a,b'"),
        ("evaluate.metrics=[bleu]", "split.key=c"),
    ]


@pytest.mark.parametrize(
    ("grid", "members", "message"),
    [
        (["train.seed"], [], "'train.seed' is no setting with values; expected such as train.seed=1,2,3"),
        (["train.seed=1,"], [], "'train.seed=1,' is no setting with values; expected such as train.seed=1,2"),
        (["train.seed=1"], [], "a sweep compares at least two experiments: name several values, as in train"),
        ([], [["train.seed=1"], ["train.seed=1"]], "the sweep has 'train.seed=1' twice; name different"),
    ],
)
def test_what_is_no_sweep_is_refused(grid: list[str], members: list[list[str]], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        expand(grid, members)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose pipeline takes no time."""
    folder = tmp_path_factory.mktemp("sweep") / "project"
    make_repository(
        folder,
        STAGES,
        "/data.yaml",
        "/model/",
        "/reports/",
        "/registration.json",
        "/order.log",
        "/devices.log",
        "/quick",
        "/mlruns/",
    )
    shutil.copy(ROOT / "params.yaml", folder)
    text = (folder / "params.yaml").read_text().replace("metric: bleu_4 ", "metric: exact_match ")
    (folder / "params.yaml").write_text(text)
    (folder / "learn.py").write_text(LEARN)
    run_git(folder, "add", "params.yaml", "learn.py")
    run_git(folder, "commit", "--quiet", "--message", "A training")
    return folder


@pytest.fixture
def project(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "project", symlinks=True)


def test_work_is_shared_where_a_stage_and_all_before_it_read_equal_settings(original: Path) -> None:
    values = params.read(original / "params.yaml")

    def changed(section: str, **settings: Any) -> dict[str, Any]:
        return values | {section: values[section] | settings}

    seeds = {1: changed("train", seed=1), 2: changed("train", seed=2), 3: changed("train", seed=3)}
    assert shared_work(original, ["data", "train"], seeds) == {1: ["data"]}
    data = {1: values, 2: changed("download", seed=1), 3: changed("download", seed=1)}
    assert shared_work(original, ["data", "train"], data) == {2: ["data", "train"]}


# a sweep


def run_sweep(folder: Path, **parameters: Any) -> Any:
    """Run a sweep in this process; return its final state."""
    from flows.sweep import sweep

    with chdir(folder):
        return sweep(**parameters, return_state=True)


@pytest.mark.slow
def test_bad_settings_are_refused_before_any_work(prefect: str, project: Path) -> None:
    state = run_sweep(project, members=[["train.sed=2"], ["train.seed=1"]])
    assert state.is_failed()
    assert state.message.startswith("params.yaml has no key 'train.sed'; keys there: ")
    assert not (project / "order.log").exists()
    assert list((project / ".work" / "checkouts").iterdir()) == []
    misnamed = run_sweep(project, grid=["train.seed=1,2"], name="../seeds")
    assert misnamed.message == "name is '../seeds'; expected letters, digits, - and _, such as decoders"


@pytest.mark.slow
def test_experiments_that_run_at_the_same_time_have_devices_of_their_own(
    prefect: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b,GPU-c")
    assert run_sweep(project, grid=["train.seed=1,2"], name="devices", jobs=2).is_completed()
    assert sorted((project / "devices.log").read_text().split()) == ["GPU-a", "GPU-b,GPU-c"]


@pytest.mark.parametrize(
    ("stated", "devices_of_two", "devices_of_three"),
    [
        ("0,1,2,3", [["0", "1"], ["2", "3"]], [["0"], ["1"], ["2", "3"]]),
        (" GPU-a, MIG-b", [["GPU-a"], ["MIG-b"]], [["GPU-a"], ["MIG-b"], ["GPU-a"]]),
        ("7,-1,2", [["7"], ["7"]], [["7"], ["7"], ["7"]]),
        ("", [[], []], [[], [], []]),
    ],
)
def test_devices_are_divided_evenly_and_shared_where_they_are_too_few(
    stated: str,
    devices_of_two: list[list[str]],
    devices_of_three: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", stated)
    assert devices.divided(devices.visible(), 2) == devices_of_two
    assert devices.divided(devices.visible(), 3) == devices_of_three


@pytest.fixture(scope="module")
def resumed(prefect: str, original: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A project in which a sweep was killed during its third experiment, and was run again; its final state."""
    folder = shutil.copytree(original, tmp_path_factory.mktemp("resumed") / "project", symlinks=True)
    order = folder / "order.log"
    settings = {"PREFECT_API_URL": prefect, "PYTHONPATH": str(ROOT), "CAPTIONING_GRACE_SECONDS": "0.5"}
    command = [sys.executable, "-m", "flows.sweep", "train.seed=1,3,4", "--name", "seeds"]
    with subprocess.Popen(
        command, cwd=folder, env={**os.environ, **settings}, stderr=subprocess.DEVNULL
    ) as one:
        try:
            wait_until(lambda: (order.exists() and "train 4" in order.read_text()) or one.poll() is not None)
        finally:
            one.kill()
    wait_until(lambda: not processes_with("learn.py"))
    (folder / "quick").touch()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        return folder, run_sweep(folder, grid=["train.seed=1,3,4"], name="seeds", jobs=2)


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the supervisor adopts orphans on Linux only")
def test_a_killed_sweep_goes_on_where_it_was_and_what_is_shared_is_done_once(
    resumed: tuple[Path, Any],
) -> None:
    order = (resumed[0] / "order.log").read_text().splitlines()
    assert order[:4] == ["data", "train 1", "train 3", "train 4"], "one after the other"
    assert sorted(order[4:]) == ["train 3", "train 4"], "and nothing was registered"


@pytest.mark.soak
@pytest.mark.slow
def test_a_failed_experiment_is_a_row_and_the_best_is_named_with_its_command(
    resumed: tuple[Path, Any],
) -> None:
    folder, state = resumed
    page = folder / "reports" / "sweeps" / "seeds" / "sweep.md"
    assert state.message == f"best of 3: train.seed=4, exact_match 0.4000; failed: 2. {page}"
    text = page.read_text()
    assert "| 1 | train.seed=1 | 0.1000 |  |\n" in text
    assert "| 2 | train.seed=3 | – | the loss is not a number |\n" in text
    assert "| 3 | train.seed=4 | **0.4000** |  |\n" in text
    assert "`python -m flows.retrain train.seed=4` registers the best" in text


@pytest.mark.soak
@pytest.mark.slow
def test_an_experiment_is_a_commit_and_the_project_is_as_before(resumed: tuple[Path, Any]) -> None:
    folder, _ = resumed
    settings = run_git(folder, "show", "refs/captioning/sweeps/seeds/3:params.yaml")
    assert "\ntrain:\n  seed: 4\n" in settings
    assert run_git(folder, "status", "--porcelain") == ""
    assert run_git(folder, "rev-parse", "captioning/retrain") == run_git(folder, "rev-parse", "HEAD")
    assert list((folder / ".work" / "checkouts").iterdir()) == []


# MLflow


@pytest.mark.soak
@pytest.mark.slow
def test_mlflow_has_the_sweep_as_parent_of_its_trainings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTIONING_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for seed in (1, 2):
        with tracking.training_run(f"training{seed}", {"train": {"seed": seed}}, "captioner"):
            pass
    results = []
    for seed in (1, 2):
        reports = tmp_path / str(seed)
        reports.mkdir()
        row = {"image_id": "a", "hypothesis": "a cat", "references": ["a cat", "a dog"]}
        (reports / "hypotheses.jsonl").write_text(json.dumps(row) + "\n")
        metrics = {"test": {"exact_match": seed / 10}, "tokenizer": "none"}
        (reports / "metrics.json").write_text(json.dumps(metrics))
        experiment = Experiment(number=seed, overrides=(f"train.seed={seed}",))
        results.append(Result(experiment=experiment, reports=reports, fingerprint=f"training{seed}"))
    report = sweep_report.write(tmp_path / "out", "seeds", results, {"metric": "exact_match"}, None)
    for _ in range(2):  # a sweep that is run again is the same one
        assert sweep_report.record(report, tmp_path / "out", "captioner") is None
    client = store.client()
    runs = client.search_runs([client.get_experiment_by_name("captioner").experiment_id])
    (parent,) = [run for run in runs if run.data.tags.get("captioning.sweep") == "seeds"]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(run.data.metrics["test_exact_match"] for run in children) == [0.1, 0.2]
    assert parent.info.status == "FINISHED"
    logged = [file.path for file in client.list_artifacts(parent.info.run_id, "sweep")]
    assert "sweep/comparison.csv" in logged
