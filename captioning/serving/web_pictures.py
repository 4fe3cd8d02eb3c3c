"""An http or https address -> the bytes behind it: public addresses only, bounded in size, time and redirects."""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from captioning.downloads.addresses import PrivateAddress, guarded_connector
from captioning.serving.addresses import NO_ADDRESS, Rules
from captioning.serving.problems import Problem

REDIRECTS = {301, 302, 303, 307, 308}
CHUNK_BYTES = 1 << 16
NUM_CONNECTIONS, CONNECTIONS_PER_HOST = 32, 4
"""All requests together: nobody makes this service a burden to others."""
NUM_LOOKUPS = 8
"""Names resolved at the same time; a slow name server holds up no other work."""
OWN_NAME = "captioning-serve"
LOOP_HEADER = "CDN-Loop"
"""Says whose request it is (RFC 8586): the service refuses what it asked itself."""
NO_PICTURE_BEHIND = "No picture behind the address"


class WebPictures:
    """What fetches pictures for requests, over one set of connections.

    Args:
        rules: which addresses may be asked.
        max_bytes: of a picture.
        max_seconds: for a whole picture, redirects included.
        max_redirects: followed from one address.
    """

    def __init__(self, rules: Rules, *, max_bytes: int, max_seconds: float, max_redirects: int) -> None:
        self._rules = rules
        self._max_bytes, self._max_seconds, self._max_redirects = max_bytes, max_seconds, max_redirects

    async def __aenter__(self) -> Self:
        self._resolver = _Resolver()
        connections = guarded_connector(
            self._rules.is_allowed,
            limit=NUM_CONNECTIONS,
            limit_per_host=CONNECTIONS_PER_HOST,
            resolver=self._resolver,
            use_dns_cache=False,  # a name is judged as it resolves now
        )
        self._session = aiohttp.ClientSession(
            connector=connections,
            headers={
                "User-Agent": f"{OWN_NAME}/0.1",
                "Accept": "image/*",
                "Accept-Encoding": "identity",
                LOOP_HEADER: OWN_NAME,
            },
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # or a few bytes would become many
            trust_env=False,  # neither credentials from ~/.netrc nor a proxy, which would connect in our place
        )
        return self

    async def __aexit__(
        self, _kind: type | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self._session.close()
        await self._resolver.close()

    async def fetch(self, address: str) -> bytes:
        """Return what an address answers.

        Raises:
            Problem: 403 it may not be asked, 413 it is too large, 415 it is a web page, 422 it is no address,
                424 it does not answer with a file.
        """
        try:
            async with asyncio.timeout(self._max_seconds):
                return await self._follow(address)
        except TimeoutError:
            raise _failed(address, f"did not answer within {self._max_seconds:g} seconds") from None
        except aiohttp.InvalidURL:
            sentence = f"{address[:200]!r} is no address: its server is not named as one"
            raise Problem(422, sentence, title=NO_ADDRESS) from None
        except aiohttp.ClientError as error:
            cause = getattr(error, "os_error", error)
            if isinstance(cause, PrivateAddress):
                raise self._rules.private(address) from None
            raise _failed(address, _why(error)) from None
        except (OSError, ValueError) as error:
            raise _failed(address, f"could not be read ({type(error).__name__})") from None

    async def _follow(self, address: str) -> bytes:
        place = address
        for _ in range(self._max_redirects + 1):
            url = self._rules.web(place)
            async with self._session.get(url, allow_redirects=False) as response:
                if response.status not in REDIRECTS:
                    return await self._read(response, address)
                place = str(url.join(URL(response.headers.get("Location", ""))))
        raise _failed(address, f"leads through more than {self._max_redirects} redirects")

    async def _read(self, response: aiohttp.ClientResponse, address: str) -> bytes:
        if response.status != 200:
            raise _failed(address, f"answered {response.status}")
        if response.content_type in {"text/html", "application/xhtml+xml"}:
            sentence = f"{address[:200]!r} is a web page; give the address of the picture itself"
            raise Problem(415, sentence, title="Not a picture")
        if (response.content_length or 0) > self._max_bytes:
            raise too_large(address, self._max_bytes)
        encoded = bytearray()
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            encoded += chunk
            if len(encoded) > self._max_bytes:
                raise too_large(address, self._max_bytes)
        return bytes(encoded)


class _Resolver(AbstractResolver):
    """Names -> IP addresses as the system resolves them, in threads of its own."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(NUM_LOOKUPS, thread_name_prefix="resolve")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return every address of a name."""
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
        )
        return [
            ResolveResult(
                hostname=host,
                host=str(place[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, place in found
        ]

    async def close(self) -> None:
        """Let no further name be resolved."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def too_large(name: str, max_bytes: int) -> Problem:
    """Return the refusal of a file that has more bytes than it may."""
    sentence = f"{name[:200]!r} has more than {max_bytes:,} bytes; send a smaller picture"
    return Problem(413, sentence, title="Too large")


def _failed(address: str, why: str) -> Problem:
    sentence = f"{address[:200]!r} {why}; check the address, or send the picture itself"
    return Problem(424, sentence, title=NO_PICTURE_BEHIND)


def _why(error: aiohttp.ClientError) -> str:
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "names a server that is not known"
        case aiohttp.ClientConnectorCertificateError():
            return "has a certificate that cannot be trusted"
        case aiohttp.ClientPayloadError():
            return "ended before its end"
        case _:
            return f"could not be read ({type(error).__name__})"
