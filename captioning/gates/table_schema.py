"""Which columns the tables of the first three stages have, by contract and as found."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq


def _columns(**names: str) -> dict[str, str]:
    return {name: kind for kind, those in names.items() for name in those.split()}


RAW_ROWS = _columns(
    text="image_id source archive member url split license status error sha256",
    integer="num_bytes",
)
CAPTIONS = _columns(text="image_id caption", integer="position")
CLEAN_IMAGES = _columns(
    text="image_id source archive member split license mode sha256 phash twin",
    integer="width height num_bytes",
    number="pixel_mean pixel_deviation",
)
CLEAN_CAPTIONS = CAPTIONS | _columns(text="flag")
QUARANTINE = _columns(text="image_id reason detail", integer="position")
SPLIT_IMAGES = _columns(text="image_id split")


@dataclass(frozen=True, kw_only=True)
class Files:
    """The tables that are judged, with the stage that writes each."""

    raw_rows: Path
    raw_captions: Path
    images: Path
    captions: Path
    quarantine: Path
    splits: Path

    @classmethod
    def of(cls, raw: Path, clean: Path, splits: Path) -> "Files":
        """Return the tables in the folders of the three stages."""
        return cls(
            raw_rows=raw / "rows.parquet",
            raw_captions=raw / "captions.parquet",
            images=clean / "images.parquet",
            captions=clean / "captions.parquet",
            quarantine=clean / "quarantine.parquet",
            splits=splits / "images.parquet",
        )

    def __iter__(self) -> Iterator[tuple[Path, Mapping[str, str], str]]:
        """Yield path, columns and stage."""
        yield self.raw_rows, RAW_ROWS, "download"
        yield self.raw_captions, CAPTIONS, "download"
        yield self.images, CLEAN_IMAGES, "clean"
        yield self.captions, CLEAN_CAPTIONS, "clean"
        yield self.quarantine, QUARANTINE, "clean"
        yield self.splits, SPLIT_IMAGES, "split"


def describe_columns(path: Path, columns: Mapping[str, str], stage: str) -> pd.DataFrame:
    """Return one row a column of the table in `path`: its type by contract and as found, its missing values.

    Raises:
        ValueError: there is no such table, or it cannot be read.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist; `dvc repro {stage}` writes it")
    try:
        with pq.ParquetFile(path) as table:
            schema = table.schema_arrow
            present = [name for name in columns if name in schema.names]
            num_missing = {name: _num_missing(table, name) for name in present}
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{path} is not a readable table ({error}); `dvc repro --force {stage}` writes it anew"
        ) from None
    return pd.DataFrame(
        {
            "column": [f"{path.parent.name}/{path.name}:{name}" for name in columns],
            "contract": list(columns.values()),
            "found": [_kind(schema.field(name).type) if name in present else "absent" for name in columns],
            "num_missing": [num_missing.get(name, 0) for name in columns],
        }
    )


def _num_missing(table: pq.ParquetFile, name: str) -> int:
    """Return the missing values of a column, as its row groups state them; of those that do not, counted."""
    number, missing = table.schema_arrow.names.index(name), 0
    for group in range(table.num_row_groups):
        statistics = table.metadata.row_group(group).column(number).statistics
        if statistics is not None and statistics.has_null_count:
            missing += statistics.null_count
        else:
            missing += table.read_row_group(group, columns=[name]).column(0).null_count
    return missing


def _kind(stored: pa.DataType) -> str:
    if pa.types.is_integer(stored):
        return "integer"
    if pa.types.is_floating(stored):
        return "number"
    return "text" if pa.types.is_string(stored) or pa.types.is_large_string(stored) else str(stored)
