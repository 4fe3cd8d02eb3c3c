"""Ends a run that nobody else ends any more: its runner was killed, or no longer hears the server.

Prefect cancels a run by its runner, the process that serves or works for a pool. A runner that was killed leaves its
run going, and one whose server was away for minutes may not hear of a cancel. So the run looks after itself.
"""

import contextvars
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run

SECONDS_BETWEEN_LOOKS = 10.0
"""At the state on the server."""
POLL_SECONDS = 1.0
"""Between two looks whether the runner lives."""


class Watch:
    """What a run knows of its end."""

    def __init__(self, run_id: Any) -> None:
        self._run_id = run_id
        self._was_seen = False

    @property
    def is_cancelled(self) -> bool:
        """Return whether the server has it cancelled, whoever ended it.

        Prefect's runner tells a run so by a channel of its own, which our handler of SIGTERM closes: the run would pass
        for crashed until the runner puts that right, and whoever is told of crashes would be told of it.
        """
        self._was_seen = self._was_seen or _is_cancelled(self._run_id)
        return self._was_seen


@contextmanager
def watched() -> Iterator[Watch]:
    """End this process's run by SIGTERM, as Prefect does, when its runner dies or the server has it cancelled.

    To be entered in the main thread, in a flow. A run that no runner started, as one from a terminal, has no runner to
    watch. While the run ends further SIGTERMs are passed over: they would interrupt its tidying.
    """
    run_id = flow_run.id
    watch, ending, ended = Watch(run_id), threading.Event(), threading.Event()
    parent = os.getppid()
    before = signal.getsignal(signal.SIGTERM)

    def once(number: int, frame: FrameType | None) -> None:
        if not ending.is_set():
            ending.set()
            if callable(before):
                before(number, frame)
            else:
                raise TerminationSignal(signal=number)

    def look() -> None:
        next_look = SECONDS_BETWEEN_LOOKS
        while not ended.wait(POLL_SECONDS) and not ending.is_set():
            next_look -= POLL_SECONDS
            has_to_end = has_runner and os.getppid() != parent
            if next_look <= 0:
                next_look = SECONDS_BETWEEN_LOOKS
                has_to_end = has_to_end or watch.is_cancelled
            if has_to_end:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    has_runner = "PREFECT__FLOW_RUN_ID" in os.environ
    signal.signal(signal.SIGTERM, once)
    settings = contextvars.copy_context()  # in which the server's address may stand
    threading.Thread(target=settings.run, args=(look,), name="watch", daemon=True).start()
    try:
        yield watch
    finally:
        ended.set()
        signal.signal(signal.SIGTERM, before)


def _is_cancelled(run_id: Any) -> bool:
    """Tell whether the server has the run cancelled; a server that does not answer says nothing."""
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(str(run_id))).state
    except Exception:  # whatever goes wrong with a look, the run is worth more
        return False
    return state is not None and (state.is_cancelling() or state.is_cancelled())
