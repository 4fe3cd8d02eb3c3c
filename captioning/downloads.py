"""A data set's archives and single images -> one folder of raw data with one row an image, fetched or not."""

import hashlib
import itertools
import zipfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from captioning import lookup
from captioning.datasets import DatasetSettings
from captioning.fetching import FetchError, fetch, fetch_image
from captioning.outputs import whole_folder
from captioning.records import Pair

ARCHIVE = "images.zip"
"""Holds the images that were fetched one by one."""
ROWS_PER_GROUP = 10_000
"""Rows held in memory and written as one row group of a table."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of one image: a row of rows.parquet."""

    image_id: str
    archive: str
    member: str
    url: str
    split: str
    license: str
    status: str = "ok"
    """`ok` or `failed`."""
    error: str = ""
    """A fixed word, a colon and a sentence; empty if all went well."""
    num_bytes: int = 0
    """Of the image if it was fetched singly."""
    sha256: str = ""
    """Of the image if it was fetched singly."""


ROW_SCHEMA = pa.schema(
    [(field.name, pa.int64() if field.type is int else pa.string()) for field in fields(Row)]
)
CAPTION_SCHEMA = pa.schema([("image_id", pa.string()), ("position", pa.int32()), ("caption", pa.string())])


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How much a download brought."""

    num_images: int
    num_captions: int
    reasons: dict[str, int]
    """Failed images by the fixed word that says why."""

    @property
    def num_failed(self) -> int:
        """Return the number of images that could not be fetched."""
        return sum(self.reasons.values())


def read_settings(section: Mapping[str, Any]) -> DatasetSettings:
    """Return the settings of the data set that the `download` section names."""
    name = section.get("dataset")
    if not isinstance(name, str):
        raise ValueError(f"dataset: expected one of {', '.join(lookup.names('datasets'))}, got {name!r}")
    settings: DatasetSettings = lookup.find("datasets", name).Settings.model_validate(dict(section))
    return settings


def download(settings: DatasetSettings, folder: Path) -> Counts:
    """Bring a data set into `folder`, which appears whole or not at all.

    Writes the data set's own archives, images.zip with the images that have no archive, and the tables
    rows.parquet and captions.parquet.

    Raises:
        ValueError: there are no images, ids repeat, or more than `max_failed_share` of the images failed.
    """
    dataset = lookup.find("datasets", settings.dataset)

    def fetch_file(url: str, path: Path, sha256: str | None = None) -> None:
        fetch(url, path, sha256, timeout_seconds=settings.timeout_seconds, retries=settings.retries)

    with whole_folder(folder) as aside:
        dataset.prepare(aside, settings, fetch_file)
        pairs = itertools.islice(dataset.read_pairs(aside, settings), settings.limit)
        counts = _write_tables(_refuse_repeated_ids(pairs), aside, settings)
        _refuse_failures(counts, settings)
    return counts


def _refuse_repeated_ids(pairs: Iterable[Pair]) -> Iterator[Pair]:
    seen: set[str] = set()
    for pair in pairs:
        if pair.image_id in seen:
            raise ValueError(
                f"image_id {pair.image_id!r} occurs twice; every image needs its own id: correct the source, "
                "or the way the data set's module makes ids"
            )
        seen.add(pair.image_id)
        yield pair


def _refuse_failures(counts: Counts, settings: DatasetSettings) -> None:
    if not counts.num_images:
        raise ValueError(
            f"data set {settings.dataset!r} has no images; check its settings in the section download"
        )
    share = counts.num_failed / counts.num_images
    if share > settings.max_failed_share:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.reasons.items()))
        raise ValueError(
            f"{counts.num_failed:,} of {counts.num_images:,} images could not be fetched ({reasons}): "
            f"a share of {share:.4f}, at most {settings.max_failed_share} is allowed; "
            "correct the source, try again later, or raise download.max_failed_share"
        )


def _write_tables(pairs: Iterable[Pair], folder: Path, settings: DatasetSettings) -> Counts:
    """Fetch the images of `pairs` and write both tables, a group of rows at a time."""
    num_images = num_captions = 0
    reasons: Counter[str] = Counter()
    outcomes = fetch_images(
        pairs,
        folder / ARCHIVE,
        timeout_seconds=settings.timeout_seconds,
        retries=settings.retries,
        num_connections=settings.num_connections,
    )
    with (
        pq.ParquetWriter(folder / "rows.parquet", ROW_SCHEMA) as row_table,
        pq.ParquetWriter(folder / "captions.parquet", CAPTION_SCHEMA) as caption_table,
    ):
        while group := list(itertools.islice(outcomes, ROWS_PER_GROUP)):
            captions = [
                {"image_id": pair.image_id, "position": position, "caption": caption}
                for pair, _ in group
                for position, caption in enumerate(pair.captions)
            ]
            row_table.write_table(pa.Table.from_pylist([asdict(row) for _, row in group], ROW_SCHEMA))
            caption_table.write_table(pa.Table.from_pylist(captions, CAPTION_SCHEMA))
            reasons.update(row.error.split(":")[0] for _, row in group if row.status == "failed")
            num_images += len(group)
            num_captions += len(captions)
    return Counts(num_images=num_images, num_captions=num_captions, reasons=dict(reasons))


def fetch_images(
    pairs: Iterable[Pair], archive: Path, *, timeout_seconds: float, retries: int, num_connections: int
) -> Iterator[tuple[Pair, Row]]:
    """Yield every pair with its row, in order, while images that are in no archive go into the zip `archive`.

    A failure is a row, never an exception. The zip is stored uncompressed with fixed dates, so that equal
    images give equal bytes; it is made only if an image needs it.
    """

    def attempt(pair: Pair) -> bytes | FetchError:
        try:
            return fetch_image(pair.url, timeout_seconds=timeout_seconds, retries=retries)
        except FetchError as error:
            return error

    images: zipfile.ZipFile | None = None
    try:
        for pair, outcome in _overlap(attempt, pairs, num_connections):
            if isinstance(outcome, FetchError):
                yield pair, _row(pair, status="failed", error=f"{outcome.reason}: {outcome}")
            elif outcome is None:
                yield pair, _row(pair)
            else:
                images = images or zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED)
                member = pair.image_id + Path(urlsplit(pair.url).path).suffix.lower()
                images.writestr(zipfile.ZipInfo(member), outcome)  # ZipInfo is dated 1980
                place = {"archive": archive.name, "member": member}
                digest = hashlib.sha256(outcome).hexdigest()
                yield pair, _row(pair, **place, num_bytes=len(outcome), sha256=digest)
    finally:
        if images:
            images.close()


def _overlap(
    attempt: Callable[[Pair], bytes | FetchError], pairs: Iterable[Pair], num_connections: int
) -> Iterator[tuple[Pair, bytes | FetchError | None]]:
    """Yield pairs in order with their images, None if in an archive; memory holds four a connection."""
    pending: deque[tuple[Pair, Future[bytes | FetchError] | None]] = deque()
    with ThreadPoolExecutor(num_connections) as connections:
        for pair in pairs:
            pending.append((pair, None if pair.archive else connections.submit(attempt, pair)))
            if len(pending) >= 4 * num_connections:
                first, future = pending.popleft()
                yield first, future.result() if future else None
        for first, future in pending:
            yield first, future.result() if future else None


def _row(pair: Pair, **outcome: Any) -> Row:
    stated = asdict(pair)
    del stated["captions"]
    return Row(**{**stated, **outcome})
