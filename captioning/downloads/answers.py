"""Addresses (http, https, file, s3, gs, az, ...) -> what they answer, in pieces, from any byte on.

http goes through aiohttp, for the sake of addresses.py; everything else through fsspec, with credentials from the
environment.
"""

import asyncio
import contextlib
import email.utils
import hashlib
import re
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

from captioning.downloads.addresses import PrivateAddress, connector

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

T = TypeVar("T")

FIRST_PAUSE_SECONDS = 1.0
"""Before the second attempt; doubled before each further one, up to a minute."""
MAX_PAUSE_SECONDS = 120.0
"""A server that asks for a longer one (Retry-After) is not asked again."""
MAX_REDIRECTS = 10
CHUNK_BYTES = 1 << 20
USER_AGENT = "captioning-download/0.1"


class FetchError(OSError):
    """Something that could not be fetched.

    `reason` is a fixed word to count by; `is_lasting` says that another attempt would end the same way;
    `pause_seconds` is how long the server asks to be left alone.
    """

    def __init__(self, reason: str, sentence: str, *, is_lasting: bool, pause_seconds: float = 0.0) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.is_lasting = is_lasting
        self.pause_seconds = pause_seconds


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What an address answers, while it is being read."""

    start: int
    """Which byte of the whole comes first: the one asked for, or 0 where the whole is sent anew."""
    num_bytes: int | None
    """Of the whole, where it is said."""
    validator: str
    """Stays the same while the content does: an entity tag, a date or a digest of a file's properties; may be empty."""
    content_type: str
    chunks: AsyncIterator[bytes]


def pause_seconds(num_failures: int, error: FetchError) -> float:
    """Return how long to wait after the so-manieth failure, at least as long as the server asks."""
    return max(min(FIRST_PAUSE_SECONDS * 2 ** (num_failures - 1), 60.0), error.pause_seconds)


@asynccontextmanager
async def open_session(
    *, timeout_seconds: float, allow_private_addresses: bool, connections_per_host: int = 0
) -> AsyncIterator["ClientSession"]:
    """Yield what `open_address` and `fetch_image` make their connections with."""
    import aiohttp

    async with aiohttp.ClientSession(
        connector=connector(
            allow_private_addresses=allow_private_addresses, connections_per_host=connections_per_host
        ),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeout_seconds, sock_read=timeout_seconds),
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,  # a checksum is of the bytes as they lie there
        trust_env=True,  # proxies
    ) as session:
        yield session


@asynccontextmanager
async def open_address(
    session: "ClientSession", url: str, offset: int = 0, validator: str = ""
) -> AsyncIterator[Answer]:
    """Yield the answer of an address, from the byte `offset` on if what `validator` was given with is still there.

    Raises:
        FetchError: in every way in which opening or reading fails.
    """
    scheme, has_scheme, rest = url.partition("://")
    if not has_scheme or not rest or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        sentence = f"{url!r} is no address: expected https://..., http://..., file:///... or s3://..."
        raise FetchError("unusable-url", sentence, is_lasting=True)
    opened = _open_http if scheme.lower() in {"http", "https"} else _open_file
    async with opened(session, url, offset, validator) as answer:
        yield answer


@asynccontextmanager
async def _open_http(
    session: "ClientSession", url: str, offset: int, validator: str
) -> AsyncIterator[Answer]:
    from aiohttp import ClientError
    from yarl import URL

    headers = {"Range": f"bytes={offset}-"} if offset else {}
    if offset and validator:
        headers["If-Range"] = validator
    try:
        address = URL(url, encoded=bool(re.fullmatch(r"[!-~]+", url)))  # as it stands: it may be signed
        if not address.host or not address.port:  # which reads them
            raise ValueError("it names no server")
    except ValueError as error:
        raise FetchError("unusable-url", f"{url!r} is no address: {error}", is_lasting=True) from None
    try:
        async with session.get(address, headers=headers, max_redirects=MAX_REDIRECTS) as response:
            yield _read_answer(response, url, offset, validator)
    except FetchError:
        raise
    except (ClientError, OSError) as error:
        raise _as_fetch_error(error, url, session) from None


def _read_answer(response: "ClientResponse", url: str, offset: int, validator: str) -> Answer:
    """Return the answer that the head of `response` announces."""
    if response.status >= 400 and not (response.status == 416 and offset):
        raise _http_error(response, url)
    stated = response.headers.get("Content-Range", "")
    span = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", stated.strip())
    found = _validator(response)
    start, num_bytes = 0, response.content_length
    if response.status in {206, 416}:
        start = int(span[1] or offset) if span else -1
        num_bytes = int(span[2]) if span else None
        is_past_end = response.status == 416 and num_bytes != offset
        if start != offset or is_past_end or (found and validator and found != validator):
            sentence = f"{url} answered bytes of another file (Content-Range {stated!r})"
            raise FetchError("changed", sentence, is_lasting=False)
    elif response.status != 200:
        raise _http_error(response, url)
    return Answer(
        start=start,
        num_bytes=num_bytes,
        validator=found or (validator if start else ""),
        content_type=response.content_type if "Content-Type" in response.headers else "",
        chunks=_nothing() if response.status == 416 else response.content.iter_chunked(CHUNK_BYTES),
    )


async def _nothing() -> AsyncIterator[bytes]:
    """Yield no bytes: all are there."""
    return
    yield b""


def _validator(response: "ClientResponse") -> str:
    """Return what If-Range may be asked with: a strong entity tag, or the date of the last change."""
    tag = response.headers.get("ETag", "")
    return response.headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag


def _http_error(response: "ClientResponse", url: str) -> FetchError:
    code = response.status
    is_lasting = code < 500 and code not in {408, 425, 429}
    pause = _retry_after(response.headers.get("Retry-After", "")) if code in {429, 503} else 0.0
    sentence = f"{url} answered {code} {response.reason}"
    if pause > MAX_PAUSE_SECONDS:
        is_lasting, sentence = True, f"{sentence} and asks to wait {pause:,.0f} seconds"
    return FetchError(f"http-{code}", sentence, is_lasting=is_lasting, pause_seconds=pause)


def _retry_after(stated: str) -> float:
    """Return the seconds that a header Retry-After asks for, as a number or as a date; 0 where it says neither."""
    if stated.strip().isdigit():
        return float(stated)
    with contextlib.suppress(ValueError, TypeError):
        return max(email.utils.parsedate_to_datetime(stated).timestamp() - time.time(), 0.0)
    return 0.0


def _as_fetch_error(error: Exception, url: str, session: "ClientSession") -> FetchError:
    import aiohttp

    cause = getattr(error, "os_error", error)
    is_lasting = True
    match error:
        case TimeoutError():
            seconds = session.timeout.sock_read
            reason, sentence, is_lasting = "timeout", f"{url} was silent for {seconds} seconds", False
        case aiohttp.TooManyRedirects():
            last = error.history[-1].url
            reason = "redirect-loop"
            sentence = f"{url} leads through more than {MAX_REDIRECTS} redirects, the last from {last}"
        case aiohttp.RedirectClientError():
            reason, sentence = "bad-redirect", f"{url} redirects to {error}: no http address"
        case aiohttp.InvalidURL():
            reason, sentence = "unusable-url", f"{url!r} is no address: {error}"
        case aiohttp.ClientConnectorCertificateError():
            reason, sentence = "certificate", f"{url} cannot be trusted: {error}"
        case aiohttp.ClientConnectorDNSError():
            reason, sentence = "unknown-host", f"{url}: the name of the server is not known: {cause}"
            is_lasting = getattr(cause, "errno", None) != socket.EAI_AGAIN
        case aiohttp.ClientConnectorError() if isinstance(cause, PrivateAddress):
            reason = "private-address"
            sentence = f"{url} is refused: {cause}; download.allow_private_addresses allows it"
        case aiohttp.ClientPayloadError():
            reason, sentence, is_lasting = "cut-short", f"{url} ended before its end: {error}", False
        case _:
            sentence = f"{url} could not be read: {str(cause) or type(cause).__name__}"
            reason, is_lasting = "connection", False
    return FetchError(reason, sentence, is_lasting=is_lasting)


@asynccontextmanager
async def _open_file(
    session: "ClientSession", url: str, offset: int, validator: str
) -> AsyncIterator[Answer]:
    """Read a file of this machine or an object of a store, whatever fsspec knows."""
    system, path = await _in_thread(url, lambda: _file_system(url))
    known = await _in_thread(url, lambda: system.info(path))
    found = hashlib.sha256(str(known).encode()).hexdigest()
    start = offset if validator == found else 0
    file = await _in_thread(url, lambda: system.open(path, "rb"))

    async def chunks() -> AsyncIterator[bytes]:
        file.seek(start)
        while chunk := await _in_thread(url, lambda: file.read(CHUNK_BYTES)):
            yield chunk

    try:
        yield Answer(start=start, num_bytes=known["size"], validator=found, content_type="", chunks=chunks())
    finally:
        await asyncio.to_thread(file.close)


def _file_system(url: str) -> tuple[Any, str]:
    """Return fsspec's file system for an address, and the path in it."""
    import fsspec

    place = urlsplit(url)
    if place.scheme == "file":
        return fsspec.filesystem("file"), url2pathname(place.path)
    kind = fsspec.get_filesystem_class(place.scheme)
    return kind(**kind._get_kwargs_from_urls(url)), kind._strip_protocol(url)


async def _in_thread(url: str, function: Callable[[], T]) -> T:
    """Return what `function` does, in a thread; every way in which it fails is a `FetchError`."""
    try:
        return await asyncio.to_thread(function)
    except FileNotFoundError:
        raise FetchError("missing", f"{url} does not exist", is_lasting=True) from None
    except PermissionError as error:
        raise FetchError("forbidden", f"{url} may not be read: {error}", is_lasting=True) from None
    except ImportError as error:
        sentence = f"{url} needs a package that is not installed ({error}): pip install 'captioning[cloud]'"
        raise FetchError("missing-package", sentence, is_lasting=True) from None
    except TimeoutError:
        raise FetchError("timeout", f"{url} did not answer in time", is_lasting=False) from None
    except ValueError as error:
        raise FetchError("unusable-url", f"{url!r} is no address: {error}", is_lasting=True) from None
    except Exception as error:  # every store's library has errors of its own
        sentence = f"{url} could not be read: {str(error) or type(error).__name__}"
        raise FetchError("connection", sentence, is_lasting=url.startswith("file:")) from None
