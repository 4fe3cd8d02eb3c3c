"""Real full-size photographs, repeated as rows of the tables that the preprocess stage reads."""

import os
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from captioning.images import PixelTransform
from captioning.preprocessing import PreprocessSettings

SIDE_PIXELS = 256
CAPTION = "a photograph of something that somebody saw somewhere"


class Unavailable(Exception):
    """Something that a measurement needs is not on this machine; the message says what."""


def photographs() -> list[Path]:
    """Return the full-size JPEG files."""
    return sorted(shared("coco_cc_by/images").glob("*.jpg"))


def shared(name: str) -> Path:
    """Return a file or folder of the real data.

    Raises:
        Unavailable: it is not there.
    """
    root = Path(os.environ.get("CAPTIONING_SHARED") or Path(__file__).parents[2] / "shared")
    path = root / "data" / name
    if not path.exists():
        raise Unavailable(f"no {path}; set CAPTIONING_SHARED")
    return path


def settings(images_per_shard: int) -> PreprocessSettings:
    """Return the settings of the comparison: 256 x 256 pixels."""
    return PreprocessSettings(
        image=PixelTransform(height=SIDE_PIXELS, width=SIDE_PIXELS),
        storage="pixels",
        jpeg_quality=95,
        tokens="words",
        min_word_count=1,
        max_words=24,
        images_per_shard=images_per_shard,
    )


def write_tables(folder: Path, num_images: int) -> None:
    """Write `raw`, `clean` and `splits` with the photographs repeated to `num_images` rows."""
    photos = photographs()
    for name in ("raw", "clean", "splits"):
        (folder / name).mkdir(parents=True)
    with zipfile.ZipFile(folder / "raw" / "photos.zip", "w", zipfile.ZIP_STORED) as archive:
        for photo in photos:
            archive.write(photo, photo.name)
    ids = [f"{number:09d}" for number in range(num_images)]
    rows = {
        "image_id": ids,
        "archive": ["photos.zip"] * num_images,
        "member": [photos[number % len(photos)].name for number in range(num_images)],
    }
    pq.write_table(pa.table(rows), folder / "clean" / "images.parquet")
    captions = {
        "image_id": ids,
        "position": pa.array([0] * num_images, pa.int32()),
        "caption": [CAPTION] * num_images,
    }
    pq.write_table(pa.table(captions), folder / "clean" / "captions.parquet")
    splits = {"image_id": ids, "split": ["train"] * num_images}
    pq.write_table(pa.table(splits), folder / "splits" / "images.parquet")
