"""Clean images -> exactly one split each, train, val or test."""

import hashlib
import math
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import Field, field_validator, model_validator

from captioning.outputs import whole_folder
from captioning.params import Settings
from captioning.records import SPLITS


class Ratios(Settings):
    """Shares of the images, which add up to 1."""

    train: float = Field(gt=0, lt=1)
    val: float = Field(gt=0, lt=1)
    test: float = Field(gt=0, lt=1)

    @model_validator(mode="after")
    def _add_up(self) -> "Ratios":
        total = self.train + self.val + self.test
        if not math.isclose(total, 1, abs_tol=1e-6):
            raise ValueError(f"train, val and test add up to {total:g}, expected 1")
        return self


class SplitSettings(Settings):
    """How images come into splits."""

    policy: Literal["dataset", "ratios"]
    """`dataset`: as the data set states; `ratios`: by a keyed hash of the image id."""
    ratios: Ratios
    """Used by the policy `ratios`."""
    key: str
    """Of the hash: another key, another assignment."""

    @field_validator("key")
    @classmethod
    def _is_short(cls, key: str) -> str:
        if not 1 <= len(key.encode()) <= hashlib.blake2b.MAX_KEY_SIZE:
            raise ValueError(
                f"{key!r} has {len(key.encode())} bytes, expected 1 to {hashlib.blake2b.MAX_KEY_SIZE}"
            )
        return key


def write_splits(clean: Path, folder: Path, settings: SplitSettings) -> dict[str, int]:
    """Write images.parquet (image_id, split), in the order of the clean images, into `folder`, whole or not.

    Returns:
        The number of images of each split.

    Raises:
        ValueError: an image states no split that the policy could use, or a split would be empty.
    """
    images = pd.read_parquet(clean / "images.parquet", columns=["image_id", "split"])
    images["split"] = stated(images) if settings.policy == "dataset" else hashed(images["image_id"], settings)
    counts = {split: int((images["split"] == split).sum()) for split in SPLITS}
    _refuse_empty(counts, settings)
    with whole_folder(folder) as aside:
        images.to_parquet(aside / "images.parquet", index=False)
    return counts


def stated(images: pd.DataFrame) -> pd.Series:
    """Return the splits that the data set states; every image must have one."""
    other = images[~images["split"].isin(SPLITS)]
    if len(other):
        values = ", ".join(repr(value) for value in sorted(other["split"].unique())[:5])
        raise ValueError(
            f"{len(other):,} of {len(images):,} images state none of train, val and test, but {values}, "
            f"first {other['image_id'].iloc[0]!r}; set split.policy to ratios, or correct the source"
        )
    return images["split"]


def hashed(image_ids: pd.Series, settings: SplitSettings) -> pd.Series:
    """Return splits by a keyed hash of each id alone: an image keeps its split while the data grow."""
    until_val = settings.ratios.train
    until_test = until_val + settings.ratios.val

    def split_of(image_id: str) -> str:
        position = _position(image_id, settings.key)
        return "train" if position < until_val else "val" if position < until_test else "test"

    return image_ids.map(split_of)


def _position(image_id: str, key: str) -> float:
    """Return a number in [0, 1), uniform over ids."""
    digest = hashlib.blake2b(image_id.encode(), digest_size=8, key=key.encode()).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53  # 53 bits: what a float holds exactly


def _refuse_empty(counts: dict[str, int], settings: SplitSettings) -> None:
    empty = [split for split in SPLITS if not counts[split]]
    if empty:
        next_step = (
            "set split.policy to ratios"
            if settings.policy == "dataset"
            else "raise its share in split.ratios"
        )
        stated_counts = ", ".join(f"{counts[split]:,} {split}" for split in SPLITS)
        raise ValueError(
            f"no image in {' and '.join(empty)} ({stated_counts}); "
            f"expected at least one in each: bring more images (download.limit), or {next_step}"
        )
