"""Your own pictures: a folder on disk, and a table of captions in CSV, TSV, JSON lines or Parquet.

One row a caption, so that several rows may name one image, whether or not they stand together; in JSON lines and
Parquet a row may hold a list of captions instead. Images are named relative to the folder. An image that is named
but not there becomes a failed row; one that is there but not named is left out, or captioned as `predict`.
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import field_validator

from captioning.datasets import DatasetSettings, Fetch, Source
from captioning.formats.caption_tables import CaptionRow, caption_table, read_rows, suffix
from captioning.formats.sources import address, local_path
from captioning.progress import say
from captioning.records import PREDICT, Pair

LICENSE = (
    "your own pictures, or their owners': whatever you may do with them (column license of rows.parquet)"
)
CITATION = "whoever took the pictures and wrote the captions"

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")
"""Files of a folder that are pictures, also in capital letters."""


class Settings(DatasetSettings):
    """Where the pictures and captions are, and which columns say what."""

    images: str
    """Folder of the images: a path from the project root, or a file:// address."""
    captions: str
    """Table of captions, whose name ends with .csv, .tsv, .jsonl or .parquet: an address or a path."""
    image_column: str
    """Column of the image's name, relative to the folder."""
    caption_column: str
    """Column of the caption, or of a list of them."""
    split_column: str | None
    """Column of the split (train, val, test or predict); null where the table states none."""
    license_column: str | None
    """Column of the image's license; null where the table states none."""
    uncaptioned: Literal["leave_out", "predict"]
    """What becomes of pictures that no row names."""

    @field_validator("images")
    @classmethod
    def _is_on_disk(cls, images: str) -> str:
        if "://" in images and not images.startswith("file://"):
            raise ValueError(f"{images!r} is no folder on disk; for images at addresses use `dataset: urls`")
        return images

    @field_validator("captions")
    @classmethod
    def _is_a_table(cls, captions: str) -> str:
        suffix(captions)
        return captions


def sources(settings: Settings) -> Iterator[Source]:
    """Yield the table and the folder."""
    yield Source(place=settings.captions, kind="list")
    yield Source(place=settings.images, kind="folder")


def prepare(folder: Path, settings: Settings, fetch: Fetch) -> None:
    """Fetch the table of captions; the images are copied pair by pair."""
    if not _images(settings).is_dir():
        raise ValueError(
            f"download.images: {settings.images!r} is no folder; {_images(settings)} does not exist"
        )
    fetch(address(settings.captions), folder / _table(settings), None)


def read_pairs(folder: Path, settings: Settings) -> Iterator[Pair]:
    """Yield the images in the order in which rows name them first, then those that no row names, sorted.

    The rows are grouped on disk; memory does not grow with them.
    """
    rows = read_rows(
        folder / _table(settings),
        settings.captions,
        key=settings.image_column,
        caption=settings.caption_column,
        values={"split": settings.split_column, "license": settings.license_column},
    )
    images = _images(settings)
    with caption_table(_inside(row) for row in rows) as table:
        for row in table.images():
            yield Pair(
                image_id=_image_id(row.key),
                url=(images / row.key).as_uri(),
                captions=row.captions,
                split=row.values["split"],
                license=row.values["license"],
            )
        num_left_out = 0
        for name in table.others(_walk(images)):
            if settings.uncaptioned == PREDICT:
                yield Pair(image_id=_image_id(name), url=(images / name).as_uri(), split=PREDICT)
            else:
                num_left_out += 1
        if num_left_out:
            say(f"folder: {num_left_out:,} images that {settings.captions} does not name are left out")


def _inside(row: CaptionRow) -> CaptionRow:
    """Return the row with the image's name in one form; refuse a name that leads out of the folder."""
    name = PurePosixPath(row.key)
    if name.is_absolute() or ".." in name.parts or not name.name:
        raise ValueError(
            f"{row.place} names the image {row.key!r}; expected the name of a file inside the folder"
        )
    return CaptionRow(place=row.place, key=str(name), captions=row.captions, values=row.values)


def _walk(images: Path) -> Iterator[str]:
    """Yield the names of all pictures in a folder and its folders, relative to it; hidden ones are passed over."""
    for where, folders, names in os.walk(images):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES):
                path = (Path(where) / name).relative_to(images).as_posix()
                if any("\ud800" <= character <= "\udfff" for character in path):
                    raise ValueError(
                        f"download.images: {path!r} in {images} is no name in UTF-8; rename the file"
                    )
                yield path


def _image_id(name: str) -> str:
    """Return the name without the suffix of a picture."""
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in IMAGE_SUFFIXES else name


def _images(settings: Settings) -> Path:
    images = local_path(address(settings.images))
    assert images is not None, "the settings refuse other addresses"
    return images


def _table(settings: Settings) -> str:
    return f"captions{suffix(settings.captions)}"
