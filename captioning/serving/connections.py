"""Connections to the service: how long one may take to say what it wants, and how much it may say."""

import asyncio
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
"""For the head of a request, from the connection's beginning on. Bodies have a time of their own, and a connection that
rests between two requests too (`timeout_keep_alive`)."""
MAX_HEAD_BYTES = 32 * 1024
MAX_CONNECTIONS = 2_000


class PatientConnection(H11Protocol):
    """uvicorn's connection, which ends when the head of a request does not come: uvicorn itself would wait for ever."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait."""
        super().connection_made(cast("asyncio.Transport", transport))
        self._head_timer: asyncio.TimerHandle | None = None
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Wait on, unless a head is there."""
        super().data_received(data)
        self._expect_head()

    def on_response_complete(self) -> None:
        """Wait for the next head."""
        super().on_response_complete()
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        is_waiting = self.conn.their_state is h11.IDLE and self.timeout_keep_alive_task is None
        if not is_waiting:
            self._stop_waiting()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(
                b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            )
            self.transport.close()


def options() -> dict[str, Any]:
    """Return what uvicorn is to be run with.

    X-Forwarded-For is read by `rates`, from trusted proxies only; uvicorn would believe anyone on this machine.
    """
    return {
        "http": PatientConnection,
        "ws": "none",
        "h11_max_incomplete_event_size": MAX_HEAD_BYTES,
        "limit_concurrency": MAX_CONNECTIONS,
        "proxy_headers": False,
        "server_header": False,
    }
