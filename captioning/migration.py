"""MLflow's embedded records -> a team's server: every table, and every artifact, under the same ids.

MLflow 3.17 has no command for it. Its tables are the same in SQLite and PostgreSQL, so that rows are copied as they
are; only where artifacts lie is stated anew, as `mlflow-artifacts:/...`, which the server resolves.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from captioning import store

if TYPE_CHECKING:
    import sqlalchemy

ROWS_AT_ONCE = 1000
PROXIED = "mlflow-artifacts:/"
"""Scheme of artifacts that clients ask the server for."""

DEFAULT_EXPERIMENT = 0
"""Made by MLflow in every database; in an embedded one its location is wherever the first process was started."""

BORN_WITH_ONE_ROW = ("experiments", "workspaces")


@dataclass(frozen=True, kw_only=True)
class Migrated:
    """What a migration copied."""

    num_runs: int
    num_versions: int
    num_left: int
    """Locations of artifacts outside of `mlruns`, which are kept as they are."""


def migrate(database: str, artifacts: str) -> Migrated:
    """Copy the embedded records, and their artifacts, to where a server will find them. What is embedded stays.

    The rows arrive in one transaction: after an interruption the database is as it was, and this can be repeated.
    Nothing may write to the embedded records meanwhile.

    Args:
        database: `postgresql://...`, empty, or as a server leaves it that has not been used.
        artifacts: what the server is told: `s3://BUCKET/FOLDER` or a folder.

    Raises:
        ValueError: there are no embedded records, or the database cannot be used or holds records already.
    """
    embedded = store.local_database()
    if embedded is None or not embedded.exists():
        raise ValueError(
            f"there are no embedded records at {store.uri()} to be migrated; run this in their project, "
            "without MLFLOW_TRACKING_URI"
        )
    if not database.startswith(("postgresql", "postgres:")):
        raise ValueError(
            f"records are migrated to PostgreSQL, got {database}; expected postgresql://USER@HOST/DATABASE"
        )
    store.client()  # brings the schema up, and the locations to where the project is now
    import sqlalchemy

    with store.locked("registry"):
        source = sqlalchemy.create_engine(f"sqlite:///{embedded}")
        target = _prepared(store.with_driver(database, "psycopg"))
        try:
            with source.connect() as reading, target.begin() as writing:
                _refuse_a_used_one(writing)
                _upload(reading, embedded.parent, artifacts)
                return _copy(reading, writing, embedded.parent)
        finally:
            source.dispose()
            target.dispose()


def _prepared(address: str) -> "sqlalchemy.Engine":
    """Return the engine of a database with MLflow's tables, made where they are missing.

    Raises:
        ValueError: it does not answer, or its tables are another MLflow's.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.store.db import utils as databases
    from sqlalchemy import create_engine, make_url
    from sqlalchemy.exc import SQLAlchemyError

    engine = create_engine(address)
    try:
        databases._safe_initialize_tables(engine)
        databases._verify_schema(engine)
    except (SQLAlchemyError, MlflowException) as error:
        what = make_url(address).render_as_string(hide_password=True)
        raise ValueError(
            f"{what} cannot be used: {error}; see whether it runs and holds nothing else"
        ) from error
    return engine


def _tables() -> "list[sqlalchemy.Table]":
    """Return MLflow's tables, each after those that it refers to."""
    import mlflow.store.model_registry.dbmodels.models
    import mlflow.store.tracking.dbmodels.models  # noqa: F401  both fill what is read next
    from mlflow.store.db.base_sql_model import Base

    return list(Base.metadata.sorted_tables)


def _refuse_a_used_one(target: "sqlalchemy.Connection") -> None:
    from sqlalchemy import func, select

    counts = {
        table.name: target.execute(select(func.count()).select_from(table)).scalar_one()
        for table in _tables()
    }
    if used := {name: count for name, count in counts.items() if count > (name in BORN_WITH_ONE_ROW)}:
        held = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sorted(used.items()))
        raise ValueError(f"the database holds records already ({held}); migrate into an empty one")


def _upload(source: "sqlalchemy.Connection", mlruns: Path, artifacts: str) -> None:
    """Copy the folders of `mlruns` that the records name; each lies where its location will say."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from sqlalchemy import text

    names: set[str] = set()
    for table, column in store.ARTIFACT_LOCATIONS:
        for (location,) in source.execute(text(f"SELECT DISTINCT {column} FROM {table}")):
            names |= {inside.partition("/")[0] for inside in [_inside(location, mlruns)] if inside}
    repository = get_artifact_repository(artifacts)
    for name in sorted(names):
        folder = mlruns / unquote(name)
        if folder.is_dir():
            repository.log_artifacts(str(folder), unquote(name))


def _copy(source: "sqlalchemy.Connection", target: "sqlalchemy.Connection", mlruns: Path) -> Migrated:
    from sqlalchemy import delete, insert, select

    tables = _tables()
    for table in reversed(tables):
        target.execute(delete(table))
    counts: dict[str, int] = {}
    num_left = 0
    for table in tables:
        columns = [column for of_table, column in store.ARTIFACT_LOCATIONS if of_table == table.name]
        rows = source.execution_options(yield_per=ROWS_AT_ONCE).execute(select(table))
        for part in rows.mappings().partitions():
            moved = [dict(row) | _moved(table.name, row, columns, mlruns) for row in part]
            target.execute(insert(table), moved)
            counts[table.name] = counts.get(table.name, 0) + len(moved)
            num_left += sum(_is_on_this_machine(row[column]) for row in moved for column in columns)
        _advance_numbering(target, table)
    return Migrated(
        num_runs=counts.get("runs", 0), num_versions=counts.get("model_versions", 0), num_left=num_left
    )


def _moved(table: str, row: Any, columns: list[str], mlruns: Path) -> dict[str, str]:
    """Return the columns of a row that state where artifacts lie, as clients of the server are to read them."""
    if table == "experiments" and row["experiment_id"] == DEFAULT_EXPERIMENT:
        return {"artifact_location": f"{PROXIED}{DEFAULT_EXPERIMENT}"}
    found = {column: _inside(row[column], mlruns) for column in columns}
    return {column: PROXIED + inside for column, inside in found.items() if inside}


def _inside(location: str | None, mlruns: Path) -> str | None:
    """Return a location relative to `mlruns`, as part of a URI; None where it is elsewhere."""
    here = f"{mlruns.as_uri()}/"
    return location.removeprefix(here) if location and location.startswith(here) else None


def _is_on_this_machine(location: str | None) -> bool:
    return bool(location) and str(location).startswith(("file:", "/"))


def _advance_numbering(target: "sqlalchemy.Connection", table: "sqlalchemy.Table") -> None:
    """Let PostgreSQL number the next row of a table after those that were copied with their numbers."""
    from sqlalchemy import text

    for column in table.columns:
        if column.autoincrement is True:
            largest = f"SELECT max({column.name}) FROM {table.name}"
            sequence = f"pg_get_serial_sequence('{table.name}', '{column.name}')"
            target.execute(text(f"SELECT setval({sequence}, greatest(({largest}), 1))"))
