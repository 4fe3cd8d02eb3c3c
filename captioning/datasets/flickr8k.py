"""Flickr8k as its authors ship it: one zip of photographs, one zip of captions and split lists.

The data set is the images that the authors' split lists name: 6,000 train, 1,000 val, 1,000 test. The archive
and the caption file have some more, in no list; they are left out, and their number is said. A listed image
that the archive lacks becomes a failed row; one without captions is quarantined by the next stage.
"""

import zipfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pydantic import field_validator

from captioning.datasets import DatasetSettings, Fetch
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
        if unknown := sorted(set(checksums) - {IMAGES, TEXTS}):
            raise ValueError(f"no archive is called {', '.join(unknown)}; expected {IMAGES} or {TEXTS}")
        return checksums


def prepare(folder: Path, settings: Settings, fetch: Fetch) -> None:
    """Fetch both archives."""
    for name in (TEXTS, IMAGES):
        fetch(f"{settings.source.rstrip('/')}/{name}", folder / name, settings.checksums.get(name))


def read_pairs(folder: Path, settings: Settings) -> Iterator[Pair]:
    """Yield the listed images in the order of the caption file, those that it does not name last."""
    with zipfile.ZipFile(folder / IMAGES) as archive:
        members = {PurePosixPath(member).name: member for member in archive.namelist() if _is_content(member)}
    with zipfile.ZipFile(folder / TEXTS) as texts:
        splits = _read_splits(texts)
        captions = _read_captions(texts)
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


def _is_content(member: str) -> bool:
    """Return whether a member is what its name says; archives made on a Mac have a shadow of each file."""
    return not member.startswith("__MACOSX/") and not member.endswith("/")


def _read_splits(texts: zipfile.ZipFile) -> dict[str, str]:
    splits: dict[str, str] = {}
    for list_name, split in SPLIT_LISTS.items():
        for name in _read_text(texts, list_name).split():
            if splits.setdefault(name, split) != split:
                raise ValueError(
                    f"{TEXTS}: {name} is listed for {splits[name]} and for {split}; expected one"
                )
    return splits


def _read_captions(texts: zipfile.ZipFile) -> dict[str, list[str]]:
    """Return the captions of each file name, in the order of the lines `1000268201.jpg#0<tab>A child ...`."""
    captions: dict[str, list[str]] = defaultdict(list)
    for number, line in enumerate(_read_text(texts, CAPTIONS).splitlines(), start=1):
        name, has_tab, caption = line.partition("\t")
        if not has_tab or "#" not in name:
            raise ValueError(
                f"{TEXTS}: {CAPTIONS}: line {number} is {line!r}; expected name#number<tab>caption"
            )
        captions[name.rpartition("#")[0]].append(caption)
    return captions


def _read_text(texts: zipfile.ZipFile, name: str) -> str:
    for member in texts.namelist():
        if _is_content(member) and PurePosixPath(member).name == name:
            return texts.read(member).decode("utf-8")
    raise ValueError(
        f"{TEXTS} has no file {name}; it has {', '.join(texts.namelist()[:8])}: check download.source"
    )
