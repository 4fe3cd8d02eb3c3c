"""Images fetched one by one -> numbered zip files, each with a table of its rows.

A part is a fixed number of successive pairs. It is finished when its table exists: an interrupted run goes on with
the parts that are not, and ends with the bytes of an undisturbed one.
"""

import asyncio
import hashlib
import re
import time
import zipfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from captioning import progress
from captioning.downloads.answers import FetchError, open_session
from captioning.downloads.connections import Connections, Outcome
from captioning.downloads.fetching import full_disk_named
from captioning.downloads.pictures import Picture, fetch_image
from captioning.outputs import whole_file

STATED = ("image_id", "source", "archive", "member", "url", "split", "license")
PAIR_SCHEMA = pa.schema([(name, pa.string()) for name in (*STATED, "error")])
"""An image as its data set states it; its captions lie in captions.parquet."""
ROW_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in STATED),
        ("status", pa.string()),  # ok or failed
        ("error", pa.string()),  # a fixed word, a colon and a sentence; empty if all went well
        ("num_bytes", pa.int64()),  # of the image if it was fetched singly
        ("sha256", pa.string()),  # of the image if it was fetched singly
    ]
)
"""What became of an image: rows.parquet."""


class Parts:
    """The pairs of one download, part by part."""

    def __init__(self, pairs: Path, folder: Path, unfinished: Path, *, effort: Sequence[float]) -> None:
        """Take the table `pairs`, one row group a part.

        Args:
            pairs: a table of `PAIR_SCHEMA`.
            folder: the zip files are written there.
            unfinished: the tables of rows are written there, and what is not whole yet.
            effort: how hard it is tried; with another effort, images that failed are tried again.
        """
        self._pairs = pq.ParquetFile(pairs)
        self._folder = folder
        self._unfinished = unfinished
        self._effort = repr(list(effort))
        self._refused = unfinished / "refused"

    def mark_refused(self) -> None:
        """Let the next run try again what failed, for this one ends in a refusal."""
        self._refused.touch()

    async def fetch(
        self,
        *,
        max_bytes: int,
        max_seconds: float,
        timeout_seconds: float,
        allow_private_addresses: bool,
        retries: int,
        num_connections: int,
        connections_per_host: int,
        refuse: Callable[[str], None],
    ) -> None:
        """Fetch the images of every part that is not finished; a failure is a row, never an exception.

        `refuse(url)` raises a `FetchError` for an address that may not be fetched.
        """
        todo = [number for number in range(self._pairs.num_row_groups) if not self._is_finished(number)]
        if not todo:
            return
        threads = ThreadPoolExecutor(num_connections)  # for names of servers, files and object stores
        asyncio.get_running_loop().set_default_executor(threads)
        async with open_session(
            timeout_seconds=timeout_seconds,
            allow_private_addresses=allow_private_addresses,
            connections_per_host=connections_per_host,
        ) as session:

            async def attempt(url: str) -> Picture:
                refuse(url)
                return await fetch_image(session, url, max_bytes=max_bytes, max_seconds=max_seconds)

            connections = Connections(
                attempt,
                retries=retries,
                num_connections=num_connections,
                connections_per_host=connections_per_host,
            )
            urls = (pair["url"] for number in todo for pair in self._to_fetch(number).values())
            tally = Tally(sum(self._pairs.metadata.row_group(number).num_rows for number in todo))
            async with aclosing(connections.fetch(urls)) as outcomes:
                for number in todo:
                    await self._write(number, outcomes, tally)

    def rows(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows of all images in order, once all were fetched; delete zip files that no row names."""
        named = set()
        for number in range(self._pairs.num_row_groups):
            pairs = self._read(number)
            if self._holds_single_images(pairs):
                rows = pq.read_table(self._table(number))
                named.add(self._archive(number).name)
            else:
                rows = _rows([_as_stated(pair) for pair in pairs.to_pylist()])
            yield from rows.to_batches()
        for path in self._folder.iterdir():
            if is_part(path) and path.name not in named:
                path.unlink()  # of a longer list of pairs, in an earlier run

    # --- one part

    def _read(self, number: int) -> pa.Table:
        return self._pairs.read_row_group(number)

    def _archive(self, number: int) -> Path:
        return self._folder / f"images-{number:05d}.zip"

    def _table(self, number: int) -> Path:
        return self._unfinished / f"images-{number:05d}.parquet"

    @staticmethod
    def _holds_single_images(pairs: pa.Table) -> bool:
        return bool(pc.any(pc.and_(pc.equal(pairs["archive"], ""), pc.equal(pairs["error"], ""))).as_py())

    def _is_finished(self, number: int) -> bool:
        pairs = self._read(number)
        if not self._holds_single_images(pairs):
            return True
        known = self._known(number, pairs)
        return known is not None and self._settled(known).num_rows == pairs.num_rows

    def _known(self, number: int, pairs: pa.Table) -> pa.Table | None:
        """Return the rows of a part from an earlier run, if they are of the same pairs and the zip file is whole."""
        if not self._table(number).exists():
            return None
        rows = pq.read_table(self._table(number))
        archive = self._archive(number)
        num_bytes = archive.stat().st_size if archive.exists() else 0
        same = {b"pairs": _digest(pairs).encode(), b"zip_bytes": str(num_bytes).encode()}
        return rows if same.items() <= rows.schema.metadata.items() else None

    def _settled(self, rows: pa.Table) -> pa.Table:
        """Return the rows of an earlier run that stay: failed ones only if nothing is different now."""
        is_final = rows.schema.metadata[b"effort"] == self._effort.encode() and not self._refused.exists()
        return rows if is_final else rows.filter(pc.equal(rows["status"], "ok"))

    def _to_fetch(self, number: int) -> dict[str, dict[str, str]]:
        """Return the pairs of a part whose image is to be fetched, in order, by their id."""
        pairs = self._read(number)
        known = self._known(number, pairs)
        settled = set() if known is None else set(self._settled(known)["image_id"].to_pylist())
        return {
            pair["image_id"]: pair
            for pair in pairs.to_pylist()
            if not pair["archive"] and not pair["error"] and pair["image_id"] not in settled
        }

    async def _write(self, number: int, outcomes: AsyncIterator[Outcome], tally: "Tally") -> None:
        """Write the zip file of a part, in the order of its pairs, then its table: from then on it is finished."""
        pairs, to_fetch, known = self._read(number), self._to_fetch(number), None
        if len(to_fetch) < pairs.num_rows:
            known = self._known(number, pairs)
        earlier = {} if known is None else {row["image_id"]: row for row in known.to_pylist()}
        archive, rows = PartArchive(self._unfinished, self._archive(number)), []
        with archive:
            for pair in pairs.to_pylist():
                if pair["image_id"] in to_fetch:
                    row = archive.add(pair, await anext(outcomes))
                elif pair["archive"] or pair["error"]:
                    row = _as_stated(pair)
                else:
                    row = archive.copy(earlier[pair["image_id"]])
                rows.append(row)
                tally.count(row)
        num_bytes = archive.finish()
        about = {"pairs": _digest(pairs), "effort": self._effort, "zip_bytes": str(num_bytes)}
        with (
            full_disk_named(self._unfinished, "the table of a part"),
            whole_file(self._table(number)) as aside,
        ):
            pq.write_table(_rows(rows).replace_schema_metadata(about), aside)


def is_part(path: Path) -> bool:
    """Return whether a file is the zip file of a part."""
    return bool(re.fullmatch(r"images-\d{5,}\.zip", path.name))


class PartArchive:
    """The zip file of a part: stored uncompressed with fixed dates, so that equal images give equal bytes."""

    def __init__(self, unfinished: Path, path: Path) -> None:
        self._aside = unfinished / path.name
        self._path = path

    def __enter__(self) -> "PartArchive":
        self._images = zipfile.ZipFile(self._aside, "w", zipfile.ZIP_STORED)
        self._earlier: zipfile.ZipFile | None = None
        return self

    def __exit__(self, *_: object) -> None:
        with full_disk_named(self._path.parent, self._path.name):
            self._images.close()
        if self._earlier:
            self._earlier.close()

    def add(self, pair: dict[str, str], outcome: Outcome) -> dict[str, Any]:
        """Store a picture, if there is one, and return its row."""
        if isinstance(outcome, FetchError):
            return {**pair, **_row(status="failed", error=f"{outcome.reason}: {outcome}")}
        member = quote(pair["image_id"], safe="") + outcome.suffix  # no id leads out of a folder
        self._write(member, outcome.encoded)
        place = {"archive": self._path.name, "member": member}
        digest = hashlib.sha256(outcome.encoded).hexdigest()
        return {**pair, **place, **_row(num_bytes=len(outcome.encoded), sha256=digest)}

    def copy(self, row: dict[str, Any]) -> dict[str, Any]:
        """Store the picture of a row that an earlier run made, if it has one, and return the row."""
        if row["status"] == "ok":
            self._earlier = self._earlier or zipfile.ZipFile(self._path)
            self._write(row["member"], self._earlier.read(row["member"]))
        return row

    def _write(self, member: str, encoded: bytes) -> None:
        with full_disk_named(self._path.parent, self._path.name):
            self._images.writestr(zipfile.ZipInfo(member), encoded)  # ZipInfo is dated 1980

    def finish(self) -> int:
        """Put the file in its place, unless it holds nothing; return its size."""
        if not self._images.namelist():
            self._aside.unlink()
            self._path.unlink(missing_ok=True)
            return 0
        self._aside.replace(self._path)
        return self._path.stat().st_size


class Tally:
    """What became of the images so far, said every few seconds."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._num_ok = 0
        self._reasons: Counter[str] = Counter()
        self._began = self._last = time.monotonic()

    def count(self, row: dict[str, Any]) -> None:
        """Count a row."""
        if row["status"] == "ok":
            self._num_ok += 1
        else:
            self._reasons[reason(row["error"])] += 1
        if time.monotonic() - self._last >= progress.SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            progress.say(self.line())

    def line(self) -> str:
        """Return the counts as one line."""
        num_failed = self._reasons.total()
        count = self._num_ok + num_failed
        rate = count / max(time.monotonic() - self._began, 1e-9)
        reasons = f" ({name_counts(self._reasons)})" if num_failed else ""
        left = progress.in_time((self._total - count) / rate)
        return (
            f"download: {count:,} of {self._total:,} images, {self._num_ok:,} ok, {num_failed:,} failed{reasons}, "
            f"{rate:,.0f}/s, {left} left"
        )


def reason(error: str) -> str:
    """Return the fixed word that a row's error begins with."""
    return error.partition(":")[0]


def name_counts(reasons: Counter[str]) -> str:
    """Return failures by reason, as a person reads them."""
    return ", ".join(f"{count:,} {word}" for word, count in sorted(reasons.items()))


def _row(
    *, status: str = "ok", error: str = "", num_bytes: int = 0, sha256: str = ""
) -> dict[str, str | int]:
    return {"status": status, "error": error, "num_bytes": num_bytes, "sha256": sha256}


def _as_stated(pair: dict[str, str]) -> dict[str, Any]:
    """Return the row of a pair that needs no fetching."""
    return {**pair, **_row(status="failed" if pair["error"] else "ok", error=pair["error"])}


def _rows(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pydict({name: [row[name] for row in rows] for name in ROW_SCHEMA.names}, ROW_SCHEMA)


def _digest(pairs: pa.Table) -> str:
    """Return the identity of the pairs of a part."""
    columns = [pairs[name].to_pylist() for name in PAIR_SCHEMA.names]
    return hashlib.sha256(repr(columns).encode()).hexdigest()
