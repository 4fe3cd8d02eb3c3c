"""Prefect's and MLflow's web pages on this machine (`make ui`).

    python -m flows.ui

Ready after 15 to 60 seconds; prints the addresses and serves until Ctrl-C. A run reports to these pages
when it is started with PREFECT_API_URL as printed.
"""

import signal
import sys
import time
from contextlib import ExitStack
from types import FrameType

from flows.servers import describe_end, free_port, mlflow_server, prefect_server, serving, wait_for_answer

PREFECT_PORT = 4200
MLFLOW_PORT = 5000
"""The tools' usual ports; others are taken where these are in use."""


def main() -> None:
    """Serve until Ctrl-C or SIGTERM, or until one of the servers ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a background job inherits it ignored
        signal.signal(number, _interrupt)
    try:
        serve()
    except KeyboardInterrupt:
        print("\nstopped")
    except ValueError as error:
        sys.exit(f"ui: {error}")


def serve() -> None:
    """Start both servers, print where they are, and wait.

    Raises:
        ValueError: a server did not start, or ended.
    """
    print("Starting the servers (15 to 60 s)", flush=True)
    running = []
    with ExitStack() as stack:
        for describe, port in ((prefect_server, PREFECT_PORT), (mlflow_server, MLFLOW_PORT)):
            server = describe(free_port(port))
            running.append((server, stack.enter_context(serving(server))))
        for server, process in running:
            wait_for_answer(server, process)
            print(f"{server.name:8}{server.address}")
        print(f"to follow a run here: export PREFECT_API_URL={running[0][0].address}/api")
        print("Ctrl-C stops both", flush=True)
        while all(process.poll() is None for _, process in running):
            time.sleep(0.5)
        raise ValueError("; ".join(describe_end(*pair) for pair in running if pair[1].poll() is not None))


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
