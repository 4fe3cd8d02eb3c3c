"""A run as a user types it -> its reports: a folder, a registered version, or a run of MLflow."""

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from captioning import store
from captioning.reports.reported_run import ReportedRun, read_run

if TYPE_CHECKING:
    from mlflow.entities import Run

FORMS = "a folder with reports, a registered version (NAME/3 or NAME@champion), or the beginning of an MLflow run's id"
FEWEST_LETTERS = 4
"""Of the beginning of a run's id."""


def read_named_runs(texts: Sequence[str]) -> list[ReportedRun]:
    """Return the runs that texts name; folders of one name are called by their paths below what these share.

    Raises as `read_named_run` does.
    """
    runs = [read_named_run(text) for text in texts]
    folders = [_project(Path(text)) if Path(text).is_dir() else None for text in texts]
    for name in {run.name for run in runs}:
        alike = {
            place: folder
            for place, folder in enumerate(folders)
            if folder is not None and runs[place].name == name
        }
        if len(alike) > 1:
            shared = os.path.commonpath([folder.parent for folder in alike.values()])
            for place, folder in alike.items():
                runs[place] = replace(runs[place], name=folder.relative_to(shared).as_posix())
    return runs


def read_named_run(text: str) -> ReportedRun:
    """Return the run that `text` names.

    Raises:
        ValueError: there is no such run, more than one, or its reports are gone.
    """
    if Path(text).is_dir():
        return _of_folder(Path(text))
    if "/" in text or "@" in text:
        return _of_version(text)
    return _of_run(_run_beginning_with(text), name=None)


def _of_folder(folder: Path) -> ReportedRun:
    """Read a reports folder, or the one of a project. It is called as the project, which tells runs apart."""
    reports = folder if (folder / "metrics.json").exists() else folder / "reports"
    if not (reports / "metrics.json").exists():
        raise ValueError(
            f"{folder} holds no metrics.json, nor does its folder reports; `dvc repro evaluate` writes it"
        )
    return read_run(reports, _project(reports).name)


def _project(folder: Path) -> Path:
    resolved = folder.resolve()
    return resolved.parent if resolved.name == "reports" else resolved


def _of_version(text: str) -> ReportedRun:
    from mlflow.exceptions import MlflowException

    client = store.client()
    name, sign, which = text.rpartition("@") if "@" in text else text.rpartition("/")
    try:
        if sign == "@":
            version = client.get_model_version_by_alias(name, which)
        else:
            version = client.get_model_version(name, which)
    except MlflowException as error:
        raise ValueError(
            f"{text} is neither a folder nor a registered version at {store.uri()}: {error.message}; expected {FORMS}"
        ) from None
    run = _of_run(client.get_run(version.run_id), name=f"{name}/{version.version}")
    recorded = version.tags.get("captioning.scores")
    if recorded and json.loads(recorded) != run.scores:
        raise ValueError(
            f"{text} was registered with other scores than its run has now: the training was evaluated again since; "
            "name the later version instead"
        )
    return run


def _run_beginning_with(text: str) -> "Run":
    found = [
        run
        for run in _runs()
        if (len(text) >= FEWEST_LETTERS and run.info.run_id.startswith(text)) or run.info.run_name == text
    ]
    if not found:
        raise ValueError(f"{text!r} names no run at {store.uri()}; expected {FORMS}")
    if len(found) > 1:
        ids = ", ".join(sorted(run.info.run_id for run in found)[:5])
        raise ValueError(f"{text!r} names {len(found)} runs, {ids}; type more letters of one")
    return found[0]


def _runs() -> "list[Run]":
    client = store.client()
    experiments = [own.experiment_id for own in client.search_experiments()]
    return list(store.every(client.search_runs, experiments)) if experiments else []


def _of_run(run: "Run", *, name: str | None) -> ReportedRun:
    """Read the reports that the register stage logged with a run."""
    from mlflow.exceptions import MlflowException

    name = name or str(run.info.run_name or run.info.run_id[:8])
    with tempfile.TemporaryDirectory() as folder:
        try:
            reports = store.client().download_artifacts(run.info.run_id, "reports", folder)
        except (MlflowException, OSError):
            raise ValueError(
                f"run {run.info.run_id} of {store.uri()} has no reports: it was not evaluated and registered, or its "
                "artifacts are gone; `dvc repro register` records them"
            ) from None
        return read_run(
            Path(reports),
            name,
            decoder=run.data.params.get("train.decoder.name", ""),
            encoder=run.data.params.get("train.encoder.name", ""),
            training_seconds=run.data.metrics.get("training_seconds"),
        )
