"""What the source of a data set looks like now: whether there is new data, seen without fetching it.

`source.json` keeps what was seen last. The download stage depends on it, so that new data make the pipeline run again
and nothing new makes nothing run; it belongs into git with dvc.lock. `{}`, as in a fresh checkout, is never looked at.
"""

import asyncio
import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from captioning import lookup
from captioning.datasets import DatasetSettings, Source
from captioning.downloads.answers import CHUNK_BYTES, FetchError, open_address, open_session, pause_seconds
from captioning.formats.sources import local_path
from captioning.outputs import whole_file

if TYPE_CHECKING:
    from aiohttp import ClientSession

SOURCE_FILE = Path("source.json")

Seen = dict[str, str | int]
"""What is seen of one place; equal as long as nothing is new there."""


def observe(settings: DatasetSettings) -> dict[str, Seen]:
    """Return what is seen of each place that a data set is made from; nothing where it is made here.

    Of a folder: how many files lie in it and in its folders, their bytes, and a digest of their names, sizes and
    times of change; hidden ones are passed over. Of a list on disk: its sha256 and number of lines. Of another file on
    disk: its size and time of change. Of an address: its validator (entity tag, date of change, an object's
    properties) and size, or where a list has no validator its sha256. Of what has a stated checksum: that, without a
    look. A file at an address that says nothing of itself is never seen to change.

    Raises:
        FetchError: a place is not there, or does not answer.
        ValueError: a list is not in the form that its name promises.
    """
    dataset = lookup.find("datasets", settings.dataset)
    sources = {source.place: source for source in dataset.sources(settings)}
    return {place: _observe(source, settings) for place, source in sorted(sources.items())}


def read(path: Path = SOURCE_FILE) -> dict[str, Seen]:
    """Return what was seen last; nothing where there is no such file.

    Raises:
        ValueError: it is no file of ours, perhaps after a merge.
    """
    try:
        seen = json.loads(path.read_text()) if path.exists() else {}
    except ValueError:
        seen = None
    if not isinstance(seen, dict) or not all(isinstance(one, dict) for one in seen.values()):
        raise ValueError(
            f"{path} is not what a look at the source leaves; write {{}} into it, and look again"
        )
    return seen


def write(seen: dict[str, Seen], path: Path = SOURCE_FILE) -> None:
    """Keep what was seen; equal sights give equal bytes."""
    with whole_file(path) as aside:
        aside.write_text(json.dumps(seen, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def changes(before: dict[str, Seen], now: dict[str, Seen]) -> list[str]:
    """Say for each place that differs what is new there, numbers with their values."""
    sentences = []
    for place in sorted(before.keys() | now.keys()):
        old, new = before.get(place, {}), now.get(place, {})
        words = [_change(key, old.get(key), new.get(key)) for key in sorted(old.keys() | new.keys())]
        if place not in before or place not in now:
            sentences.append(f"{place}: {'seen for the first time' if place in now else 'no longer used'}")
        elif differing := [word for word in words if word]:
            sentences.append(f"{place}: {', '.join(differing)}")
    return sentences


def _change(key: str, old: str | int | None, new: str | int | None) -> str:
    if old == new:
        return ""
    are_numbers = isinstance(old, int) and isinstance(new, int) and key != "changed_ns"
    return f"{key} {old:,} -> {new:,}" if are_numbers else f"another {key}"


def _observe(source: Source, settings: DatasetSettings) -> Seen:
    if source.sha256:
        return {"sha256": source.sha256.lower()}
    path = local_path(source.place)
    if path is None:
        return asyncio.run(_ask(source, settings))
    if not (path.is_dir() if source.kind == "folder" else path.is_file()):
        kind = "folder" if source.kind == "folder" else "file"
        sentence = f"{source.place!r} is no {kind} that is there; correct the section download"
        raise FetchError("missing", sentence, is_lasting=True)
    match source.kind:
        case "folder":
            return _observe_folder(path)
        case "list":
            return _observe_list(path)
        case _:
            status = path.stat()
            return {"bytes": status.st_size, "changed_ns": status.st_mtime_ns}


def _observe_folder(folder: Path) -> Seen:
    """Add up a digest of each file: the sum needs no order, and so neither sorting nor memory."""
    num_files = num_bytes = total = 0
    root = len(os.fspath(folder)) + 1
    for entry in _files(folder):
        status = entry.stat()
        num_files += 1
        num_bytes += status.st_size
        name = os.fsencode(entry.path[root:])
        identity = b"%b\0%d\0%d" % (name, status.st_size, status.st_mtime_ns)
        total += int.from_bytes(hashlib.sha256(identity).digest())
    return {"files": num_files, "bytes": num_bytes, "digest": f"{total % 2**256:064x}"}


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    waiting = [os.fspath(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    if not entry.is_symlink():
                        waiting.append(entry.path)
                elif entry.is_file():
                    yield entry


def _observe_list(path: Path) -> Seen:
    digest, num_lines = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            digest.update(piece)
            num_lines += piece.count(b"\n")
    if path.suffix.lower() == ".parquet":
        return {"rows": _num_rows(path), "sha256": digest.hexdigest()}
    return {"lines": num_lines, "sha256": digest.hexdigest()}


def _num_rows(path: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(path).num_rows)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is no Parquet file: {error}; correct the section download") from None


async def _ask(source: Source, settings: DatasetSettings) -> Seen:
    """Ask an address, again after a failure that may pass, `settings.retries` times."""
    async with open_session(
        timeout_seconds=settings.timeout_seconds, allow_private_addresses=settings.allow_private_addresses
    ) as session:
        for num_failures in itertools.count(1):
            try:
                return await _answer(session, source)
            except FetchError as error:
                if error.is_lasting or num_failures > settings.retries:
                    raise
                await asyncio.sleep(pause_seconds(num_failures, error))
    raise AssertionError("the loop ends by an answer or by a failure")


async def _answer(session: "ClientSession", source: Source) -> Seen:
    async with open_address(session, source.place) as answer:
        seen: Seen = {"validator": answer.validator} if answer.validator else {}
        if answer.num_bytes is not None:
            seen["bytes"] = answer.num_bytes
        if source.kind == "list" and not answer.validator:
            digest = hashlib.sha256()
            async for chunk in answer.chunks:
                digest.update(chunk)
            seen["sha256"] = digest.hexdigest()
    return seen
