"""Every request: its id, one line in the log, its place in the measures; and none is taken any more once it ends."""

import logging
import re
import time
import uuid
from typing import TYPE_CHECKING, Any

from starlette.datastructures import MutableHeaders

from captioning.serving.measures import Measures
from captioning.serving.problems import Problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOG = logging.getLogger(__name__)

REQUEST_ID = "X-Request-ID"
KNOWN_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")
"""What a client or proxy may call a request; any other name is replaced."""
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
"""That are counted by name; a client may send any word, and each would be a series of its own for ever."""
OTHER_METHOD = "other"
ALWAYS_ANSWERED = {"/healthz", "/readyz", "/metrics"}
"""Also while the service ends; asked every few seconds, they are no news for the log."""
NO_ROUTE = "none"
CLIENT_GONE = 499
"""What the log says where nobody was left to answer; nginx's number for it."""


class Access:
    """ASGI middleware, the outermost.

    Args:
        app: what answers.
        measures: which count requests.
    """

    def __init__(self, app: "ASGIApp", measures: Measures) -> None:
        self._app, self._measures = app, measures

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer a request, or pass on what is none."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, began = _request_id(scope), time.perf_counter()
        status, is_begun = 500, False

        async def send_named(message: "Message") -> None:
            nonlocal status, is_begun
            if message["type"] == "http.response.start":
                status, is_begun = message["status"], True
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        scope.setdefault("state", {})["request_id"] = request_id
        self._measures.in_flight.inc()
        try:
            if scope["app"].state.is_stopping and scope["path"] not in ALWAYS_ANSWERED:
                await _stopping().response()(scope, receive, send_named)
            else:
                await self._app(scope, receive, send_named)
        except Exception:  # a defect
            LOG.exception("the request could not be answered", extra={"request_id": request_id})
            if is_begun:
                raise
            await _defect().response()(scope, receive, send_named)
        finally:
            self._measures.in_flight.dec()
            self._note(scope, status, request_id, time.perf_counter() - began)

    def _note(self, scope: "Scope", status: int, request_id: str, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", NO_ROUTE)
        method = scope["method"] if scope["method"] in METHODS else OTHER_METHOD
        self._measures.requests.labels(route, method, str(status)).inc()
        self._measures.seconds.labels(route).observe(seconds)
        state: dict[str, Any] = scope["state"]
        LOG.log(
            logging.DEBUG if scope["path"] in ALWAYS_ANSWERED else logging.INFO,
            "request",
            extra={
                "request_id": request_id,
                "method": scope["method"],
                "route": route,
                "status": status,
                "seconds": round(seconds, 4),
                "client": (scope.get("client") or [None])[0],
                **state.get("noted", {}),
            },
        )


def _request_id(scope: "Scope") -> str:
    stated = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"").decode(
        "latin-1"
    )
    return stated if KNOWN_ID.fullmatch(stated) else uuid.uuid4().hex


def _defect() -> Problem:
    return Problem(500, f"the service failed; its log says how, under the id in {REQUEST_ID}")


def _stopping() -> Problem:
    return Problem(
        503,
        "the service is stopping and takes no new requests; send it again, another instance or the next one answers",
        title="Stopping",
        headers={"Retry-After": "5", "Connection": "close"},
    )
