"""Pictures as a request names them -> pixels, or a refusal each: from its body, from addresses, from storage."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

import numpy as np

from captioning.picture_sources import from_base64
from captioning.serving.addresses import Rules
from captioning.serving.body import GivenPicture
from captioning.serving.decoding import Decoders
from captioning.serving.problems import Problem
from captioning.serving.settings import ServiceSettings
from captioning.serving.stored_pictures import StoredPictures
from captioning.serving.web_pictures import WebPictures, too_large

T = TypeVar("T")

FETCHED_AHEAD = 4
"""Files in memory for each that is being decoded: what is fetched waits for its decoding in no larger number."""


@dataclass(frozen=True, kw_only=True)
class Taken(Generic[T]):
    """A picture that was read: what was made of its pixels, and its file where that is asked for."""

    name: str
    seen: T
    encoded: bytes | None


class Pictures:
    """What reads the pictures of all requests; enter it while the service runs.

    Memory is bounded: few pictures are fetched and decoded at a time, and of each only what `shrink` returns is kept.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._rules = Rules(
            public=settings.fetch_urls,
            networks=settings.allowed_networks,
            ports=settings.fetch_ports,
            prefixes=settings.storage_prefixes,
        )
        self._decoders = Decoders(
            num_processes=settings.decoders,
            max_pixels=settings.max_pixels,
            max_seconds=settings.decode_seconds,
        )
        self._shrinking = asyncio.Semaphore(settings.decoders)
        self._fetching = asyncio.Semaphore(FETCHED_AHEAD * settings.decoders)

    async def __aenter__(self) -> Self:
        max_bytes, seconds = self._settings.max_bytes, self._settings.fetch_seconds
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._decoders)
            web = WebPictures(
                self._rules,
                max_bytes=max_bytes,
                max_seconds=seconds,
                max_redirects=self._settings.max_redirects,
            )
            self._web = await stack.enter_async_context(web)
            self._stored = await stack.enter_async_context(
                StoredPictures(self._rules, max_bytes=max_bytes, max_seconds=seconds)
            )
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, _kind: type | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def take(
        self, given: Sequence[GivenPicture], shrink: Callable[[np.ndarray], T], *, keep_files: bool = False
    ) -> list[Taken[T] | Problem]:
        """Return each picture, or why it cannot be had, in the order of the request.

        Args:
            given: the pictures of one request.
            shrink: what is kept of a picture's pixels, uint8, H x W x 3, upright; it runs in a thread.
            keep_files: keep the files, too, as another captioner wants them; together no more than a request may have.
        """
        room = _Room(self._settings.max_request_bytes if keep_files else None)
        return list(await asyncio.gather(*(self._take(own, shrink, room) for own in given)))

    async def _take(
        self, given: GivenPicture, shrink: Callable[[np.ndarray], T], room: "_Room"
    ) -> Taken[T] | Problem:
        try:
            if given.url is None:
                async with self._shrinking:  # base64 becomes a file no earlier than that is decoded
                    encoded = await asyncio.to_thread(_uploaded, given, self._settings.max_bytes)
                    return await self._keep(given, encoded, shrink, room)
            async with self._fetching:
                encoded = await self.fetch(given.url)
                async with self._shrinking:
                    return await self._keep(given, encoded, shrink, room)
        except Problem as problem:
            return problem

    async def _keep(
        self, given: GivenPicture, encoded: bytes, shrink: Callable[[np.ndarray], T], room: "_Room"
    ) -> Taken[T]:
        seen = await asyncio.to_thread(shrink, await self._decoders.decode(encoded))
        return Taken(name=given.name, seen=seen, encoded=room.keep(encoded))

    async def fetch(self, address: str) -> bytes:
        """Return the file behind an address that a request names.

        Raises:
            Problem: it may not be read, or holds no picture; see `WebPictures` and `StoredPictures`.
        """
        source = self._stored if self._rules.is_storage(address) else self._web
        return await source.fetch(address)


def _uploaded(given: GivenPicture, max_bytes: int) -> bytes:
    encoded = given.encoded if given.base64 is None else _decoded(given.base64)
    if len(encoded or b"") > max_bytes:
        raise too_large(given.name, max_bytes)
    return encoded or b""


def _decoded(text: str) -> bytes:
    try:
        return from_base64(text)
    except ValueError:
        sentence = "the text is not base64; send the bytes of an image file, encoded in base64"
        raise Problem(422, sentence, title="Not base64") from None


class _Room:
    """What a request's files may take in memory; None keeps none."""

    def __init__(self, num_bytes: int | None) -> None:
        self._left = num_bytes

    def keep(self, encoded: bytes) -> bytes | None:
        """Return a file that is to be kept.

        Raises:
            Problem: 413, together they are too large.
        """
        if self._left is None:
            return None
        self._left -= len(encoded)
        if self._left < 0:
            raise Problem(413, "the request's pictures are too large together; send fewer", title="Too large")
        return encoded
