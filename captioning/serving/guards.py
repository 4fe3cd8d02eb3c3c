"""What is asked of every request before it is read: each guard lets it pass, or refuses it with a problem."""

from collections.abc import Sequence
from typing import Protocol

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from captioning.serving.problems import Problem
from captioning.serving.web_pictures import LOOP_HEADER, OWN_NAME

API = ("/captions", "/models", "/search")
"""Where these paths begin, a key is asked for and rates count; health, metrics and the page are for anyone."""


class Guard(Protocol):
    """A condition of requests."""

    def check(self, request: Request) -> None:
        """Let a request pass.

        Raises:
            Problem: it may not.
        """


class Guarded:
    """An application behind guards, asked in their order."""

    def __init__(self, app: ASGIApp, guards: Sequence[Guard]) -> None:
        self._app, self._guards = app, guards

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http":
            request = Request(scope)
            try:
                for guard in self._guards:
                    guard.check(request)
            except Problem as problem:
                await problem.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)


class NotOurselves:
    """Refuses what this service asked itself, by an address that leads back to it."""

    def check(self, request: Request) -> None:
        """Let a request of somebody else pass."""
        if OWN_NAME in request.headers.get(LOOP_HEADER, ""):
            raise Problem(403, "the address leads back to this service, which does not ask itself")


def is_api(request: Request) -> bool:
    """Return whether a request is for what the service does, rather than for its page or its health."""
    path = request.scope["path"]  # what routes see; an address is made of what the client says, too
    return any(path == own or path.startswith(f"{own}/") for own in API)
