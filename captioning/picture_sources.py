"""What a person names -> pictures, one after the other: files, folders, patterns, addresses, a list of these."""

import asyncio
import base64
import glob
import os
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING

from captioning.formats.picture_names import SUFFIXES
from captioning.images import MAX_BYTES

if TYPE_CHECKING:
    from captioning.downloads.connections import Outcome

STANDARD_INPUT = "-"
WHITE_SPACE = str.maketrans("", "", " \t\r\n")
PICTURES_AHEAD = 32
"""Fetched from addresses and held in memory before they are asked for."""
NUM_CONNECTIONS, CONNECTIONS_PER_HOST, RETRIES = 8, 4, 3
TIMEOUT_SECONDS, MAX_SECONDS = 30.0, 120.0
"""To connect and between two pieces of an answer; for a whole picture."""
LOOK_AGAIN_SECONDS = 0.02
"""Whether what was fetched ahead has been asked for."""


def expand(sources: Sequence[str], lines: Iterable[str]) -> list[str]:
    """Return the pictures that `sources` name: paths and addresses, in the order of the sources.

    A folder stands for the files in it and in its folders that are called as pictures are, sorted; hidden ones are
    left out. A file that is named itself may be called anything. A pattern such as
    `*.jpg` or `**/*.png` stands for what it matches, and `-` for `lines`, each a source of its own.

    Raises:
        ValueError: a folder or a pattern has no picture.
    """
    found: list[str] = []
    for source in sources:
        if source == STANDARD_INPUT:
            stated = [line for line in (own.strip() for own in lines) if line and line != STANDARD_INPUT]
            found += expand(stated, [])
        else:
            found += _expand_one(source)
    return found


def _expand_one(source: str) -> list[str]:
    if is_address(source):
        return [source]
    if Path(source).is_dir():
        if not (pictures := [*inside(source)]):
            raise ValueError(
                f"{source} has no pictures: no file in it ends with one of {', '.join(sorted(SUFFIXES))}"
            )
        return pictures
    if glob.has_magic(source) and not Path(source).exists():
        matches = sorted(glob.glob(source, recursive=True))  # noqa: PTH207 - absolute patterns, too
        if not matches:
            raise ValueError(f"nothing matches {source!r}; check the pattern, and the folder it starts from")
        return [picture for match in matches for picture in _expand_one(match)]
    return [source]


def inside(folder: str) -> Iterator[str]:
    """Yield the files of a folder and its folders that are called as pictures are, sorted; hidden ones are left out."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield str(Path(place) / name)


def is_address(source: str) -> bool:
    """Return whether it is an address such as https://... or s3://..., and no path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source) is not None


def from_base64(text: str) -> bytes:
    """Return the bytes of base64, with or without line ends and the `data:image/png;base64,` that browsers write.

    Raises:
        ValueError: it is none.
    """
    beginning, has_comma, _ = text[:200].partition(",")
    if has_comma and beginning.startswith("data:"):
        text = text[len(beginning) + 1 :]
    return base64.b64decode(text.translate(WHITE_SPACE), validate=True)


def printable(name: str) -> str:
    """Return a name as it can be written as UTF-8; a file's name may be any bytes."""
    return os.fsencode(name).decode("utf-8", "replace")


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How much is done for a picture behind an address."""

    max_bytes: int = MAX_BYTES
    max_seconds: float = MAX_SECONDS
    retries: int = RETRIES


def read(
    names: Sequence[str], *, allow_private_addresses: bool, bounds: Bounds | None = None
) -> Iterator[bytes | OSError]:
    """Yield the bytes of each picture, or why there are none, in order; addresses are fetched several at a time."""
    addresses = [name for name in names if is_address(name)]
    fetched = _fetch(addresses, allow_private_addresses, bounds or Bounds()) if addresses else iter(())
    for name in names:
        yield next(fetched) if is_address(name) else _read_file(name)


def _read_file(name: str) -> bytes | OSError:
    try:
        path = Path(name)
        if (num_bytes := path.stat().st_size) > MAX_BYTES:
            return OSError(f"the file has {num_bytes:,} bytes, more than {MAX_BYTES:,}")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        return error if isinstance(error, OSError) else OSError(str(error))


def _fetch(
    addresses: Sequence[str], allow_private_addresses: bool, bounds: Bounds
) -> Iterator[bytes | OSError]:
    """Yield what addresses answer, in order, while a thread of its own fetches the next ones."""
    outcomes: Queue[Outcome | BaseException] = Queue()
    is_left = threading.Event()

    async def run() -> None:
        from captioning.downloads.answers import open_session
        from captioning.downloads.connections import Connections
        from captioning.downloads.pictures import Picture, fetch_image

        async with open_session(
            timeout_seconds=TIMEOUT_SECONDS,
            allow_private_addresses=allow_private_addresses,
            connections_per_host=CONNECTIONS_PER_HOST,
        ) as session:

            async def attempt(url: str) -> Picture:
                return await fetch_image(
                    session, url, max_bytes=bounds.max_bytes, max_seconds=bounds.max_seconds
                )

            connections = Connections(
                attempt,
                retries=bounds.retries,
                num_connections=NUM_CONNECTIONS,
                connections_per_host=CONNECTIONS_PER_HOST,
            )
            async with aclosing(connections.fetch(addresses)) as found:
                async for outcome in found:
                    # no thread waits for room: nobody may come to make any, and the process would not end
                    while outcomes.qsize() >= PICTURES_AHEAD:
                        if is_left.is_set():
                            return
                        await asyncio.sleep(LOOK_AGAIN_SECONDS)
                    outcomes.put(outcome)

    def work() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:  # a defect: whoever waits for the outcome shall see it
            outcomes.put(error)

    threading.Thread(target=work, name="fetch pictures", daemon=True).start()
    try:
        for _ in addresses:
            outcome = outcomes.get()
            if isinstance(outcome, OSError):
                yield outcome
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                yield outcome.encoded
    finally:
        is_left.set()
