"""The Prefect server that a flow reports to: the configured one, or one of its own."""

import atexit
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.servers import free_port, prefect_server, serving, wait_for_answer

has_own_server = False
"""This process started the server, which ends with it: nobody can be asked in its pages."""


def connect(preferred_port: int = 0) -> str:
    """Reach the configured Prefect server, or start one for this process where none is configured; return its address.

    The latter ends after Prefect has sent its last logs, which happens when the interpreter exits: handlers
    registered first run last.

    Raises:
        ValueError: there is no answer; the message says what to do.
    """
    if url := PREFECT_API_URL.value():
        with get_client(sync_client=True) as client:
            if problem := client.api_healthcheck():
                raise ValueError(
                    f"no Prefect server answers at {url} ({problem}): start one there (`make ui`), or unset "
                    "PREFECT_API_URL to have one started for this run"
                )
        return str(url).removesuffix("/api")
    print("Starting a Prefect server for this run (10 to 30 s)", file=sys.stderr)
    server = prefect_server(free_port(preferred_port))
    stack = ExitStack()
    atexit.register(stack.close)
    global has_own_server  # noqa: PLW0603
    has_own_server = True
    wait_for_answer(server, stack.enter_context(serving(server)))
    stack.enter_context(temporary_settings({PREFECT_API_URL: f"{server.address}/api"}))
    return server.address


@contextmanager
def connected() -> Iterator[None]:
    """Run flows in the block against the server that `connect` reaches.

    Raises:
        ValueError: there is no answer, or at some point no longer, for longer than Prefect asks again.
    """
    connect()
    try:
        yield
    except httpx.HTTPError as error:
        raise ValueError(
            f"Prefect's server at {PREFECT_API_URL.value()} no longer answers ({error}); what is done stays done: "
            "run again once it does (`captioning doctor` looks)"
        ) from error
