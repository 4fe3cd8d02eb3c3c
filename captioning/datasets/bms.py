"""Bristol-Myers Squibb's molecular translation (Kaggle): drawings of molecules, the caption an InChI.

`train_labels.csv` names 2.4 million drawings; drawing 000011a64c74 is train/0/0/0/000011a64c74.png. The pictures of
test, which sample_submission.csv names, have no captions: they get the split `predict`. Nothing here grows with the
number of drawings but tables on disk. Kaggle's one zip of four million members, whose directory alone would fill two
gigabytes in each process that reads it, is packed anew into zips of `images_per_archive` in the order of the labels.
"""

import itertools
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, BinaryIO, Literal
from urllib.parse import urlsplit

import pyarrow as pa
from pydantic import AfterValidator, Field

from captioning import tables
from captioning.datasets import DatasetSettings, Fetch, Source
from captioning.formats.caption_tables import ROWS_PER_BATCH, read_rows
from captioning.formats.large_zips import DamagedMember, Member, read_directory, read_pieces
from captioning.formats.sources import address, below, distinct, local_path
from captioning.home import work
from captioning.progress import progress, say
from captioning.records import PREDICT, Pair

LICENSE = "the competition's rules: for the competition and non-commercial research and education only"
CITATION = "Bristol-Myers Squibb - Molecular Translation, Kaggle, 2021"

ARCHIVE = "kaggle.zip"
PACKED = "packed.parquet"
LABELS = {"train": "train_labels.csv", "test": "sample_submission.csv"}

LABEL_SCHEMA = pa.schema([(name, pa.string()) for name in ("image_id", "part", "caption")])
PACKED_SCHEMA = pa.schema([*LABEL_SCHEMA, ("archive", pa.string()), ("member", pa.string())])
ARROW_TYPES: dict[Any, pa.DataType] = {str: pa.string(), int: pa.int64(), bool: pa.bool_()}
MEMBER_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("part", pa.string()),
        *((field.name, ARROW_TYPES[field.type]) for field in fields(Member)),
    ]
)


class Settings(DatasetSettings):
    """Where the drawings lie, and whether those without captions are wanted."""

    source: str
    """Address or path of Kaggle's zip, or of the folder into which it was unpacked."""
    parts: Annotated[list[Literal["train", "test"]], Field(min_length=1), AfterValidator(distinct)]
    """In this order; test is for prediction."""


def sources(settings: Settings) -> Iterator[Source]:
    """Yield the zip; or the labels, and the folder of drawings where it is on disk."""
    if _is_zip(settings):
        yield Source(place=settings.source, kind="file")
        return
    for part in settings.parts:
        yield Source(place=below(settings.source, LABELS[part]), kind="list")
    if local_path(settings.source):
        yield Source(place=settings.source, kind="folder")


def prepare(folder: Path, settings: Settings, fetch: Fetch) -> None:
    """Fetch the labels, and with them the drawings if they are in a zip; others are fetched pair by pair."""
    if not _is_zip(settings):
        for part in settings.parts:
            fetch(below(address(settings.source), LABELS[part]), folder / LABELS[part], None)
        return
    fetch(address(settings.source), folder / ARCHIVE, None)
    for left in folder.glob("bms-*.zip"):  # by an interrupted run, perhaps of another limit
        left.unlink()
    with tempfile.TemporaryDirectory(dir=work("spill")) as spill:
        _write_members(folder, Path(spill) / "members.parquet")
        _pack(folder, settings, Path(spill))
    for name in (ARCHIVE, *LABELS.values()):
        (folder / name).unlink(missing_ok=True)


def read_pairs(folder: Path, settings: Settings) -> Iterator[Pair]:
    """Yield the drawings in the order of the labels, part by part."""
    if _is_zip(settings):
        rows = (row for batch in tables.read(folder / PACKED) for row in batch.to_pylist())
    else:
        rows = ({**row, "url": _address(settings, row)} for row in _read_labels(folder, settings))
    for row in rows:
        part, caption = row.pop("part"), row.pop("caption")
        is_known = part == "train"
        yield Pair(captions=(caption,) if is_known else (), split="" if is_known else PREDICT, **row)


def _is_zip(settings: Settings) -> bool:
    return urlsplit(settings.source).path.lower().endswith(".zip")


def _address(settings: Settings, row: Mapping[str, str]) -> str:
    image_id = row["image_id"]
    return below(address(settings.source), row["part"], *image_id[:3], f"{image_id}.png")


def _read_labels(folder: Path, settings: Settings) -> Iterator[dict[str, str]]:
    for part in settings.parts:
        if not (folder / LABELS[part]).exists():
            raise ValueError(
                f"{settings.source} has no file {LABELS[part]}; expected Kaggle's archive: check download.source"
            )
        for row in read_rows(folder / LABELS[part], LABELS[part], key="image_id", caption="InChI"):
            yield {"image_id": row.key, "part": part, "caption": row.captions[0]}


def _write_members(folder: Path, path: Path) -> None:
    """Write where in the archive each drawing lies; bring the labels into the folder."""
    tables.write(_batches(_read_members(folder), MEMBER_SCHEMA), path, MEMBER_SCHEMA)


def _read_members(folder: Path) -> Iterator[dict[str, Any]]:
    for member in read_directory(folder / ARCHIVE):
        path = PurePosixPath(member.name)
        for part in {"train", "test"} & set(path.parts[:-1]):
            yield {"image_id": path.stem, "part": part, **vars(member)}
        if path.name in LABELS.values():
            with (folder / ARCHIVE).open("rb") as archive, (folder / path.name).open("wb") as labels:
                labels.writelines(read_pieces(archive, member))


def _batches(rows: Iterator[dict[str, Any]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    while batch := list(itertools.islice(rows, ROWS_PER_BATCH)):
        yield pa.RecordBatch.from_pylist(batch, schema)


def _pack(folder: Path, settings: Settings, spill: Path) -> None:
    """Copy the drawings into small archives in the order of the labels; write in packed.parquet which lies where."""
    labels = itertools.islice(_read_labels(folder, settings), settings.limit)
    num_labels = tables.write(_batches(labels, LABEL_SCHEMA), spill / "labels.parquet", LABEL_SCHEMA)
    with tables.database() as connection, (folder / ARCHIVE).open("rb") as archive:
        tables.open_table(connection, "labels", spill / "labels.parquet", numbered="row")
        tables.open_table(connection, "members", spill / "members.parquet")
        query = "SELECT * FROM labels l LEFT JOIN members m USING (image_id, part) ORDER BY row"
        batches = connection.sql(query).to_arrow_reader(ROWS_PER_BATCH)
        rows = progress(
            (row for batch in batches for row in batch.to_pylist()), total=num_labels, what="bms: packing"
        )
        packed = _batches(_packed(rows, archive, folder, settings), PACKED_SCHEMA)
        tables.write(packed, folder / PACKED, PACKED_SCHEMA)


def _packed(
    rows: Iterator[dict[str, Any]], archive: BinaryIO, folder: Path, settings: Settings
) -> Iterator[dict[str, str]]:
    """Yield the rows with the archive and member into which each drawing was copied, empty if it cannot be read."""
    num_damaged = 0
    for number in itertools.count():
        group = list(itertools.islice(rows, settings.images_per_archive))
        if not group:
            break
        name = f"bms-{number:05d}.zip"
        with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_STORED) as images:
            for row in group:
                encoded = _read_drawing(row, archive, settings.max_image_bytes)
                num_damaged += encoded is None and row["name"] is not None
                place = {"archive": "", "member": ""}
                if encoded is not None:
                    place = {"archive": name, "member": f"{row['image_id']}.png"}
                    images.writestr(zipfile.ZipInfo(place["member"]), encoded)  # ZipInfo is dated 1980
                yield {**{key: row[key] for key in LABEL_SCHEMA.names}, **place}
    if num_damaged:
        say(
            f"bms: {num_damaged:,} drawings are damaged in {settings.source}, or larger than download.max_image_bytes"
        )


def _read_drawing(row: Mapping[str, Any], archive: BinaryIO, max_bytes: int) -> bytes | None:
    """Return the bytes of a drawing, None if the archive lacks it, or if it is damaged or too large."""
    if row["name"] is None or row["size"] > max_bytes:
        return None
    try:
        return b"".join(
            read_pieces(archive, Member(**{field.name: row[field.name] for field in fields(Member)}))
        )
    except DamagedMember:
        return None
