"""Servers on the loopback address that live as long as the block that starts them.

Prefect's own temporary server survives the flow process that started it when that is killed; one under the
supervisor does not.
"""

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from captioning import home, store
from flows.supervisor import supervised

HOST = "127.0.0.1"
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


def prefect_server(port: int) -> Server:
    """Return Prefect's server over the database in PREFECT_HOME; its API is at `address`/api."""
    command = [sys.executable, "-m", "prefect", "server", "start", f"--host={HOST}", f"--port={port}"]
    address = f"http://{HOST}:{port}"
    return Server(name="Prefect", command=command, address=address, health_url=f"{address}/api/health")


def mlflow_server(port: int) -> Server:
    """Return MLflow's pages over the runs and models of this home; its database is made if absent."""
    store.client()  # makes it under a lock: a server and a run that do so at the same time spoil it
    stores = [f"--backend-store-uri={store.uri()}", f"--default-artifact-root={home.mlruns() / 'artifacts'}"]
    place = [f"--host={HOST}", f"--port={port}", "--workers=1"]
    command = [sys.executable, "-m", "mlflow", "server", *stores, "--no-serve-artifacts", *place]
    address = f"http://{HOST}:{port}"
    return Server(name="MLflow", command=command, address=address, health_url=f"{address}/health")


@contextmanager
def serving(server: Server) -> Iterator[subprocess.Popen[bytes]]:
    """Run `server` with its output in `.work/servers/NAME.log`, and end it on leaving."""
    with (
        log_file(server).open("wb") as log,
        subprocess.Popen(
            supervised(server.command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is ours to pass on, after the last words to the server
        ) as process,
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
