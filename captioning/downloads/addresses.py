"""Which machines may be connected to: those of the public internet and, where a setting says so, any other.

The check is made on the very address that a connection goes to, of each name and after each redirect, so that a
name gains nothing by resolving to another address the second time. aiohttp calls `socket_factory` with exactly that
address; urllib and requests offer no such place.
"""

import contextlib
import ipaddress
import socket
import urllib.request
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from aiohttp import TCPConnector

GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that is given out of IPv6; Python calls public what was once local (fec0::/10) and what is not given out."""
NOT_PUBLIC = (ipaddress.IPv4Network("192.0.0.0/24"), ipaddress.IPv4Network("168.63.129.16"))
"""Not called private everywhere, though clouds answer there to their own machines alone: Oracle's metadata, and Azure's
agent."""
SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class PrivateAddress(OSError):
    """A connection to an address that is not of the public internet, refused before it was made."""


def connector(*, allow_private_addresses: bool, connections_per_host: int = 0) -> "TCPConnector":
    """Return what makes aiohttp's connections, to public addresses only unless told otherwise; 0 is no limit."""
    proxies = _proxies()

    def is_allowed(address: str, port: int) -> bool:
        return allow_private_addresses or is_public(address) or (address, port) in proxies

    return guarded_connector(is_allowed, limit_per_host=connections_per_host)


def guarded_connector(is_allowed: Callable[[str, int], bool], **options: Any) -> "TCPConnector":
    """Return what makes aiohttp's connections, to those IP addresses and ports only that `is_allowed`."""
    from aiohttp import TCPConnector

    def open_socket(place: tuple[Any, Any, int, str, tuple[Any, ...]]) -> socket.socket:
        family, kind, protocol, _, (address, port, *_) = place
        if not is_allowed(address, port):
            raise PrivateAddress(f"{address} is not an address of the public internet")
        return socket.socket(family, kind, protocol)

    return TCPConnector(socket_factory=open_socket, **{"limit": 0} | options)


def is_public(address: str) -> bool:
    """Return whether an IP address is of the public internet: not private, of this machine, link-local, multicast or
    reserved. An IPv4 address that an IPv6 one carries is judged instead.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if carried := _carried(ip):
            return is_public(str(carried))
        return ip in GLOBAL_UNICAST and ip.is_global
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in NOT_PUBLIC)


def _carried(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if ip in SIX_TO_FOUR:
        return ipaddress.IPv4Address(ip.packed[2:6])
    return ipaddress.IPv4Address(ip.packed[12:]) if ip in NAT64 else ip.ipv4_mapped


def _proxies() -> set[tuple[str, int]]:
    """Return the addresses of the environment's proxies (HTTPS_PROXY), which decide what lies behind them."""
    found: set[tuple[str, int]] = set()
    for scheme, proxy in urllib.request.getproxies().items():
        place = urlsplit(proxy)
        if scheme in {"http", "https"} and place.hostname:
            with contextlib.suppress(OSError):  # aiohttp will say it
                for *_, address in socket.getaddrinfo(place.hostname, place.port or 80):
                    found.add((str(address[0]), int(address[1])))
    return found
