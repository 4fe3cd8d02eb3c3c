"""A list of addresses and captions, in CSV, TSV, JSON lines or Parquet; dead links become failed rows.

One row a caption: rows with the same address (or the same id, where a column has one) are one image, whether or not
they stand together. In JSON lines and Parquet a row may hold a list of captions instead.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from pydantic import field_validator

from captioning.datasets import DatasetSettings, Fetch, Source
from captioning.formats.caption_tables import CaptionRow, caption_table, read_rows, suffix
from captioning.formats.sources import address
from captioning.records import Pair

LICENSE = "each image its owner's; the list says which, if anything does (column license of rows.parquet)"
CITATION = "whoever made the list, and the owners of what it names"

LOCAL_SCHEMES = ("file:", "local:")
NO_ADDRESS = "(empty)"
"""Stands for the address that a row lacks, so that it ends as a failed row like any other unusable one."""


class Settings(DatasetSettings):
    """Where the list is, and which columns say what."""

    source: str
    """The list, whose name ends with .csv, .tsv, .jsonl or .parquet: an address or a path."""
    url_column: str
    """Column of the image's address."""
    caption_column: str
    """Column of the caption, or of a list of them."""
    id_column: str | None
    """Column of the image's id; null makes the id from the address."""
    split_column: str | None
    """Column of the split (train, val, test or predict); null where the list states none."""
    license_column: str | None
    """Column of the image's license; null where the list states none."""

    @field_validator("source")
    @classmethod
    def _is_a_table(cls, source: str) -> str:
        suffix(source)
        return source


def sources(settings: Settings) -> Iterator[Source]:
    """Yield the list; what its addresses answer is not looked at."""
    yield Source(place=settings.source, kind="list")


def prepare(folder: Path, settings: Settings, fetch: Fetch) -> None:
    """Fetch the list; the images are fetched pair by pair."""
    fetch(address(settings.source), folder / _table(settings), None)


def read_pairs(folder: Path, settings: Settings) -> Iterator[Pair]:
    """Yield the images in the order in which rows name them first.

    The rows are grouped on disk; memory does not grow with them.
    """
    rows = read_rows(
        folder / _table(settings),
        settings.source,
        key=settings.id_column or settings.url_column,
        caption=settings.caption_column,
        values={
            "url": settings.url_column,
            "split": settings.split_column,
            "license": settings.license_column,
        },
    )
    with caption_table(_checked(row, settings) for row in rows) as table:
        for row in table.images():
            url = row.values["url"]
            yield Pair(
                image_id=row.key if settings.id_column else hashlib.sha256(url.encode()).hexdigest()[:16],
                url=url,
                captions=row.captions,
                split=row.values["split"],
                license=row.values["license"],
            )


def _checked(row: CaptionRow, settings: Settings) -> CaptionRow:
    """Return the row with its address trimmed; refuse one without an id, or with an address that reads this machine."""
    url = row.values["url"].strip() or NO_ADDRESS
    if url.lower().startswith(LOCAL_SCHEMES) and not settings.allow_private_addresses:
        raise ValueError(
            f"{row.place}: {url!r} is a file of this machine, which a list may name only with "
            "download.allow_private_addresses: true; correct the list, or allow it if you wrote the list"
        )
    if settings.id_column and not row.key:
        raise ValueError(f"{row.place}: {settings.id_column} is empty; expected an id for every image")
    return CaptionRow(
        place=row.place,
        key=row.key if settings.id_column else url,
        captions=row.captions,
        values=row.values | {"url": url},
    )


def _table(settings: Settings) -> str:
    return f"urls{suffix(settings.source)}"
