"""How often a client may ask: a bucket of tokens for each API key, or for each address where there are no keys.

A bucket holds `burst` tokens and fills by the rate; a request takes one. Own code, since the library `limits` knows
windows, not buckets, and keeps every address that it ever saw in one of them.
"""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from starlette.requests import Request

from captioning.serving.guards import is_api
from captioning.serving.problems import Problem

MAX_CLIENTS = 50_000
"""Remembered, the latest ones: some 10 MB."""
IPV6_NETWORK = 64
"""Bits of an IPv6 address that belong to one client, who has all addresses behind them."""


class Rates:
    """Refuses requests that come too often.

    Args:
        per_minute: requests of one client, over a long time.
        burst: requests that may come at once.
        trusted_proxies: networks; what a request from there says of its client (X-Forwarded-For) is believed.
        now: seconds of a clock.
    """

    def __init__(
        self,
        per_minute: float,
        burst: int,
        trusted_proxies: Sequence[str],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_second, self._burst, self._now = per_minute / 60, burst, now
        self._proxies = trusted_proxies
        self._buckets: OrderedDict[object, tuple[float, float]] = OrderedDict()  # tokens, at which time

    def check(self, request: Request) -> None:
        """Let a request pass, and count it."""
        if not is_api(request):
            return
        client = request.scope.get("captioning.key") or client_address(request, self._proxies)
        tokens, then = self._buckets.pop(client, (float(self._burst), self._now()))
        now = self._now()
        tokens = min(self._burst, tokens + (now - then) * self._per_second)
        self._buckets[client] = (tokens - 1 if tokens >= 1 else tokens, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        if tokens < 1:
            seconds = math.ceil((1 - tokens) / self._per_second)
            raise Problem(
                429,
                f"more than {60 * self._per_second:g} requests a minute; send the next one in {seconds} s",
                headers={"Retry-After": str(seconds)},
            )


def client_address(request: Request, trusted_proxies: Sequence[str]) -> str:
    """Return whose request it is: the last address of X-Forwarded-For that is no trusted proxy's, read from the end.

    What stands before it was sent by the client, who can write anything there.
    """
    networks = [ipaddress.ip_network(own) for own in trusted_proxies]
    address = request.client.host if request.client else ""
    forwarded = ",".join(request.headers.getlist("x-forwarded-for")).split(",")
    while forwarded and _is_in(address, networks):
        stated = forwarded.pop().strip()
        if not _is_address(stated):
            break
        address = stated
    return _as_client(address)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_in(address: str, networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    return _is_address(address) and any(ipaddress.ip_address(address) in network for network in networks)


def _as_client(address: str) -> str:
    if not _is_address(address) or "%" in address:
        return address
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped:  # as proxies write that listen for both
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((ip, IPV6_NETWORK), strict=False))
    return address
