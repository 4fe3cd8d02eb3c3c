"""Flickr30k: a zip of its photographs and results_20130124.token, five captions a photograph.

Its authors send a link to flickr30k-images.tar.gz, which is read from its beginning for every picture; make a zip
of it once: `tar xzf flickr30k-images.tar.gz && zip -0 -r flickr30k-images.zip flickr30k-images`.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pydantic import field_validator

from captioning.datasets import DatasetSettings, Fetch, Source
from captioning.formats.caption_tables import read_numbered
from captioning.formats.karpathy_splits import read_splits
from captioning.formats.sources import address, members_by_name, refuse_unknown_checksums
from captioning.progress import say
from captioning.records import Pair

LICENSE = "photographs belong to their Flickr users: non-commercial research and education only"
CITATION = "Young et al.: From Image Descriptions to Visual Denotations, TACL 2, 2014"

IMAGES = "flickr30k-images.zip"
CAPTIONS = "results_20130124.token"
KARPATHY = "dataset_flickr30k.json"


class Settings(DatasetSettings):
    """Where the photographs, the captions and the splits come from."""

    images: str
    """Address or path of a zip of the photographs."""
    captions: str
    """Address or path of results_20130124.token."""
    karpathy: str | None
    """Address or path of Karpathy's dataset_flickr30k.json; null states no splits: use `split.policy: ratios`."""
    checksums: dict[str, str]
    """flickr30k-images.zip or results_20130124.token -> its sha256; what has none is not checked."""

    @field_validator("images")
    @classmethod
    def _is_a_zip(cls, images: str) -> str:
        if not images.lower().endswith(".zip"):
            raise ValueError(
                f"{images!r} is no zip, which alone can be read picture by picture; make one: "
                "`tar xzf flickr30k-images.tar.gz && zip -0 -r flickr30k-images.zip flickr30k-images`"
            )
        return images

    @field_validator("checksums")
    @classmethod
    def _names_a_file(cls, checksums: dict[str, str]) -> dict[str, str]:
        refuse_unknown_checksums(checksums, (IMAGES, CAPTIONS))
        return checksums


def sources(settings: Settings) -> Iterator[Source]:
    """Yield the captions, Karpathy's splits if wanted, and the photographs."""
    yield Source(place=settings.captions, kind="list", sha256=settings.checksums.get(CAPTIONS))
    if settings.karpathy:
        yield Source(place=settings.karpathy, kind="list")
    yield Source(place=settings.images, kind="file", sha256=settings.checksums.get(IMAGES))


def prepare(folder: Path, settings: Settings, fetch: Fetch) -> None:
    """Fetch the captions, Karpathy's splits if wanted, and the photographs."""
    fetch(address(settings.captions), folder / CAPTIONS, settings.checksums.get(CAPTIONS))
    if settings.karpathy:
        fetch(address(settings.karpathy), folder / KARPATHY, None)
    fetch(address(settings.images), folder / IMAGES, settings.checksums.get(IMAGES))


def read_pairs(folder: Path, settings: Settings) -> Iterator[Pair]:
    """Yield the photographs in the order of the caption file; those that Karpathy does not name are left out.

    Memory holds all captions, 158,915 short strings.
    """
    with zipfile.ZipFile(folder / IMAGES) as archive:
        members = members_by_name(archive)
    with (folder / CAPTIONS).open(encoding="utf-8") as lines:
        captions = read_numbered(lines, CAPTIONS)
    splits = read_splits(folder / KARPATHY) if settings.karpathy else dict.fromkeys(captions, "")
    if unlisted := len(captions.keys() - splits.keys()):
        say(f"flickr30k: {unlisted:,} images that Karpathy's splits do not name are left out")
    if uncaptioned := len(members.keys() - captions.keys()):
        say(f"flickr30k: {uncaptioned:,} files of {IMAGES} without captions are left out")
    for name in [name for name in captions if name in splits]:
        yield Pair(
            image_id=PurePosixPath(name).stem,
            archive=IMAGES if name in members else "",
            member=members.get(name, name),
            captions=tuple(captions[name]),
            split=splits[name],
            license="Flickr30k: research and education only",
        )
