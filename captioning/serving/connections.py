"""Connections to the service: how long one may take to say what it wants, and how much it may say."""

import asyncio
from typing import Any, ClassVar, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from captioning.serving.problems import MEDIA_TYPE, Problem

MAX_HEAD_BYTES = 32 * 1024
MAX_CONNECTIONS = 2_000
UNREAD_SECONDS = 60.0
"""In which a client must have read some of an answer that waits for it."""


class PatientConnection(H11Protocol):
    """uvicorn's connection, which ends when a request does not: uvicorn itself would wait for its head for ever, read
    what follows a body that was refused for ever, and keep an answer for ever that nobody reads.
    """

    seconds: ClassVar[float]
    """For the head of a request, and for the rest of a body after the answer."""
    unread_seconds: ClassVar[float] = UNREAD_SECONDS

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait."""
        super().connection_made(cast("asyncio.Transport", transport))
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._wait_or_not()

    def data_received(self, data: bytes) -> None:
        """Wait on, unless all is there."""
        super().data_received(data)
        self._wait_or_not()

    def on_response_complete(self) -> None:
        """Wait for the rest of the body, or the next head, and for the answer to be read."""
        super().on_response_complete()
        self._wait_or_not()
        self._wait_for_reader()

    def pause_writing(self) -> None:
        """Wait for the answer so far to be read."""
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        """Wait no longer: it is being read."""
        super().resume_writing()
        self._stop_waiting_for_reader()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._stop_waiting()
        self._stop_waiting_for_reader()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP as other requests are answered."""
        self._end_with(
            Problem(
                400, f"{msg.rstrip('.')}: its head is malformed or has more than {MAX_HEAD_BYTES:,} bytes"
            )
        )

    def _wait_or_not(self) -> None:
        state, is_answered = self.conn.their_state, self.cycle is not None and self.cycle.response_complete
        is_head_missing = state is h11.IDLE and self.timeout_keep_alive_task is None
        if not (is_head_missing or (state is h11.SEND_BODY and is_answered)):
            self._stop_waiting()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        if self.transport.is_closing():
            return
        if self.conn.their_state is h11.IDLE:
            self._end_with(
                Problem(408, f"the head of the request did not come within {self.seconds:g} seconds")
            )
        else:
            self.transport.close()

    def _wait_for_reader(self) -> None:
        self._stop_waiting_for_reader()
        if num_bytes := self.transport.get_write_buffer_size():
            self._unread = self.loop.call_later(self.unread_seconds, self._give_up_reader, num_bytes)

    def _stop_waiting_for_reader(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _give_up_reader(self, num_before: int) -> None:
        if self.transport.get_write_buffer_size() < num_before:
            self._wait_for_reader()
        else:
            self.transport.abort()  # to close would be to wait for it again

    def _end_with(self, problem: Problem) -> None:
        response = problem.response()
        head = f"HTTP/1.1 {problem.status} {problem.title}\r\nContent-Type: {MEDIA_TYPE}\r\n"
        head += f"Content-Length: {len(response.body)}\r\nConnection: close\r\n\r\n"
        self.transport.write(head.encode() + bytes(response.body))
        self.transport.close()


def options(head_seconds: float) -> dict[str, Any]:
    """Return what uvicorn is to be run with.

    X-Forwarded-For is read by `rates`, from trusted proxies only; uvicorn would believe anyone on this machine.
    """
    return {
        "http": type("Connection", (PatientConnection,), {"seconds": head_seconds}),
        "ws": "none",
        "h11_max_incomplete_event_size": MAX_HEAD_BYTES,
        "limit_concurrency": MAX_CONNECTIONS,
        "proxy_headers": False,
        "server_header": False,
    }
