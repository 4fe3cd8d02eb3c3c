"""Where MLflow keeps its records, and how they are opened: `mlruns/mlflow.db` of this home, or a server.

`MLFLOW_TRACKING_URI` in the environment names a server; without it the SQLite database of `CAPTIONING_HOME`
is used, with the artifacts beside it. MLflow is imported where it is first needed (4 s).
"""

import fcntl
import importlib.util
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioning import home
from captioning.outputs import whole_file

if TYPE_CHECKING:
    from mlflow import MlflowClient

ARTIFACT_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Table and column of the artifact locations in MLflow's database (3.17)."""


def uri() -> str:
    """Return the tracking URI: `MLFLOW_TRACKING_URI`, else the SQLite database of this home."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home.mlruns() / 'mlflow.db'}"


def with_driver(address: str, driver: str) -> str:
    """Return the address of a PostgreSQL database with the driver to be used; any other database's as it is.

    Raises:
        ValueError: the driver is not installed.
    """
    scheme, _, rest = address.partition("://")
    if scheme.partition("+")[0] not in {"postgresql", "postgres"}:
        return address
    if importlib.util.find_spec(driver) is None:
        raise ValueError(f"PostgreSQL needs {driver}; install it with `pip install 'captioning[postgresql]'`")
    return f"postgresql+{driver}://{rest}"


def local_database() -> Path | None:
    """Return the SQLite file behind the tracking URI, or None where it names a server."""
    address = uri()
    return Path(address.removeprefix("sqlite:///")) if address.startswith("sqlite:///") else None


def client() -> "MlflowClient":
    """Return the client of runs and registry, with the database ready for use."""
    return _opened(uri())


def every(search: Callable[..., Any], *arguments: Any) -> Iterator[Any]:
    """Yield what one of the client's searches finds on all of its pages."""
    token: str | None = None
    while token != "":
        page = search(*arguments, page_token=token)
        yield from page
        token = page.token or ""


@contextmanager
def as_default_uri() -> Iterator[None]:
    """Make the tracking URI MLflow's default meanwhile, for those of its functions that take no client.

    `mlflow.set_tracking_uri` would export it for good: a later change of `CAPTIONING_HOME` would be ignored.
    """
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = uri()
    try:
        yield
    finally:
        del os.environ["MLFLOW_TRACKING_URI"]
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


@contextmanager
def in_words() -> Iterator[None]:
    """Raise what MLflow refuses during the block, or cannot do, as a message for the user.

    Raises:
        ValueError: with its first line and the next step.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        what, hint = str(error).partition("\n")[0], _next_step(error, uri(), "run again")
        raise ValueError(f"MLflow's records at {uri()}: {what}; {hint}") from error


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lock `name` of this home. A process gives it back when it ends, however it ends."""
    with (home.work("locks") / name).open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@cache
def _opened(address: str) -> "MlflowClient":
    """Open the records, once a process. Under a lock: several processes that create one database spoil it.

    Raises:
        ValueError: they cannot be opened.
    """
    from mlflow import MlflowClient

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    for chatty in ("mlflow", "alembic"):  # every failure is raised as well
        logging.getLogger(chatty).setLevel(logging.CRITICAL)
    try:
        with locked("mlflow"):
            if database := local_database():
                database.parent.mkdir(parents=True, exist_ok=True)
                if not database.exists():
                    _create(database)
                _follow_move(database)
            opened = MlflowClient(tracking_uri=address, registry_uri=address)
            _look_into(opened)
    except Exception as error:  # of the file system, SQLite, SQLAlchemy, MLflow or a server
        update = f"`mlflow db upgrade {address}` updates an old database, MLFLOW_TRACKING_URI names another"
        hint = _next_step(error, address, update)
        raise ValueError(f"MLflow's records at {address} cannot be opened: {error}; {hint}") from error
    return opened


def _create(database: Path) -> None:
    """Have MLflow make its tables elsewhere, and put them in place together.

    A process that is killed in the middle would leave some of them, from which MLflow cannot go on.
    """
    from mlflow import MlflowClient

    folder = database.parent / ".new"
    shutil.rmtree(folder, ignore_errors=True)  # of one that was killed
    folder.mkdir()
    address = f"sqlite:///{folder / database.name}"
    _look_into(MlflowClient(tracking_uri=address, registry_uri=address))
    with whole_file(database) as aside:
        aside.unlink(missing_ok=True)
        with (
            closing(sqlite3.connect(folder / database.name)) as made,
            closing(sqlite3.connect(aside)) as copy,
        ):
            made.backup(copy)
    shutil.rmtree(folder)


def _look_into(client: "MlflowClient") -> None:
    """Ask for something of runs and of the registry, which makes or checks their tables."""
    client.search_experiments(max_results=1)
    client.search_registered_models(max_results=1)


def _next_step(error: Exception, address: str, otherwise: str) -> str:
    if "disk is full" in str(error):
        return "free some space, and run again"
    if "database is locked" in str(error):
        return "another process has held it for long; end that, and run again"
    if address.startswith("http"):
        return "see whether its server runs (`captioning doctor`, docs/servers.md)"
    return otherwise


def _follow_move(database: Path) -> None:
    """Rewrite the artifact locations after the folder around `mlruns` moved: MLflow stores absolute ones.

    Without it a moved project would go on writing into the folder it came from.
    """
    if not database.exists() or database.parent.name != home.mlruns().name:
        return
    here = database.parent.as_uri() + "/"
    with closing(sqlite3.connect(database, timeout=20)) as connection, connection:
        connection.create_function("here", 1, lambda location: here + location.rpartition("/mlruns/")[2])
        tables = {
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        for table, column in ARTIFACT_LOCATIONS:
            if table in tables:
                stale = f"{column} LIKE 'file://%/mlruns/%' AND substr({column}, 1, {len(here)}) != ?"
                connection.execute(f"UPDATE {table} SET {column} = here({column}) WHERE {stale}", (here,))
