"""Connections to the service, beyond what a request can do to it."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from captioning.serving import connections

LIMIT_SECONDS = 60.0
ANSWER = bytes(20_000_000)


class Server:
    """uvicorn in a thread, with the service's connections."""

    def __init__(self, unread_seconds: float) -> None:
        options = connections.options(head_seconds=LIMIT_SECONDS)
        options["http"] = type("Connection", (options["http"],), {"unread_seconds": unread_seconds})
        config = uvicorn.Config(
            self._app, port=0, interface="asgi3", log_config=None, lifespan="off", **options
        )
        self.uvicorn = uvicorn.Server(config)

    async def _app(self, _scope: Any, _receive: Any, send: Any) -> None:
        length = str(len(ANSWER)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": ANSWER})

    def ask(self) -> socket.socket:
        """Return a connection that has asked, and holds little of the answer."""
        place = self.uvicorn.servers[0].sockets[0].getsockname()
        asking = socket.socket()
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asking.connect(place)
        asking.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return asking

    @property
    def num_connections(self) -> int:
        return len(self.uvicorn.server_state.connections)


def until(is_so: Any) -> None:
    end = time.monotonic() + LIMIT_SECONDS
    while not is_so():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


@contextmanager
def running(unread_seconds: float) -> Iterator[Server]:
    server = Server(unread_seconds)
    thread = threading.Thread(target=server.uvicorn.run)
    thread.start()
    try:
        until(lambda: server.uvicorn.started)
        yield server
    finally:
        server.uvicorn.should_exit = server.uvicorn.force_exit = True
        thread.join()


def test_an_answer_that_nobody_reads_is_not_kept() -> None:
    with running(unread_seconds=0.2) as server, server.ask() as asking:
        asking.settimeout(LIMIT_SECONDS)
        assert asking.recv(12) == b"HTTP/1.1 200"  # it has begun
        until(lambda: server.num_connections == 0)


def test_an_answer_that_is_read_slowly_comes_whole() -> None:
    with running(unread_seconds=1.5) as server, server.ask() as asking:
        asking.settimeout(LIMIT_SECONDS)
        num_bytes, began = 0, time.monotonic()
        while num_bytes < len(ANSWER):
            if num_bytes > len(ANSWER) * (time.monotonic() - began) / 2.5:
                time.sleep(0.01)
                continue
            piece = asking.recv(200_000)
            assert piece, f"it ended after {num_bytes:,} bytes, {time.monotonic() - began:.1f} s"
            num_bytes += len(piece)
        assert time.monotonic() - began > 1.5
