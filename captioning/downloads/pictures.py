"""An address -> one picture, within bounds of size and time, and surely no web page."""

import asyncio
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from captioning.downloads.answers import FetchError, open_address
from captioning.formats.picture_names import SUFFIXES

if TYPE_CHECKING:
    from aiohttp import ClientSession

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


@dataclass(frozen=True, kw_only=True)
class Picture:
    """The bytes of a picture file, and the suffix of its type."""

    encoded: bytes
    suffix: str


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
