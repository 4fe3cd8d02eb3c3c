"""Raw rows -> images that can be decoded and captions that say something; the rest in quarantine, and why.

Raw rows = kept + quarantined, for images and for captions. Tables are streamed in the order of the rows, beside the
verdicts that need all rows at once.
"""

import contextlib
import itertools
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from captioning import tables
from captioning.cleaning.captions import CaptionLimits, judge_captions
from captioning.cleaning.comparisons import compare_images, find_kept
from captioning.cleaning.images import ImageLimits
from captioning.cleaning.measurements import MEASURED, measure_images, read_measured
from captioning.cleaning.near_duplicates import NearDuplicateSettings
from captioning.fingerprints import code_identity, file_identity, fingerprint
from captioning.home import work
from captioning.outputs import whole_folder

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

IMAGES = pa.schema(
    [field for field in MEASURED if field.name not in {"row", "reason", "detail"}] + [("twin", pa.string())]
)
CAPTIONS = pa.schema(
    {"image_id": pa.string(), "position": pa.int32(), "caption": pa.string(), "flag": pa.string()}
)
QUARANTINE = pa.schema(
    {"image_id": pa.string(), "position": pa.int32(), "reason": pa.string(), "detail": pa.string()}
)
"""Images and captions that were not kept; `position` is -1 for an image."""
DECIDE_MEASUREMENTS = [
    f"captioning.{name}"
    for name in ("images", "cleaning.images", "cleaning.measurements", "cleaning.near_duplicates")
]


class CleanSettings(ImageLimits, CaptionLimits):
    """The `clean` section."""

    near_duplicates: NearDuplicateSettings


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How much was kept, and how much not, by reason, the most frequent first."""

    num_images: int
    num_captions: int
    num_twins: int
    """Kept images that are near-duplicates of an earlier one."""
    num_flagged: int
    """Kept captions with a flag."""
    image_reasons: dict[str, int]
    caption_reasons: dict[str, int]


def clean(raw: Path, folder: Path, settings: CleanSettings) -> Counts:
    """Write images.parquet, captions.parquet and quarantine.parquet into `folder`, whole or not at all.

    A run that was killed is continued: images that it measured are not decoded again.

    Raises:
        ValueError: nothing can be kept, or the captions do not stand in the order of the rows.
    """
    parts = work("clean", _fingerprint(raw, settings))
    with whole_folder(folder, resume_in=parts / "tables") as aside:
        measured, judged = parts / "measured", parts / "captions.parquet"
        measure_images(raw, measured, settings, with_phash=settings.near_duplicates.by == "phash")
        judge_captions(raw, judged, settings)
        with tables.database() as connection:
            compare_images(connection, measured, judged, settings.near_duplicates)
            _write_tables(connection, measured, judged, aside)
            counts = _count(connection, aside)
        _account(raw, aside, counts)
        shutil.rmtree(measured)
        judged.unlink()
    with contextlib.suppress(OSError):  # not empty: the next run has begun
        parts.rmdir()
    return counts


def _fingerprint(raw: Path, settings: CleanSettings) -> str:
    """Return the identity of all that measurements depend on: archives are told apart by size and date."""
    decisive = settings.model_dump(include=set(ImageLimits.model_fields))
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(raw.iterdir())]
    code = code_identity(*(sys.modules[name] for name in DECIDE_MEASUREMENTS))
    with_phash = settings.near_duplicates.by == "phash"
    return fingerprint(
        decisive | {"with_phash": with_phash, "files": files}, file_identity(raw / "rows.parquet"), code
    )


def _write_tables(connection: "DuckDBPyConnection", measured: Path, judged: Path, folder: Path) -> None:
    is_kept = find_kept(connection)
    kept = (images.filter(pc.field("reason") == "") for images in _judged_images(connection, measured))
    tables.write(_batches(kept), folder / "images.parquet", IMAGES)
    kept = (captions.filter(pc.field("reason") == "") for captions in _judged_captions(judged, is_kept))
    tables.write(_batches(kept), folder / "captions.parquet", CAPTIONS)
    rest = itertools.chain(_judged_images(connection, measured), _judged_captions(judged, is_kept))
    quarantined = (rows.filter(pc.field("reason") != "") for rows in rest)
    tables.write(_batches(quarantined), folder / "quarantine.parquet", QUARANTINE)


def _batches(parts: Iterator[pa.Table]) -> Iterator[pa.RecordBatch]:
    return itertools.chain.from_iterable(part.to_batches() for part in parts)


def _judged_images(connection: "DuckDBPyConnection", measured: Path) -> Iterator[pa.Table]:
    """Yield the measured images in order, with the verdicts that show only beside other rows."""
    for part in read_measured(measured):
        first, last = part["row"][0].as_py(), part["row"][-1].as_py()
        reasons, details = part["reason"].to_pylist(), part["detail"].to_pylist()
        twins = [""] * len(part)
        own = connection.execute("SELECT * FROM verdicts WHERE row BETWEEN ? AND ?", [first, last])
        for row, reason, detail, twin in own.fetchall():
            reasons[row - first], details[row - first], twins[row - first] = reason, detail, twin
        columns: dict[str, list[Any]] = {"reason": reasons, "detail": details, "twin": twins}
        columns["position"] = [-1] * len(part)
        stated = {name: part[name] for name in part.column_names if name not in columns}
        yield pa.table(stated | columns)


def _judged_captions(judged: Path, is_kept: np.ndarray) -> Iterator[pa.Table]:
    """Yield the judged captions in order; those of quarantined images have that as their reason, if no other."""
    for batch in tables.read(judged):
        is_orphan = pc.and_(pc.equal(batch["reason"], ""), pa.array(~is_kept[batch["row"].to_numpy()]))
        captions = pa.table(batch)
        for name, value in (("reason", "image-quarantined"), ("detail", "its image is not kept")):
            values = pc.if_else(is_orphan, value, batch[name])
            captions = captions.set_column(captions.schema.get_field_index(name), name, values)
        yield captions


def _count(connection: "DuckDBPyConnection", folder: Path) -> Counts:
    tables.open_table(connection, "quarantine", folder / "quarantine.parquet")
    reasons: dict[bool, dict[str, int]] = {True: {}, False: {}}
    query = """
        SELECT position = -1, reason, count(*) AS num FROM quarantine GROUP BY ALL ORDER BY num DESC, reason
    """
    for is_image, reason, num in connection.sql(query).fetchall():
        reasons[is_image][reason] = num
    tables.open_table(connection, "captions", folder / "captions.parquet")
    flagged = connection.sql("SELECT count(*) FROM captions WHERE flag <> ''").fetchall()
    twins = connection.sql("SELECT count(*) FROM verdicts WHERE twin <> ''").fetchall()
    return Counts(
        num_images=pq.read_metadata(folder / "images.parquet").num_rows,
        num_captions=pq.read_metadata(folder / "captions.parquet").num_rows,
        num_twins=twins[0][0],
        num_flagged=flagged[0][0],
        image_reasons=reasons[True],
        caption_reasons=reasons[False],
    )


def _account(raw: Path, folder: Path, counts: Counts) -> None:
    """Refuse tables that keep nothing; raw = kept + quarantined is a promise of this module."""
    for name, num_kept, reasons in (
        ("rows", counts.num_images, counts.image_reasons),
        ("captions", counts.num_captions, counts.caption_reasons),
    ):
        num_raw = pq.read_metadata(raw / f"{name}.parquet").num_rows
        num_quarantined = sum(reasons.values())
        assert num_raw == num_kept + num_quarantined, f"{name}: {num_raw} raw, {num_kept} kept, {reasons}"
    if not counts.num_images:
        listed = ", ".join(f"{num:,} {reason}" for reason, num in counts.image_reasons.items())
        raise ValueError(
            f"no image of {raw} can be kept ({listed}); correct the source, or relax the section clean"
        )
