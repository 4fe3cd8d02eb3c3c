"""Addresses (https, http, file) -> bytes: whole, checked, with further attempts where those may help."""

import hashlib
import http.client
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar
from urllib.parse import urlsplit

from captioning.outputs import whole_file
from captioning.progress import progress

T = TypeVar("T")

FIRST_PAUSE_SECONDS = 1.0
"""Before the second attempt; doubled before each further one, up to a minute."""
MAX_IMAGE_BYTES = 100_000_000
"""A single image that is larger is not fetched."""
CHUNK_BYTES = 1 << 20
USER_AGENT = "captioning-download/0.1"


class FetchError(OSError):
    """Something that could not be fetched.

    `reason` is a fixed word to count by; `is_lasting` says that another attempt would end the same way.
    """

    def __init__(self, reason: str, sentence: str, *, is_lasting: bool) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.is_lasting = is_lasting


def fetch_image(url: str, *, timeout_seconds: float, retries: int) -> bytes:
    """Return the bytes behind `url`, which may be any but a web page's.

    Raises:
        FetchError: they cannot be had.
    """
    if not url:
        raise FetchError(
            "not-in-archive", "the data set names the image, but no archive holds it", is_lasting=True
        )
    encoded = _retry(lambda: b"".join(_read(url, timeout_seconds, MAX_IMAGE_BYTES)), retries)
    if encoded[:100].lstrip()[:1] == b"<":
        raise FetchError("web-page", f"{url} is a web page, not a picture", is_lasting=True)
    return encoded


def fetch(url: str, path: Path, sha256: str | None = None, *, timeout_seconds: float, retries: int) -> None:
    """Copy `url` (https, http or file) to `path`, which appears whole and checked or not at all.

    Raises:
        FetchError: it cannot be had, even after `retries` further attempts where another attempt may help.
        ValueError: its sha256 is another one, or it should be a zip file and is none.
    """
    with whole_file(path) as aside:
        try:
            digest = _retry(lambda: _copy(url, aside, timeout_seconds), retries)
        except FetchError as error:
            next_step = "check the address in the section download, or try again later"
            raise FetchError(error.reason, f"{error}; {next_step}", is_lasting=error.is_lasting) from None
        if sha256 and digest != sha256.lower():
            raise ValueError(
                f"{url} has the sha256 {digest}, expected {sha256}; it was changed or damaged: "
                "correct the source, or the checksum in the section download if the change is meant"
            )
        if path.suffix == ".zip":
            _refuse_other_than_zip(aside, url)


def _copy(url: str, path: Path, timeout_seconds: float) -> str:
    """Write what is behind `url` to `path` and return its sha256."""
    digest = hashlib.sha256()
    with path.open("wb") as target:
        for chunk in _read(url, timeout_seconds, shows_progress=True):
            target.write(chunk)
            digest.update(chunk)
    return digest.hexdigest()


def _refuse_other_than_zip(path: Path, url: str) -> None:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            beginning = file.read(40)
        raise ValueError(
            f"{url} is not a zip file: it begins with {beginning!r} and has {path.stat().st_size:,} bytes; "
            "open the address in a browser to see what is answered, and correct download.source"
        )


def _retry(attempt: Callable[[], T], retries: int) -> T:
    """Return the outcome of `attempt`, made again after growing pauses while its failure may pass."""
    for pause in range(retries + 1):
        try:
            return attempt()
        except FetchError as error:
            if error.is_lasting or pause == retries:
                raise
            time.sleep(min(FIRST_PAUSE_SECONDS * 2**pause, 60.0))
    raise AssertionError("unreachable")


def _read(
    url: str, timeout_seconds: float, max_bytes: int | None = None, shows_progress: bool = False
) -> Iterator[bytes]:
    """Yield the bytes behind `url` in chunks; every way in which that fails is a `FetchError`."""
    if not url.startswith(("https://", "http://", "file://")) or url.endswith("://"):
        sentence = f"{url!r} is no address: expected https://..., http://... or file:///..."
        raise FetchError("unusable-url", sentence, is_lasting=True)
    try:
        request = urllib.request.Request(url, headers={"User-Agent": USER_AGENT})
        with urllib.request.urlopen(request, timeout=timeout_seconds) as answer:
            stated = answer.headers.get("Content-Length")
            chunks = _chunks(answer, int(stated) if stated else None, url, max_bytes)
            if shows_progress:
                num_chunks = -(-int(stated or 0) // CHUNK_BYTES)
                chunks = progress(chunks, total=num_chunks, what=Path(urlsplit(url).path).name, unit="MiB")
            yield from chunks
    except urllib.error.HTTPError as error:
        is_lasting = error.code < 500 and error.code not in {408, 425, 429}
        raise FetchError(
            f"http-{error.code}", f"{url} answered {error.code} {error.reason}", is_lasting=is_lasting
        ) from None
    except FetchError:
        raise
    except TimeoutError:
        raise FetchError(
            "timeout", f"{url} was silent for {timeout_seconds} seconds", is_lasting=False
        ) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _connection_error(url, error) from None


def _connection_error(url: str, error: Exception) -> FetchError:
    cause = getattr(error, "reason", error)
    if isinstance(cause, FileNotFoundError):
        return FetchError("missing", f"{url} does not exist", is_lasting=True)
    if isinstance(cause, TimeoutError):
        return FetchError("timeout", f"{url} did not answer in time", is_lasting=False)
    is_lasting = url.startswith("file:") or isinstance(error, ValueError | http.client.InvalidURL)
    return FetchError("connection", f"{url} could not be read: {cause}", is_lasting=is_lasting)


def _chunks(answer: BinaryIO, num_bytes: int | None, url: str, max_bytes: int | None) -> Iterator[bytes]:
    """Yield the body of an answer, which must have `num_bytes` (if stated) and at most `max_bytes`."""
    count = 0
    while chunk := answer.read(CHUNK_BYTES):
        count += len(chunk)
        if max_bytes is not None and count > max_bytes:
            raise FetchError("too-large", f"{url} has more than {max_bytes:,} bytes", is_lasting=True)
        yield chunk
    if num_bytes is not None and count != num_bytes:
        raise FetchError("cut-short", f"{url} ended after {count:,} of {num_bytes:,} bytes", is_lasting=False)
