"""Headers of every answer: what a browser may do with it."""

from collections.abc import Sequence

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from captioning.serving.guards import Guard, Guarded, NotOurselves
from captioning.serving.hosts import Hosts
from captioning.serving.keys import Keys
from captioning.serving.rates import Rates
from captioning.serving.settings import ServiceSettings

CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "font-src 'self'",
        "connect-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
"""Nothing from outside, nothing inline; blob: and data: are pictures that the page shows before it sends them."""
UNUSED = (
    "accelerometer",
    "camera",
    "display-capture",
    "geolocation",
    "gyroscope",
    "microphone",
    "payment",
    "usb",
)
"""Powers of a page that ours does without."""
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": ", ".join(f"{power}=()" for power in UNUSED),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
UNLESS_SET = {"Cache-Control": "no-store"}
"""Captions are somebody's; the page's files say themselves that they may be kept."""


def install(app: FastAPI, settings: ServiceSettings) -> Keys:
    """Put the guards and the headers around an application; return the keys that it asks for.

    Raises:
        ValueError: the keys cannot be read.
    """
    keys = Keys(settings.keys_file)
    guards: list[Guard] = [NotOurselves(), Hosts(settings.allowed_hosts, settings.cors_origins), keys]
    if settings.requests_per_minute:
        guards.append(Rates(settings.requests_per_minute, settings.burst, settings.trusted_proxies))
    app.add_middleware(Guarded, guards=guards)
    if (
        settings.cors_origins
    ):  # around the guards: a browser shows a refusal to its page only with these headers
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key"],
            expose_headers=["Retry-After"],
        )
    app.add_middleware(SecurityHeaders, origins=settings.cors_origins)
    return keys


class SecurityHeaders:
    """Adds the headers to each answer.

    Args:
        origins: of other pages that may use the service.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app = app
        self._headers = HEADERS | {
            "Cross-Origin-Resource-Policy": "cross-origin" if origins else "same-origin"
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(self._headers)
                for name, value in UNLESS_SET.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)
