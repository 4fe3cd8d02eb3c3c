"""Addresses (http, https, file, s3, gs, az, ...) -> bytes: whole, checked, with further attempts where they may help.

A file of any size is fetched by `fetch`, which continues where an interrupted transfer ended; a picture by
`fetch_image`, within bounds. http goes through aiohttp, for the sake of captioning/addresses.py; everything else
through fsspec, with credentials from the environment.
"""

import asyncio
import contextlib
import email.utils
import errno
import hashlib
import itertools
import json
import re
import shutil
import socket
import tempfile
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

from captioning.downloads.addresses import PrivateAddress, connector
from captioning.fingerprints import file_identity
from captioning.progress import in_bytes, progress

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

PICTURES = {
    ".jpg": rb"\xff\xd8\xff",
    ".png": rb"\x89PNG\r\n\x1a\n",
    ".gif": rb"GIF8[79]a",
    ".webp": rb"RIFF....WEBP",
    ".bmp": rb"BM.{12}",
    ".tif": rb"II[*+]\0|MM\0[*+]",
    ".avif": rb"....ftypavi[fs]",
    ".heic": rb"....ftyp(?:hei[cxms]|mif1|msf1)",
    ".jp2": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    ".ppm": rb"P[1-6]\s",
}
"""The suffix of each known type of picture -> how its files begin."""
SUFFIXES = {*PICTURES, ".jpeg", ".tiff", ".jpe", ".jfif", ".heif", ".pgm", ".pbm"}


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


@dataclass(frozen=True, kw_only=True)
class Picture:
    """The bytes of a picture file, and the suffix of its type."""

    encoded: bytes
    suffix: str


# --- one file of any size


def fetch(
    url: str,
    path: Path,
    sha256: str | None = None,
    *,
    timeout_seconds: float,
    retries: int,
    allow_private_addresses: bool = False,
    unfinished: Path | None = None,
) -> None:
    """Copy what is behind `url` to `path`, which appears whole and checked or not at all.

    The bytes of an interrupted transfer wait in the folder `unfinished`, if one is given, and the next call with
    the same arguments fetches only the rest, unless the file has changed meanwhile.

    Raises:
        FetchError: it cannot be had, even after `retries` further attempts in a row that brought nothing more.
        ValueError: its sha256 is another one, it should be a zip file and is none or an unsafe one, or the disk
            is too small.
    """
    with contextlib.ExitStack() as stack:
        folder = unfinished
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=path.parent, prefix=".")))
        transfer = _Transfer(url, path, folder, needs_validator=not sha256)
        if sha256 and transfer.is_complete:
            return
        transfer.take_back()
        try:
            asyncio.run(
                transfer.run(
                    timeout_seconds=timeout_seconds,
                    retries=retries,
                    allow_private_addresses=allow_private_addresses,
                )
            )
        except FetchError as error:
            next_step = "check the address in the section download, or try again later"
            raise FetchError(error.reason, f"{error}; {next_step}", is_lasting=error.is_lasting) from None
        try:
            _refuse_damage(transfer.partial, url, path, sha256)
        except ValueError:
            transfer.forget()
            raise
        transfer.finish()


def finished_files(unfinished: Path) -> set[Path]:
    """Return the files that `fetch` has finished with the folder `unfinished`."""
    notes = [_read_notes(path) for path in unfinished.glob("*.json")]
    return {Path(known["path"]) for known in notes if known.get("is_complete")}


class _Transfer:
    """The copy of one file from `url` to `path` over any number of attempts and runs.

    `NAME` in `folder` holds the bytes so far, `NAME.json` what is known of the whole.
    """

    def __init__(self, url: str, path: Path, folder: Path, *, needs_validator: bool) -> None:
        name = hashlib.sha256(f"{url}\n{path}".encode()).hexdigest()[:16]
        self.partial = folder / name
        self._notes = folder / f"{name}.json"
        self._url = url
        self._path = path
        self._needs_validator = needs_validator

    @property
    def is_complete(self) -> bool:
        """Return whether an earlier call finished and checked `path`, which is still there."""
        known = self._read_notes()
        return bool(known.get("is_complete")) and self._path.exists()

    def take_back(self) -> None:
        """Treat a file that an earlier call finished as one whose last byte is still missing: has it changed?"""
        if self.is_complete:
            self._path.replace(self.partial)

    def finish(self) -> None:
        """Put the file in its place."""
        self.partial.replace(self._path)
        self._write_notes({**self._read_notes(), "is_complete": True, "path": str(self._path)})

    def forget(self) -> None:
        """Delete what was fetched."""
        self.partial.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)

    async def run(self, *, timeout_seconds: float, retries: int, allow_private_addresses: bool) -> None:
        """Fetch what is missing; a failure counts only if nothing was gained since the last one."""
        most, num_failures = self._num_bytes(), 0
        async with open_session(
            timeout_seconds=timeout_seconds, allow_private_addresses=allow_private_addresses
        ) as session:
            while True:
                try:
                    return await self._attempt(session)
                except FetchError as error:
                    if self._num_bytes() >= most + CHUNK_BYTES:
                        most, num_failures = self._num_bytes(), 0
                    if error.is_lasting or num_failures >= retries:
                        raise
                    num_failures += 1
                    await asyncio.sleep(pause_seconds(num_failures, error))

    async def _attempt(self, session: "ClientSession") -> None:
        known = self._read_notes()
        can_continue = known and (known["validator"] or not self._needs_validator)
        offset = self._num_bytes() if can_continue else 0
        async with open_address(session, self._url, offset, known.get("validator", "")) as answer:
            if answer.start and answer.num_bytes != known["num_bytes"]:
                self.forget()
                raise FetchError("changed", f"{self._url} changed while it was fetched", is_lasting=False)
            _refuse_small_disk(self.partial.parent, self._url, (answer.num_bytes or 0) - answer.start)
            await self._copy(answer)
        if answer.num_bytes is not None and self._num_bytes() != answer.num_bytes:
            sentence = f"{self._url} ended after {self._num_bytes():,} of {answer.num_bytes:,} bytes"
            raise FetchError("cut-short", sentence, is_lasting=False)

    async def _copy(self, answer: Answer) -> None:
        total = -(-max((answer.num_bytes or 0) - answer.start, 0) // CHUNK_BYTES)
        ticks = progress(itertools.count(), total=total, what=self._path.name, unit="MiB")
        num_bytes = 0
        with contextlib.closing(self._open(answer)) as target:
            async for chunk in answer.chunks:
                with full_disk_named(self.partial.parent, self._url):
                    _write(target, chunk)
                num_ticks = num_bytes // CHUNK_BYTES
                num_bytes += len(chunk)
                for _ in range(num_ticks, num_bytes // CHUNK_BYTES):
                    next(ticks)

    def _open(self, answer: Answer) -> FileIO:
        """Open the file of bytes so far, unbuffered, at the place where the answer begins."""
        with full_disk_named(self.partial.parent, self._url):
            target = FileIO(self.partial, "r+" if answer.start else "w")
            if not answer.start:
                self._write_notes({"validator": answer.validator, "num_bytes": answer.num_bytes})
            target.seek(answer.start)
            return target

    def _num_bytes(self) -> int:
        return self.partial.stat().st_size if self.partial.exists() else 0

    def _read_notes(self) -> dict[str, Any]:
        return _read_notes(self._notes)

    def _write_notes(self, notes: dict[str, Any]) -> None:
        aside = self._notes.with_suffix(".partial")
        aside.write_text(json.dumps(notes))
        aside.replace(self._notes)


def _read_notes(path: Path) -> dict[str, Any]:
    """Return what is known of a transfer; nothing where it has not begun, or a power cut tore the file."""
    try:
        notes: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return notes


def _write(target: FileIO, chunk: bytes) -> None:
    """Write all of a chunk; the system may take a part of it, as on a disk that is almost full."""
    rest = memoryview(chunk)
    while rest:
        rest = rest[target.write(rest) :]


def _refuse_small_disk(folder: Path, url: str, num_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise ValueError(
            f"{url}: {in_bytes(num_bytes)} are still to be fetched, but the disk of {folder} has {in_bytes(free)} "
            "free: free some space, or set CAPTIONING_HOME to a folder on a larger disk"
        )


@contextmanager
def full_disk_named(folder: Path, what: str) -> Iterator[None]:
    """Turn the error of a full disk into a `ValueError` that says so, for it has nothing to do with the address."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise ValueError(
            f"the disk of {folder} is full: {what} could not be written; free some space, or set CAPTIONING_HOME "
            "to a folder on a larger disk, and run again: what was fetched is kept"
        ) from None


def _refuse_damage(partial: Path, url: str, path: Path, sha256: str | None) -> None:
    digest = file_identity(partial) if sha256 else ""
    if sha256 and digest != sha256.lower():
        raise ValueError(
            f"{url} has the sha256 {digest}, expected {sha256}; it was changed or damaged: "
            "correct the source, or the checksum in the section download if the change is meant"
        )
    if path.suffix == ".zip":
        _refuse_other_than_zip(partial, url)
        _refuse_unsafe_members(partial, url)


def _refuse_other_than_zip(path: Path, url: str) -> None:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            beginning = file.read(40)
        raise ValueError(
            f"{url} is not a zip file: it begins with {beginning!r} and has {path.stat().st_size:,} bytes; "
            "open the address in a browser to see what is answered, and correct download.source"
        )


def _refuse_unsafe_members(path: Path, url: str) -> None:
    """Refuse an archive that would leave the folder it is unpacked into; here nothing is, elsewhere it may be."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            place = PurePosixPath(member.filename.replace("\\", "/"))
            is_link = (member.external_attr >> 16) & 0o170000 == 0o120000
            if is_link or place.is_absolute() or ".." in place.parts or re.match(r"[A-Za-z]:", str(place)):
                kind = "a symbolic link" if is_link else "a path that leads out of the folder"
                raise ValueError(
                    f"{url} is an unsafe archive: its member {member.filename!r} is {kind}; "
                    "get the archive from its authors, or remove that member"
                )


# --- one picture


async def fetch_image(session: "ClientSession", url: str, *, max_bytes: int, max_seconds: float) -> Picture:
    """Return the picture behind `url`, at the first attempt.

    Raises:
        FetchError: it cannot be had, is larger, takes longer, or is no picture.
    """
    if not url:
        raise FetchError(
            "not-in-archive", "the data set names the image, but no archive holds it", is_lasting=True
        )
    encoded = bytearray()
    try:
        async with asyncio.timeout(max_seconds), open_address(session, url) as answer:
            if (answer.num_bytes or 0) > max_bytes:
                raise _too_large(url, max_bytes)
            async for chunk in answer.chunks:
                encoded += chunk
                if len(encoded) > max_bytes:
                    raise _too_large(url, max_bytes)
    except TimeoutError:
        sentence = f"{url} was not complete after {max_seconds} seconds, {len(encoded):,} bytes had come"
        raise FetchError("too-slow", sentence, is_lasting=True) from None
    if answer.num_bytes not in {None, len(encoded)}:
        sentence = f"{url} ended after {len(encoded):,} of {answer.num_bytes:,} bytes"
        raise FetchError("cut-short", sentence, is_lasting=False)
    return Picture(encoded=bytes(encoded), suffix=_suffix(url, bytes(encoded[:100]), answer.content_type))


def _too_large(url: str, max_bytes: int) -> FetchError:
    return FetchError("too-large", f"{url} has more than {max_bytes:,} bytes", is_lasting=True)


def _suffix(url: str, beginning: bytes, content_type: str) -> str:
    """Return the suffix that `url` ends with, or the one of the type of picture; refuse what is no picture."""
    types = [suffix for suffix, form in PICTURES.items() if re.match(form, beginning, re.DOTALL)]
    if types:
        stated = PurePosixPath(urlsplit(url).path).suffix.lower()
        return stated if stated in SUFFIXES else types[0]
    if not beginning:
        raise FetchError("empty", f"{url} has no bytes", is_lasting=True)
    if beginning.lstrip()[:1] == b"<" or content_type in {"text/html", "application/xhtml+xml"}:
        raise FetchError("web-page", f"{url} is a web page, not a picture", is_lasting=True)
    kind = f" and is called {content_type}" if content_type else ""
    raise FetchError(
        "not-a-picture", f"{url} begins like no known picture: {beginning[:16]!r}{kind}", is_lasting=True
    )


# --- any address


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
