"""A storage address (s3, gs, az, ...) -> the bytes of the object, with the service's own credentials."""

import asyncio
import logging
from types import TracebackType
from typing import Any, Self

from captioning.serving.addresses import Rules
from captioning.serving.problems import Problem
from captioning.serving.web_pictures import NO_PICTURE_BEHIND, too_large

LOGGER = logging.getLogger(__name__)


class StoredPictures:
    """What reads objects of the storage that is allowed, in the service's own event loop.

    Credentials come from the environment, as fsspec's s3fs, gcsfs and adlfs find them.
    """

    def __init__(self, rules: Rules, *, max_bytes: int, max_seconds: float) -> None:
        self._rules, self._max_bytes, self._max_seconds = rules, max_bytes, max_seconds
        self._systems: dict[str, Any] = {}
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for system in self._systems.values():
            session = getattr(
                system, "_s3creator", None
            )  # s3fs leaves its connections to the garbage collector
            if session is not None:
                await session.__aexit__(None, None, None)
        self._systems.clear()

    async def fetch(self, address: str) -> bytes:
        """Return an object's bytes.

        Raises:
            Problem: 403 the address is not allowed, 413 it is too large, 424 it cannot be read.
        """
        scheme, path = self._rules.storage(address)
        try:
            async with asyncio.timeout(self._max_seconds):
                system = await self._system(scheme)
                size = int((await system._info(path))["size"])
                if size > self._max_bytes:
                    raise too_large(address, self._max_bytes)
                encoded = await system._cat_file(path, start=0, end=size) if size else b""
        except (Problem, asyncio.CancelledError):
            raise
        except TimeoutError:
            raise _failed(address, f"did not answer within {self._max_seconds:g} seconds") from None
        except FileNotFoundError:
            raise _failed(address, "does not exist, or may not be read") from None
        except (
            Exception
        ) as error:  # every store's library has errors of its own, which name accounts and keys
            LOGGER.warning("%s could not be read: %s", address, error)
            raise _failed(address, "could not be read; the service's log says why") from None
        return bytes(encoded)

    async def _system(self, scheme: str) -> Any:
        async with self._opening:
            if scheme not in self._systems:
                import fsspec

                kind = await asyncio.to_thread(fsspec.get_filesystem_class, scheme)  # imports for seconds
                system = kind(asynchronous=True, skip_instance_cache=True, use_listings_cache=False)
                if scheme == "s3":
                    await system.set_session()
                self._systems[scheme] = system
            return self._systems[scheme]


def _failed(address: str, why: str) -> Problem:
    sentence = f"{address[:200]!r} {why}; check the address, or send the picture itself"
    return Problem(424, sentence, title=NO_PICTURE_BEHIND)
