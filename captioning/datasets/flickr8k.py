"""Flickr8k as its authors ship it: one zip of photographs, one zip of captions and split lists.

The data set is the images that the authors' split lists name: 6,000 train, 1,000 val, 1,000 test. The archive
and the caption file have some more, in no list; they are left out, and their number is said. A listed image
that the archive lacks becomes a failed row; one without captions is quarantined by the next stage.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pydantic import field_validator

from captioning.datasets import DatasetSettings, Fetch, Source
from captioning.formats.caption_tables import read_numbered
from captioning.formats.sources import below, members_by_name, open_text, refuse_unknown_checksums
from captioning.progress import say
from captioning.records import Pair

LICENSE = "photographs belong to their Flickr users: non-commercial research and education only"
CITATION = "Hodosh, Young and Hockenmaier: Framing Image Description as a Ranking Task, JAIR 47, 2013"

IMAGES = "Flickr8k_Dataset.zip"
TEXTS = "Flickr8k_text.zip"
CAPTIONS = "Flickr8k.token.txt"
SPLIT_LISTS = {
    "Flickr_8k.trainImages.txt": "train",
    "Flickr_8k.devImages.txt": "val",
    "Flickr_8k.testImages.txt": "test",
}


class Settings(DatasetSettings):
    """Where the two archives come from."""

    source: str
    """Address under which both lie: https://, http:// or file://."""
    checksums: dict[str, str]
    """Archive -> its sha256 in hexadecimal; an archive without one is not checked."""

    @field_validator("checksums")
    @classmethod
    def _names_an_archive(cls, checksums: dict[str, str]) -> dict[str, str]:
        refuse_unknown_checksums(checksums, (IMAGES, TEXTS))
        return checksums


def sources(settings: Settings) -> Iterator[Source]:
    """Yield both archives."""
    for name in (TEXTS, IMAGES):
        place = below(settings.source, name)
        yield Source(place=place, kind="file", sha256=settings.checksums.get(name))


def prepare(folder: Path, settings: Settings, fetch: Fetch) -> None:
    """Fetch both archives."""
    for name in (TEXTS, IMAGES):
        fetch(below(settings.source, name), folder / name, settings.checksums.get(name))


def read_pairs(folder: Path, settings: Settings) -> Iterator[Pair]:
    """Yield the listed images in the order of the caption file, those that it does not name last."""
    with zipfile.ZipFile(folder / IMAGES) as archive:
        members = members_by_name(archive)
    with zipfile.ZipFile(folder / TEXTS) as texts, open_text(texts, CAPTIONS) as lines:
        splits = _read_splits(texts)
        captions = read_numbered(lines, f"{TEXTS}: {CAPTIONS}")
    if unlisted := len((captions.keys() | members.keys()) - splits.keys()):
        say(f"flickr8k: {unlisted:,} images in no split list are left out")
    listed = [name for name in dict.fromkeys([*captions, *splits]) if name in splits]
    for name in listed:
        yield Pair(
            image_id=PurePosixPath(name).stem,
            archive=IMAGES if name in members else "",
            member=members.get(name, name),
            captions=tuple(captions.get(name, ())),
            split=splits[name],
            license="Flickr8k: research and education only",
        )


def _read_splits(texts: zipfile.ZipFile) -> dict[str, str]:
    splits: dict[str, str] = {}
    for list_name, split in SPLIT_LISTS.items():
        with open_text(texts, list_name) as names:
            for name in names.read().split():
                if splits.setdefault(name, split) != split:
                    raise ValueError(
                        f"{TEXTS}: {name} is listed for {splits[name]} and for {split}; expected one"
                    )
    return splits
