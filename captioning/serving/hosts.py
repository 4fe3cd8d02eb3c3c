"""Which names the service is reached by, and which pages use it: a page of someone else's must not, in a browser.

A browser sends requests of any page to any address that it can reach, also to a service that only its user's network
can. Two things give such a request away: a `Host` that is a name of the outside (which was made to resolve to a private
address), and an `Origin` or `Sec-Fetch-Site` of another site.
"""

import ipaddress
from collections.abc import Collection

from starlette.requests import Request

from captioning.serving.guards import is_api
from captioning.serving.problems import Problem

LOCAL_ENDINGS = (".localhost", ".local", ".internal", ".lan", ".home.arpa", ".test")
"""Of names that nobody can register on the internet; nor can they one without a dot."""
SAME_SITE = {"same-origin", "none"}
"""Values of Sec-Fetch-Site of our own page, and of a person who typed the address."""


class Hosts:
    """Refuses a `Host` that is neither local nor named, and requests of pages that are not ours.

    Args:
        allowed_hosts: names that the service is reached by, without a port.
        origins: of other pages that may use the service, such as https://example.org.
    """

    def __init__(self, allowed_hosts: Collection[str], origins: Collection[str]) -> None:
        self._allowed = {own.lower() for own in allowed_hosts}
        self._origins = {own.lower().rstrip("/") for own in origins}

    def check(self, request: Request) -> None:
        """Let a request pass that came by a known name, from our own page or from no page."""
        host = request.headers.get("host", "").lower()
        if host and not self._is_known(_without_port(host)):
            raise Problem(
                400,
                f"this service is not known as {_without_port(host)[:200]!r}; start it with the setting allowed_hosts",
                title="Unknown host",
            )
        if is_api(request) and not self._is_from_a_known_page(request, host):
            raise Problem(
                403,
                f"a page of another site ({request.headers.get('origin', 'not named')[:200]}) may not use this "
                "service; the setting cors_origins allows it",
                title="Cross-site request",
            )

    def _is_known(self, name: str) -> bool:
        if name in self._allowed or "." not in name or name.endswith(LOCAL_ENDINGS):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _is_from_a_known_page(self, request: Request, host: str) -> bool:
        site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
        if origin is not None and origin.lower() in self._origins:
            return True
        if site is not None:
            return site in SAME_SITE
        return origin is None or _plain(origin.lower().partition("://")[2]) == _plain(host)


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].removesuffix(".")


def _plain(host: str) -> str:
    return host.removesuffix(":443").removesuffix(":80")
