"""The web server, uvicorn: it says where it listens, and ends in peace when it is told to."""

import asyncio
import signal
import socket
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from captioning.serving import connections, logs
from captioning.serving.settings import ServiceSettings

KEEP_ALIVE_SECONDS = 75
"""Longer than the minute that proxies keep a connection they may use again."""


class Server(uvicorn.Server):
    """Prints its address once it listens; the application learns that it is to end."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        if self.servers:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            print(f"captioning: serving at http://{shown}:{port}", flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Be no longer ready from the very signal on."""
        self._app.state.is_stopping = True
        super().handle_exit(sig, frame)


def serve(app: FastAPI, settings: ServiceSettings) -> None:
    """Serve until SIGTERM or SIGINT; what was accepted by then is answered, for up to `stop_seconds`."""
    logs.begin()
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(settings.stop_seconds)),
        **connections.options(settings.head_seconds),
    )
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, _nothing)  # uvicorn sends itself the signal once more when all is done
    asyncio.run(Server(config, app).serve())


def _nothing(*_arguments: Any) -> None:
    """Take a signal, and go on to the end."""
