"""Prefect's and MLflow's web pages: of this machine's own records (`make ui`), or of a team's servers.

    python -m flows.ui
    python -m flows.ui prefect --prefect-database postgresql://... --host NAME
    python -m flows.ui mlflow --mlflow-database postgresql://... --artifacts s3://BUCKET/FOLDER --host NAME

Ready after 15 to 60 seconds; prints the addresses, and what to export for runs to use them, and serves until Ctrl-C.
With Prefect's pages on this machine alone it also serves the reports of runs that they link to.
For a team: docs/servers.md.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from types import FrameType

from captioning import store
from flows import pages
from flows.servers import (
    HOST,
    Server,
    describe_end,
    free_port,
    mlflow_server,
    prefect_server,
    serving,
    wait_for_answer,
)

PREFECT_PORT = 4200
MLFLOW_PORT = 5000
"""The tools' usual ports; others are taken where these are in use, unless they are stated or others are told."""

SERVERS = ("prefect", "mlflow")


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until Ctrl-C or SIGTERM, or until one of the servers ends."""
    options = _parser().parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a background job inherits it ignored
        signal.signal(number, _interrupt)
    try:
        serve(options)
    except KeyboardInterrupt:
        print("\nstopped")
    except ValueError as error:
        sys.exit(f"ui: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flows.ui", description="Prefect's and MLflow's web pages."
    )
    parser.add_argument("servers", nargs="*", metavar="prefect|mlflow", help="default: both")
    parser.add_argument(
        "--host", default=HOST, metavar="NAME", help="name of this machine for others (default: no others)"
    )
    variables = ("PREFECT_SERVER_DATABASE_CONNECTION_URL", "MLFLOW_BACKEND_STORE_URI")
    for name, variable, port in zip(SERVERS, variables, (PREFECT_PORT, MLFLOW_PORT), strict=True):
        parser.add_argument(
            f"--{name}-database",
            default=os.environ.get(variable),
            metavar="ADDRESS",
            help=f"postgresql://USER@HOST/DATABASE (default: {variable}, else SQLite)",
        )
        parser.add_argument(f"--{name}-port", type=int, metavar="PORT", help=f"default: {port}")
    parser.add_argument(
        "--artifacts",
        default=os.environ.get("MLFLOW_ARTIFACTS_DESTINATION"),
        metavar="ADDRESS",
        help="where MLflow puts them: s3://BUCKET/FOLDER (default: MLFLOW_ARTIFACTS_DESTINATION, else a folder)",
    )
    return parser


def serve(options: argparse.Namespace) -> None:
    """Start the servers, print where they are, and wait.

    Raises:
        ValueError: a server cannot be started, or ended.
    """
    servers = _servers(options)
    print("Starting the servers (15 to 60 s)", flush=True)
    with ExitStack() as stack:
        running = [(server, stack.enter_context(serving(server))) for server in servers]
        for server, process in running:
            wait_for_answer(server, process)
            print(f"{server.name:8}{server.address}")
        reports = _serve_reports(stack, servers, options.host)
        for server in servers:
            if server.name == "Prefect":
                print(f"to follow a run here: export PREFECT_API_URL={server.address}/api{reports}")
            elif options.mlflow_database:
                print(f"to record a run here: export MLFLOW_TRACKING_URI={server.address}")
        print(f"Ctrl-C stops {'both' if len(servers) > 1 else 'it'}", flush=True)
        while all(process.poll() is None for _, process in running):
            time.sleep(0.5)
        raise ValueError("; ".join(describe_end(*pair) for pair in running if pair[1].poll() is not None))


def _serve_reports(stack: ExitStack, servers: Sequence[Server], host: str) -> str:
    """Serve what Prefect's pages link to, until the stack is left; return what else a run is told.

    Other machines are not answered: there a web server does this (docs/operations.md).
    """
    if host != HOST or all(server.name != "Prefect" for server in servers):
        return ""
    url = stack.enter_context(pages.served())
    print(f"reports of runs {url}")
    return f" {pages.URL_VARIABLE}={url}"


def _servers(options: argparse.Namespace) -> list[Server]:
    """Describe the servers to start.

    Raises:
        ValueError: there is no such server, or one is told what it cannot do.
    """
    if unknown := set(options.servers) - set(SERVERS):
        raise ValueError(f"no server {', '.join(sorted(unknown))}; there are {' and '.join(SERVERS)}")
    servers = []
    if "prefect" in (options.servers or SERVERS):
        port = _port(options.prefect_port, PREFECT_PORT, options.host)
        servers.append(prefect_server(port, host=options.host, database=options.prefect_database))
    if "mlflow" in (options.servers or SERVERS):
        _refuse_the_records_of_another_server(options.mlflow_database)
        port = _port(options.mlflow_port, MLFLOW_PORT, options.host)
        servers.append(
            mlflow_server(
                port, host=options.host, database=options.mlflow_database, artifacts=options.artifacts
            )
        )
    return servers


def _port(stated: int | None, usual: int, host: str) -> int:
    """Return the port to listen on: no other than was stated, or than other machines expect."""
    if stated is not None or host != HOST:
        return stated or usual
    return free_port(usual)


def _refuse_the_records_of_another_server(database: str | None) -> None:
    if database is None and store.local_database() is None:
        raise ValueError(
            f"MLflow's records are at {store.uri()}, so open that; `python -m flows.ui prefect` serves Prefect's "
            "alone, and without MLFLOW_TRACKING_URI this project's own are served"
        )


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
