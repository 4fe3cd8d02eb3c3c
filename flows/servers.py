"""Prefect's and MLflow's servers, which live as long as the block that starts them.

Embedded they keep their records in SQLite and answer on the loopback address alone; a team's are told a PostgreSQL
database and the name by which other machines reach this one. Prefect's own temporary server survives the flow process
that started it when that is killed; one under the supervisor does not.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from captioning import home, store
from flows.orphans import under_supervisor

HOST = "127.0.0.1"
EVERY_INTERFACE = "0.0.0.0"
START_SECONDS = 120.0
"""Prefect needs 13 s on two cores; more when they are busy."""

NUM_LAST_LINES = 10


@dataclass(frozen=True, kw_only=True)
class Server:
    """What to start, and where it then answers."""

    name: str
    command: list[str]
    address: str
    """Of its web pages."""
    health_url: str
    """Answers as soon as the server is ready."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables that are set for it; addresses of databases too, which in a command line everybody could read."""


def prefect_server(port: int, *, host: str = HOST, database: str | None = None) -> Server:
    """Return Prefect's server; its API is at `address`/api.

    Args:
        port: it listens on.
        host: name of this machine for others; by default only this machine is answered.
        database: `postgresql://...`; by default what PREFECT_SERVER_DATABASE_CONNECTION_URL says, else SQLite in
            PREFECT_HOME.

    Raises:
        ValueError: the driver of PostgreSQL is not installed.
    """
    address = f"http://{host}:{port}"
    environment = _unless_set(
        {"PREFECT_UI_API_URL": f"{address}/api"}
    )  # the pages ask there, from any machine
    if database:
        environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = store.with_driver(database, "asyncpg")
    return Server(
        name="Prefect",
        command=[sys.executable, "-m", "prefect", "server", "start", *_place(host, port)],
        address=address,
        health_url=f"http://{HOST}:{port}/api/health",
        environment=environment,
    )


def mlflow_server(
    port: int, *, host: str = HOST, database: str | None = None, artifacts: str | None = None
) -> Server:
    """Return MLflow's server: the pages over this home's SQLite database, or with `database` a team's server.

    The latter hands artifacts on, so that only it needs to reach their place and to have credentials for it.

    Args:
        port: it listens on.
        host: name of this machine for others; by default only this machine is answered.
        database: `postgresql://...`, made ready on the first start.
        artifacts: `s3://BUCKET/FOLDER` or a folder; by default `mlruns/artifacts` of this home.

    Raises:
        ValueError: the driver of PostgreSQL is not installed, or SQLite would be served to other machines.
    """
    if database is None and (artifacts or host != HOST):
        raise ValueError(
            "MLflow for other machines, or with artifacts elsewhere, needs a database of its own: add "
            "--mlflow-database postgresql://USER@HOST/DATABASE"
        )
    if database is None:
        store.client()  # makes it under a lock: a server and a run that do so at the same time spoil it
        places = [
            "--no-serve-artifacts",
            f"--default-artifact-root={home.mlruns() / 'artifacts'}",
            "--workers=1",
        ]
        environment = {"MLFLOW_BACKEND_STORE_URI": store.uri()}
    else:
        places = [f"--artifacts-destination={artifacts or home.mlruns() / 'artifacts'}"]
        environment = {"MLFLOW_BACKEND_STORE_URI": store.with_driver(database, "psycopg")}
    address = f"http://{host}:{port}"
    wanted = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # seven processes more, to judge language models
    if host != HOST:
        wanted |= {
            "MLFLOW_SERVER_ALLOWED_HOSTS": f"{host},{host}:{port},localhost:{port},{HOST}:{port}",
            "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": address,
        }
    environment |= _unless_set(wanted)
    return Server(
        name="MLflow",
        command=[sys.executable, "-m", "mlflow", "server", *_place(host, port), *places],
        address=address,
        health_url=f"http://{HOST}:{port}/health",
        environment=environment,
    )


def _place(host: str, port: int) -> list[str]:
    """Return where to listen: on every interface once there is a name for other machines."""
    return [f"--host={HOST if host == HOST else EVERY_INTERFACE}", f"--port={port}"]


def _unless_set(values: dict[str, str]) -> dict[str, str]:
    return {name: os.environ.get(name, value) for name, value in values.items()}


@contextmanager
def serving(server: Server) -> Iterator[subprocess.Popen[bytes]]:
    """Run `server` with its output in `.work/servers/NAME.log`, and end it on leaving."""
    with (
        log_file(server).open("wb") as log,
        under_supervisor(server.command, env=os.environ | server.environment, stdout=log) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            process.wait()  # leaving the block would not, after Ctrl-C


def wait_for_answer(server: Server, process: subprocess.Popen[bytes]) -> None:
    """Return once the server answers.

    Raises:
        ValueError: it ended or did not answer in time; the message has its last lines.
    """
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(server.health_url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise ValueError(describe_end(server, process))


def describe_end(server: Server, process: subprocess.Popen[bytes]) -> str:
    """Say that a server ended or did not answer, with its last lines."""
    code = process.poll()
    what = f"did not answer within {START_SECONDS:.0f} s" if code is None else f"ended with exit code {code}"
    log = log_file(server)
    last_lines = log.read_text(errors="replace").splitlines()[-NUM_LAST_LINES:]
    return "\n".join([f"the {server.name} server {what}; the end of {log}:", *last_lines])


def log_file(server: Server) -> Path:
    """Return the file that holds what the server prints."""
    return home.work("servers") / f"{server.name.lower()}.log"


def free_port(preferred: int = 0) -> int:
    """Return `preferred` where nothing listens on it, otherwise a port that is free now."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ValueError(f"no free port on {HOST}")
