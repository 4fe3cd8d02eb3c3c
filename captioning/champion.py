"""What the registry holds, read without importing MLflow (4 s): the champion's folder, a receipt's truth.

A local database is read as SQLite, by the tables of MLflow 3.17; a server is asked through MLflow.
"""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlparse

from ruamel.yaml import YAML

from captioning import home, store

REGISTER = "`dvc repro --force --single-item register`"

PROFILE = "profile.json"
"""Of the training data, beside the model of each version; reports/validation/profile.json when it was registered."""
HYPOTHESES = "hypotheses.jsonl"
"""Of the test set, beside it; reports/hypotheses.jsonl when it was registered. Those of its run may be later ones."""

ALIAS = "SELECT version FROM registered_model_aliases WHERE name = :model AND alias = :alias"
SCORES = (
    "SELECT value FROM model_version_tags WHERE name = :model AND version = :version "
    "AND key = 'captioning.scores'"
)
VERSION = (
    "SELECT v.storage_location, t.value FROM model_versions v LEFT JOIN model_version_tags t "
    "ON t.name = v.name AND t.version = v.version AND t.key = 'captioning.fingerprint' "
    "WHERE v.name = :model AND v.version = :version AND v.current_stage != 'Deleted_Internal'"
)


class NoChampionError(ValueError):
    """No version of the registered model is the champion."""


def champion_folder(model_name: str) -> Path:
    """Return the folder of the champion, for `Captioner.load`; from a server it is downloaded once a version.

    Raises:
        ValueError: there is no champion (`NoChampionError`), or its files are gone.
    """
    return captioner_folder(champion_model(model_name))


def champion_profile(model_name: str) -> Path | None:
    """Return the profile of the champion's training data, which a version of old may lack; None without a champion.

    Raises:
        ValueError: the champion's files are gone.
    """
    try:
        return champion_model(model_name) / PROFILE
    except NoChampionError:
        return None


def version_folder(model_name: str, version: str) -> Path:
    """Return the logged model of a version, the folder of its MLmodel file; of a server's, a copy fetched once.

    Raises:
        ValueError: its files are gone.
    """
    if store.local_database() is None:
        return _downloaded(model_name, version)
    row = _query(VERSION, model=model_name, version=version)
    location = None if row is None else present_folder(row[0])
    if location is None:
        where = "no location" if row is None else row[0]
        raise ValueError(
            f"version {version} of {model_name} has lost its files ({where}); "
            f"restore {home.mlruns()} from a backup, or delete the version in MLflow and run {REGISTER}"
        )
    return location


def captioner_folder(model: Path) -> Path:
    """Return the captioner's folder inside a logged model, as its MLmodel file states it."""
    return model / str(_flavor(model)["artifacts"]["captioner"]["path"])


def generation_of(model: Path) -> Any:
    """Return how a logged model decodes: the settings `evaluate.generation` that it was registered with."""
    return _flavor(model)["config"]


def _flavor(model: Path) -> dict[str, Any]:
    description = YAML(typ="safe", pure=True).load((model / "MLmodel").read_text())
    flavor: dict[str, Any] = description["flavors"]["python_function"]
    return flavor


def champion_model(model_name: str) -> Path:
    """Return the logged model of the champion, the folder of its MLmodel file; of a server's, a copy fetched once.

    Raises:
        ValueError: there is no champion (`NoChampionError`), or its files are gone.
    """
    version = version_called(model_name, "champion")
    if version is None:
        raise NoChampionError(
            f"{model_name} has no champion at {store.uri()}; `dvc repro` trains and registers one"
        )
    return version_folder(model_name, version)


def version_called(model_name: str, alias: str) -> str | None:
    """Return the version that has an alias, such as `champion`; None where no version has it."""
    if store.local_database() is None:
        found = store.client().search_registered_models(f"name = '{model_name}'")
        version = found[0].aliases.get(alias) if found else None
        return None if version is None else str(version)
    row = _query(ALIAS, model=model_name, alias=alias)
    return None if row is None else str(row[0])


def test_scores(model_name: str, version: str) -> dict[str, float]:
    """Return what a version scored on its test set; nothing where its registration did not say."""
    if store.local_database() is None:
        found = store.client().search_model_versions(f"name = '{model_name}'")
        text = {str(own.version): own.tags for own in found}.get(version, {}).get("captioning.scores")
    else:
        row = _query(SCORES, model=model_name, version=version)
        text = None if row is None else row[0]
    return {name: float(value) for name, value in json.loads(text or "{}").items()}


def check_receipt(path: Path) -> str | None:
    """Return in a sentence what keeps the registry from holding what a receipt says; None where it holds it.

    DVC skips the register stage while its inputs are unchanged, also after the registry was deleted.
    """
    try:
        receipt = json.loads(path.read_text())
        model_name, version, fingerprint = (receipt[key] for key in ("model_name", "version", "fingerprint"))
    except (OSError, ValueError, KeyError, TypeError):
        return f"{path} is no receipt of a registration; {REGISTER} writes one"
    what = f"{path} says that version {version} of {model_name} is registered"
    if store.local_database() is None:
        return None if _is_on_server(model_name, version, fingerprint) else _missing(what)
    row = _query(VERSION, model=model_name, version=version)
    if row is None:
        return _missing(what)
    if row[1] != fingerprint:
        return f"{what} with the training {fingerprint[:8]}, but it is of {str(row[1])[:8]}; run {REGISTER}"
    if present_folder(row[0]) is None:
        return f"{what}, but {row[0]} is gone; delete the version in MLflow, then run {REGISTER}"
    return None


def _missing(what: str) -> str:
    return f"{what}, but {store.uri()} has no such version; run {REGISTER}"


def _query(statement: str, **values: str) -> tuple[str, ...] | None:
    """Return the first row of a query to the local database; None also where there is no database yet."""
    database = store.local_database()
    if database is None or not database.exists():
        return None
    try:
        with closing(
            sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True, timeout=20)
        ) as connection:
            row: tuple[str, ...] | None = connection.execute(statement, values).fetchone()
            return row
    except sqlite3.Error as error:
        raise ValueError(
            f"{database} cannot be read as MLflow's database: {error}; restore it from a backup, "
            f"or move it away and run {REGISTER}"
        ) from None


def present_folder(location: str) -> Path | None:
    """Return a logged model's folder, also where the folder around `mlruns` moved; None where it is gone."""
    path = Path(unquote(urlparse(location).path))
    _, is_in_mlruns, inside = str(path).rpartition("/mlruns/")
    places = [home.mlruns() / inside, path] if is_in_mlruns else [path]
    return next((place for place in places if (place / "MLmodel").exists()), None)


def _is_on_server(model_name: str, version: str, fingerprint: str) -> bool:
    found = store.client().search_model_versions(f"name = '{model_name}'")
    tags = {str(each.version): each.tags for each in found}
    return tags.get(version, {}).get("captioning.fingerprint") == fingerprint


def _downloaded(model_name: str, version: str) -> Path:
    """Return a logged model of a server from the cache of downloads, fetched where it is missing."""
    folder = home.work("champions", model_name) / version
    if not folder.exists():
        from mlflow.artifacts import download_artifacts

        aside = home.work("champions", model_name, f"{version}.partial")
        with store.as_default_uri():
            downloaded = download_artifacts(
                artifact_uri=f"models:/{model_name}/{version}", dst_path=str(aside)
            )
        Path(downloaded).rename(folder)
    return folder
