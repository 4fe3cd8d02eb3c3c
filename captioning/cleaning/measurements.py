"""Raw rows -> measurements: every image is decoded once, on all processors, in parts that survive a killed run.

A part is a fixed number of rows and becomes a numbered table; the next run goes on with the parts that are not there.
"""

import itertools
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from captioning import tables, workers
from captioning.cleaning.images import ImageLimits, Measurement, measure_image
from captioning.images import BadImage, ImageFolder, open_folder
from captioning.outputs import whole_file
from captioning.progress import progress, say

ROWS_PER_PART = 10_000
"""Measured again at most, after a run was killed."""
IMAGES_PER_PIECE = 64
"""Looked at by one process at a time."""
STATED = ["image_id", "source", "archive", "member", "split", "license"]
"""Columns of rows.parquet that stay with the image."""
HASHING = ["torch", "imagehash", "scipy.fftpack"]
"""Slow imports that perceptual hashes need, made once for all processes."""
READ = [*STATED, "status", "error"]
ARROW_TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64()}
MEASURED = pa.schema(
    {"row": pa.int64()}
    | dict.fromkeys(STATED, pa.string())
    | {name: ARROW_TYPES[kind] for name, kind in Measurement.__annotations__.items()}
    | dict.fromkeys(["width", "height"], pa.int32())
)
"""One row an image, in the order of rows.parquet; `row` is its number there."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Some rows of a part, for one process."""

    raw: Path
    first_row: int
    rows: list[tuple[Any, ...]]
    """With the columns `READ`."""
    limits: ImageLimits
    with_phash: bool


def measure_images(raw: Path, folder: Path, limits: ImageLimits, *, with_phash: bool) -> None:
    """Measure every image of `raw` that `folder` has no measurement of; write tables of `MEASURED`, one a part."""
    folder.mkdir(parents=True, exist_ok=True)
    num_rows = pq.read_metadata(raw / "rows.parquet").num_rows
    present = {int(path.stem) for path in folder.glob("*.parquet")}
    num_present = sum(pq.read_metadata(_path(folder, part)).num_rows for part in present)
    if present:
        say(f"clean: {num_present:,} of {num_rows:,} images were measured by an earlier run")
    pieces = _pieces(raw, present, limits, with_phash=with_phash)
    rows = progress(_measure_pieces(pieces), total=num_rows - num_present, what="clean")
    for part, own in itertools.groupby(rows, key=lambda row: int(row[0]) // ROWS_PER_PART):
        with whole_file(_path(folder, part)) as aside:
            columns = [pa.array(*typed) for typed in zip(zip(*own, strict=True), MEASURED.types, strict=True)]
            pq.write_table(pa.Table.from_arrays(columns, schema=MEASURED), aside)


def _path(folder: Path, part: int) -> Path:
    return folder / f"{part:06d}.parquet"


def read_measured(folder: Path) -> Iterator[pa.Table]:
    """Yield the measurements in the order of the rows, `ROWS_PER_PART` at a time."""
    for path in sorted(folder.glob("*.parquet"), key=lambda path: int(path.stem)):
        yield pq.read_table(path)


def _pieces(raw: Path, present: set[int], limits: ImageLimits, *, with_phash: bool) -> Iterator[Piece]:
    """Cut the rows of the parts that are not present; no piece lies in two parts."""
    numbered = enumerate(
        itertools.chain.from_iterable(
            zip(*(batch[name].to_pylist() for name in READ), strict=True)
            for batch in tables.read(raw / "rows.parquet", READ, ROWS_PER_PART)
        )
    )
    raw = raw.resolve()  # workers have working directories of their own
    for part, own in itertools.groupby(numbered, key=lambda row: row[0] // ROWS_PER_PART):
        if part in present:
            continue
        while rows := list(itertools.islice(own, IMAGES_PER_PIECE)):
            yield Piece(
                raw=raw,
                first_row=rows[0][0],
                rows=[row for _, row in rows],
                limits=limits,
                with_phash=with_phash,
            )


def _measure_pieces(pieces: Iterator[Piece]) -> Iterator[tuple[Any, ...]]:
    """Yield measured rows in order; one piece is measured here, sooner than a process starts."""
    first = list(itertools.islice(pieces, 2))
    if len(first) < 2:
        measured: Iterable[list[tuple[Any, ...]]] = map(measure_piece, first)
    else:
        measured = workers.run(
            measure_piece, itertools.chain(first, pieces), preload=HASHING if first[0].with_phash else ()
        )
    yield from itertools.chain.from_iterable(measured)


def measure_piece(piece: Piece) -> list[tuple[Any, ...]]:
    """Return the rows of a piece with their measurements, in the order of `MEASURED`."""
    source = open_folder(piece.raw)
    return [
        (number, *row[: len(STATED)], *_measure_row(dict(zip(READ, row, strict=True)), source, piece))
        for number, row in enumerate(piece.rows, start=piece.first_row)
    ]


def _measure_row(row: dict[str, Any], source: ImageFolder, piece: Piece) -> Measurement:
    if row["status"] != "ok":
        return Measurement(reason="failed-download", detail=row["error"])
    try:
        encoded = source.read(row["archive"], row["member"])
    except BadImage as error:  # a decompression bomb
        return Measurement(reason="undecodable", detail=str(error))
    except (OSError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        place = row["archive"] or "its folder"
        return Measurement(reason="unreadable", detail=f"{row['member']} in {place}: {type(error).__name__}")
    return measure_image(encoded, piece.limits, with_phash=piece.with_phash)
