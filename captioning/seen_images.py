"""Which images a model has seen: those it was trained on, and those that chose its best epoch.

A version carries them as `seen_images.npy`, the first eight bytes of the SHA-256 of each picture's file as sorted
uint64: 19 MB for 2.4 million images, of which two then agree by chance with a probability of 2e-7.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from captioning import tables

FILE = "seen_images.npy"
SEEN = ("train", "val")
"""The splits that a training reads."""


@dataclass(frozen=True, kw_only=True)
class CleanImage:
    """An image as it lies in the raw folder."""

    archive: str
    member: str
    sha256: str
    group: str
    """The id of the earliest near-duplicate, or its own: equal for images that look alike."""


def write_seen(clean: Path, splits: Path, path: Path) -> None:
    """Write what a training on these tables sees.

    Raises:
        ValueError: the tables do not belong together.
    """
    seen = [
        np.array([_identity(digest) for digest in digests], np.uint64)
        for digests in (
            rows.filter(pc.is_in(rows["split"], pa.array(SEEN)))["sha256"].to_pylist()
            for rows in _rows(clean, splits)
        )
    ]
    with path.open("wb") as file:
        np.save(file, np.unique(np.concatenate(seen)) if seen else np.array([], np.uint64))


def read_seen(path: Path) -> np.ndarray:
    """Return the identities of the images that a model has seen, sorted uint64."""
    seen: np.ndarray = np.load(path, allow_pickle=False)
    return seen


def read_images(clean: Path, splits: Path, split: str) -> dict[str, CleanImage]:
    """Return the images of a split by image id.

    Raises:
        ValueError: the tables do not belong together.
    """
    return {
        row["image_id"]: CleanImage(
            archive=row["archive"],
            member=row["member"],
            sha256=row["sha256"],
            group=row["twin"] or row["image_id"],
        )
        for rows in _rows(clean, splits)
        for row in rows.filter(pc.equal(rows["split"], split)).to_pylist()
    }


def find_seen(images: Mapping[str, CleanImage], *seen: np.ndarray) -> set[str]:
    """Return the ids of the images that are in one of `seen`, or look like one of these images that is."""
    identities = np.array([_identity(own.sha256) for own in images.values()], np.uint64)
    is_seen = np.zeros(len(identities), bool)
    for own in seen:
        places = np.minimum(np.searchsorted(own, identities), max(len(own) - 1, 0))
        if len(own):
            is_seen |= own[places] == identities
    groups = {image.group for image, is_own in zip(images.values(), is_seen, strict=True) if is_own}
    return {image_id for image_id, image in images.items() if image.group in groups}


def _identity(sha256: str) -> int:
    return int(sha256[:16], 16)


def _rows(clean: Path, splits: Path) -> Iterator[pa.Table]:
    """Yield the kept images with their splits, some at a time; both tables are in one order."""
    images = tables.read(clean / "images.parquet", ["image_id", "archive", "member", "sha256", "twin"])
    placed = tables.read(splits / "images.parquet", ["image_id", "split"])
    for own, places in zip_longest(images, placed):
        if own is None or places is None or not own["image_id"].equals(places["image_id"]):
            raise ValueError(
                f"{splits} does not list the images of {clean} in their order; run `dvc repro --force split`"
            )
        yield pa.Table.from_batches([own]).append_column("split", places["split"])
