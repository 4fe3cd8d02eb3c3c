"""A project of three small stages under git and DVC, whose versions are registered in a real registry."""

import os
import subprocess
import tempfile
from contextlib import chdir
from pathlib import Path
from typing import Any

from dvc.repo import Repo
from mlflow.exceptions import MlflowException

from captioning import lineage, params, store, tracking

MODEL = "tiny"

DVC_YAML = """
stages:
  make:
    cmd: python -m stages.make data/raw
    deps: [stages/make.py]
    params: [train.number]
    outs: [data/raw]
  train:
    cmd: python -m stages.train data/raw models/tiny
    deps: [stages/train.py, data/raw]
    params: [train.seed]
    outs: [models/tiny]
  evaluate:
    cmd: python -m stages.evaluate models/tiny reports
    deps: [stages/evaluate.py, models/tiny]
    metrics: [reports/metrics.json]
"""

STAGES = {
    "make": """
import re, sys
from pathlib import Path
folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
(folder / "rows.txt").write_text(re.search(r"number: *(\\d+)", Path("params.yaml").read_text())[1])
""",
    "train": """
import os, random, re, sys, time
from pathlib import Path
number = int((Path(sys.argv[1]) / "rows.txt").read_text())
seed = int(re.search(r"seed: *(\\d+)", Path("params.yaml").read_text())[1])
print("training", flush=True)
while os.environ.get("TRAIN_WAITS_FOR") and not Path(os.environ["TRAIN_WAITS_FOR"]).exists():
    time.sleep(0.1)
folder = Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
(folder / "weights.txt").write_text(str(random.Random(seed).random() * number))
""",
    "evaluate": """
import json, os, sys
from pathlib import Path
weights = float((Path(sys.argv[1]) / "weights.txt").read_text())
scores = {"bleu_4": weights, "chance": float(os.environ.get("CHANCE", 0))}
Path(sys.argv[2]).mkdir(exist_ok=True)
(Path(sys.argv[2]) / "metrics.json").write_text(json.dumps({"test": scores, "tokenizer": "ptb"}))
""",
}


def make_project(folder: Path) -> Path:
    """Write the project, committed, with nothing run."""
    (folder / "stages").mkdir(parents=True)
    for name, text in STAGES.items():
        (folder / "stages" / f"{name}.py").write_text(text)
    (folder / "dvc.yaml").write_text(DVC_YAML)
    (folder / "params.yaml").write_text("train: {seed: 0, number: 3}\n")
    (folder / "stages" / "__init__.py").touch()
    (folder / ".gitignore").write_text("/data\n/models\n/reports\n/mlruns\n/.work\n__pycache__\n")
    (folder / ".dvcignore").write_text(".work\n__pycache__\n")
    git(folder, "init", "-q", "-b", "main")
    with chdir(folder):
        Repo.init(".").close()
    commit(folder, "the project")
    return folder


def git(folder: Path, *arguments: str) -> str:
    identity = {
        f"GIT_{who}_{what}": "tester@example.org"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env={**os.environ, **identity},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "-qm", message)


def run(folder: Path, *, seed: int = 0, number: int = 3) -> None:
    """Run the pipeline with settings of its own, which stay uncommitted."""
    with chdir(folder), Repo() as repo:
        (folder / "params.yaml").write_text(f"train: {{seed: {seed}, number: {number}}}\n")
        repo.reproduce()


def register(folder: Path, *, fingerprint: str = "abc123", model_name: str = MODEL, **tags: str) -> str:
    """Register what the pipeline left in the working directory, as the register stage does; return the version."""
    client = store.client()
    with chdir(folder), tempfile.TemporaryDirectory() as name:
        values = params.read()
        with tracking.training_run(fingerprint, values, model_name) as report:
            report(1, {"loss": 1.0}, {})
        run_id = find_run(fingerprint, model_name).info.run_id
        client.log_artifact(run_id, "reports/metrics.json", "reports")
        for gate in lineage.VERDICTS:
            (folder / "reports" / gate).mkdir(exist_ok=True)
            (folder / "reports" / gate / "verdict.json").write_text('{"accepted": true}')
        made_by = lineage.write(
            Path(name), params=values, reports=Path("reports"), trained_on=tracking.machines(run_id)
        )
        (Path(name) / "MLmodel").write_text("flavors: {}\n")
        (Path(name) / "weights.txt").write_text("w" * 1000)
        experiment_id = client.get_run(run_id).info.experiment_id
        logged = client.create_logged_model(experiment_id, name=model_name, source_run_id=run_id)
        client.log_model_artifacts(logged.model_id, name)
        client.finalize_logged_model(logged.model_id, "READY")
        try:
            client.get_registered_model(model_name)
        except MlflowException:
            client.create_registered_model(model_name)
        with store.as_default_uri():
            version = client.create_model_version(
                model_name,
                f"models:/{logged.model_id}",
                run_id=run_id,
                tags=tracking.identity() | made_by.tags | {"captioning.fingerprint": fingerprint} | tags,
                model_id=logged.model_id,
            )
    return str(version.version)


def find_run(fingerprint: str, model_name: str = MODEL) -> Any:
    client = store.client()
    experiment = client.get_experiment_by_name(model_name)
    (found,) = client.search_runs(
        [experiment.experiment_id], f"tags.`captioning.fingerprint` = '{fingerprint}'"
    )
    return found
