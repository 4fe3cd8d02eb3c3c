"""Absolute paths where a project that moves, or is cloned, would carry them along."""

import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from captioning import home, params, store
from captioning.doctor import dvc_settings
from captioning.doctor.findings import Finding, ok, problem, warning

IN_USE = {"experiments": "experiment_id IN (SELECT experiment_id FROM runs)"}
"""Rows to look at, of tables in which not every row counts: MLflow makes an experiment that nobody uses."""


def artifacts() -> Iterator[Finding]:
    """Look whether the embedded records name artifacts where this project is, and whether those are there."""
    database = store.local_database()
    if database is None or not database.exists():
        yield ok(f"no embedded records; {store.uri()} is used" if database is None else "no embedded records")
        return
    here = database.parent.as_uri() + "/"
    moved, gone = [], []
    for location in _locations(database):
        folder = Path(unquote(urlsplit(location).path))
        inside = location.rpartition("/mlruns/")[2]
        if not location.startswith(here) and (database.parent / unquote(inside)).exists():
            moved.append(location)
        elif location.startswith(("file:", "/")) and not folder.exists():
            gone.append(location)
    if moved:
        yield warning(
            f"{len(moved)} locations in {database} are of a folder this project was in before, such as {moved[0]}",
            "dvc repro -f -s register, or whatever next opens MLflow's records, puts them right",
        )
    if gone:
        yield problem(
            f"{len(gone)} locations in {database} do not exist, such as {gone[0]}",
            f"restore {home.mlruns()} from a backup; versions without files are replaced by `dvc repro -f -s register`",
        )
    if not moved and not gone:
        yield ok(f"the locations in {database} exist")


def absolute_paths() -> Iterator[Finding]:
    """Look for absolute paths in files that are committed: they are of one machine."""
    found = [(str(params.PARAMS_FILE), key, value) for key, value in _texts(params.read(), "")]
    found += [(".dvc/config", key, value) for key, value in _texts(dvc_settings.committed(), "")]
    mends = {
        str(
            params.PARAMS_FILE
        ): "put the file into the project and name it from there; or keep it, on this machine",
        ".dvc/config": "move it to .dvc/config.local, with `dvc config --local` or `dvc remote modify --local`",
    }
    stated = [(file, key, value) for file, key, value in found if re.match(r"(/|~|[A-Za-z]:\\|file:)", value)]
    for file, key, value in stated:
        yield warning(f"{file} has {key}: {value}, a path of this machine", mends[file])
    if not stated:
        yield ok("none in params.yaml and .dvc/config")


def _locations(database: Path) -> list[str]:
    with closing(sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True, timeout=5)) as connection:
        tables = {
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        found: set[str] = set()
        for table, column in store.ARTIFACT_LOCATIONS:
            if table in tables:
                rows = f"SELECT {column} FROM {table} WHERE {IN_USE.get(table, 'TRUE')}"
                found |= {location for (location,) in connection.execute(rows) if location}
    return sorted(found)


def _texts(values: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield each text in nested settings, with its key."""
    if isinstance(values, str):
        yield key, values
    elif isinstance(values, Mapping):
        for name, value in values.items():
            yield from _texts(value, f"{key}.{name}" if key else str(name))
    elif isinstance(values, list):
        for number, value in enumerate(values):
            yield from _texts(value, f"{key}.{number}")
