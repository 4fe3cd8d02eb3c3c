"""What made a version: code, settings, data, verdicts, machines. `lineage.json` beside its model says it.

| key | is |
|---|---|
| `revision` | the commit; null outside of git |
| `uncommitted` | files that differed from it, without dvc.lock, params.yaml and source.json, which stand here whole |
| `patch` | sha256 of uncommitted.patch, which has those of them that are code; null without one |
| `seed`, `params`, `source` | `train.seed`, all of params.yaml, all of source.json |
| `dvc_lock`, `data` | all of dvc.lock; of it, the md5 of each folder of data |
| `verdicts` | what the gates said |
| `metrics` | all of reports/metrics.json |
| `trained_on`, `registered_on` | captioning/machine.py; a training that was resumed may have had several |
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from captioning import machine, revision, source_state, store
from captioning.tracking import DVC_LOCK

FILE = "lineage.json"
PATCH = "uncommitted.patch"
DATA = "data/"
VERDICTS = ("validation", "inspection")


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """The content of lineage.json, as the module's table has it."""

    revision: str | None
    uncommitted: list[str]
    patch: str | None
    seed: int | None
    data: dict[str, str]
    verdicts: dict[str, bool]
    metrics: dict[str, Any]
    trained_on: list[dict[str, Any]]
    registered_on: dict[str, Any]
    params: dict[str, Any]
    source: dict[str, Any]
    dvc_lock: dict[str, Any]

    @property
    def tags(self) -> dict[str, str]:
        """Return what of it one filters versions by, besides `tracking.identity`."""
        tags = {"captioning.examples": self.data.get("data/examples"), "captioning.seed": self.seed}
        tags["captioning.trained_on"] = ", ".join(map(machine.name_of, self.trained_on)) or None
        return {key: str(value) for key, value in tags.items() if value is not None}

    @property
    def uncommitted_code(self) -> list[str]:
        """Return the uncommitted files that may decide a result."""
        return [path for path in self.uncommitted if revision.is_code(path)]


def write(
    folder: Path, *, params: Mapping[str, Any], reports: Path, trained_on: Sequence[dict[str, Any]]
) -> Lineage:
    """Write lineage.json, and uncommitted.patch where code is uncommitted, of what stands in the working directory."""
    uncommitted = revision.changed() or []
    code = [path for path in uncommitted if revision.is_code(path)]
    patch = revision.patch(code) if code else None
    lock = read_lock(DVC_LOCK)
    lineage = Lineage(
        revision=revision.read(),
        uncommitted=uncommitted,
        patch=hashlib.sha256(patch).hexdigest() if patch else None,
        seed=params.get("train", {}).get("seed"),
        data={path: md5 for path, md5 in outs(lock).items() if path.startswith(DATA)},
        verdicts={
            name: json.loads((reports / name / "verdict.json").read_text())["accepted"] for name in VERDICTS
        },
        metrics=json.loads((reports / "metrics.json").read_text()),
        trained_on=list(trained_on),
        registered_on=machine.describe(),
        params=dict(params),
        source=dict(source_state.read()),
        dvc_lock=lock,
    )
    (folder / FILE).write_text(json.dumps(asdict(lineage), indent=1) + "\n")
    if patch:
        (folder / PATCH).write_bytes(patch)
    return lineage


def read(model_name: str, version: str) -> tuple[Lineage, bytes | None]:
    """Return the lineage of a registered version, and the patch of its uncommitted code.

    Raises:
        ValueError: it has none, having been registered before there were any, or it cannot be read.
    """
    from mlflow.artifacts import download_artifacts

    uri = f"models:/{model_name}/{version}"
    store.client()
    with tempfile.TemporaryDirectory() as folder, store.as_default_uri():
        try:
            text = Path(download_artifacts(artifact_uri=f"{uri}/{FILE}", dst_path=folder)).read_text()
            lineage = Lineage(**json.loads(text))
            if lineage.patch is None:
                return lineage, None
            patch = Path(download_artifacts(artifact_uri=f"{uri}/{PATCH}", dst_path=folder)).read_bytes()
        except Exception as error:  # of MLflow, or of whatever holds its artifacts
            raise ValueError(
                f"version {version} of {model_name} has no {FILE} that can be read, which states what made it: "
                f"{' '.join(str(error).split())[:200]}; versions that are registered from now on have one"
            ) from None
    if hashlib.sha256(patch).hexdigest() != lineage.patch:
        raise ValueError(f"{PATCH} of version {version} of {model_name} is not the one that was registered")
    return lineage, patch


def read_lock(path: Path) -> dict[str, Any]:
    """Return a dvc.lock as plain values; nothing where there is none."""
    if not path.exists():
        return {}
    lock: dict[str, Any] = YAML(typ="safe", pure=True).load(path.read_text()) or {}
    return lock


def outs(lock: Mapping[str, Any]) -> dict[str, str]:
    """Return path and md5 of what the stages of a dvc.lock made."""
    stages = lock.get("stages", {}).values()
    return {out["path"]: str(out.get("md5")) for stage in stages for out in stage.get("outs", [])}
