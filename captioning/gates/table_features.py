"""Tables of the first three stages -> the feature tables that the gate in front of the costly step judges."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from captioning.gates.rules import TOTALS
from captioning.records import SPLITS

FLAT_DEVIATION = 2.0
"""A picture whose pixels deviate less from their mean, of 255, shows nothing."""


def _columns(**names: str) -> dict[str, str]:
    return {name: kind for kind, those in names.items() for name in those.split()}


RAW_ROWS = _columns(
    text="image_id archive member url split license status error sha256",
    integer="num_bytes",
)
CLEAN_IMAGES = _columns(
    text="image_id archive member split license mode sha256",
    integer="width height num_bytes",
    number="pixel_mean pixel_deviation",
)
CLEAN_CAPTIONS = _columns(text="image_id caption", integer="position")
QUARANTINE = _columns(text="image_id reason detail", integer="position")
SPLIT_IMAGES = _columns(text="image_id split")


@dataclass(frozen=True, kw_only=True)
class Files:
    """The tables that are judged, with the stage that writes each."""

    raw_rows: Path
    images: Path
    captions: Path
    quarantine: Path
    splits: Path

    def __iter__(self) -> Iterator[tuple[Path, Mapping[str, str], str]]:
        """Yield path, columns and stage."""
        yield self.raw_rows, RAW_ROWS, "download"
        yield self.images, CLEAN_IMAGES, "clean"
        yield self.captions, CLEAN_CAPTIONS, "clean"
        yield self.quarantine, QUARANTINE, "clean"
        yield self.splits, SPLIT_IMAGES, "split"


def column_features(path: Path, columns: Mapping[str, str], stage: str) -> pd.DataFrame:
    """Return one row a column of the table in `path`: its type by contract and as found, its missing values.

    Raises:
        ValueError: there is no such table, or it cannot be read.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist; `dvc repro {stage}` writes it")
    try:
        schema = pq.read_schema(path)
        present = [name for name in columns if name in schema.names]
        num_missing = {name: pq.read_table(path, columns=[name]).column(0).null_count for name in present}
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


def _kind(stored: pa.DataType) -> str:
    if pa.types.is_integer(stored):
        return "integer"
    if pa.types.is_floating(stored):
        return "number"
    return "text" if pa.types.is_string(stored) or pa.types.is_large_string(stored) else str(stored)


def features(files: Files) -> dict[str, pd.DataFrame]:
    """Return the feature tables `images`, `captions`, `members` (rows of the split table) and `totals`."""
    images = pd.read_parquet(
        files.images, columns=["image_id", "width", "height", "sha256", "pixel_deviation"]
    )
    captions = pd.read_parquet(files.captions)
    members = pd.read_parquet(files.splits, columns=["image_id", "split"])
    return {
        "images": image_features(images, captions, members),
        "captions": caption_features(images, captions),
        "members": members.assign(is_kept=members["image_id"].isin(images["image_id"]).astype(int)),
        TOTALS: total_features(files, images, captions, members),
    }


def image_features(images: pd.DataFrame, captions: pd.DataFrame, members: pd.DataFrame) -> pd.DataFrame:
    """Return one row a kept image: its size, captions, splits, and the splits that hold the same bytes."""
    content = images["sha256"].where(images["sha256"] != "", images["image_id"])
    placed = pd.DataFrame({"image_id": images["image_id"], "content": content}).merge(members, on="image_id")
    num_splits_of_content = placed.groupby("content")["split"].nunique()
    return pd.DataFrame(
        {
            "image_id": images["image_id"],
            "width": images["width"],
            "height": images["height"],
            "num_captions": _counts(images["image_id"], captions["image_id"].value_counts()),
            "num_splits": _counts(images["image_id"], members["image_id"].value_counts()),
            "num_splits_of_content": _counts(content, num_splits_of_content),
        }
    )


def caption_features(images: pd.DataFrame, captions: pd.DataFrame) -> pd.DataFrame:
    """Return one row a kept caption: its length, and whether its image was kept."""
    return pd.DataFrame(
        {
            "caption": captions["image_id"] + "#" + captions["position"].astype(str),
            "num_characters": captions["caption"].str.strip().str.len(),
            "num_words": _num_words(captions),
            "is_of_kept_image": captions["image_id"].isin(images["image_id"]).astype(int),
        }
    )


def total_features(
    files: Files, images: pd.DataFrame, captions: pd.DataFrame, members: pd.DataFrame
) -> pd.DataFrame:
    """Return one row about the whole data set."""
    num_raw = pq.read_metadata(files.raw_rows).num_rows
    positions = pd.read_parquet(files.quarantine, columns=["position"])["position"]
    num_quarantined = int((positions >= 0).sum())
    return pd.DataFrame(
        {
            "name": ["all"],
            "kept_image_share": len(images) / max(num_raw, 1),
            "num_unaccounted_images": num_raw - len(images) - int((positions < 0).sum()),
            "flat_image_share": float((images["pixel_deviation"] < FLAT_DEVIATION).sum())
            / max(len(images), 1),
            "mean_caption_words": float(_num_words(captions).sum()) / max(len(captions), 1),
            "quarantined_caption_share": num_quarantined / max(len(captions) + num_quarantined, 1),
            **{f"num_{split}_images": int((members["split"] == split).sum()) for split in SPLITS},
        }
    )


def _counts(keys: pd.Series, counts: pd.Series) -> pd.Series:
    return keys.map(counts).fillna(0).astype(int)


def _num_words(captions: pd.DataFrame) -> pd.Series:
    """Count the words between white space of each caption."""
    counts = [len(caption.split()) for caption in captions["caption"]]
    return pd.Series(counts, index=captions.index, dtype="int64")
