"""COCO captions 2014 and 2017 as they are published: zips of photographs, a zip of caption files.

Photographs of `test` have no captions: they get the split `predict`. The id of an image is its file's name without
the suffix, whose trailing digits are COCO's own number: with it COCO's results file is written.
"""

import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from captioning.datasets import DatasetSettings, Fetch, Source
from captioning.formats.json_lists import read_lists
from captioning.formats.karpathy_splits import read_splits
from captioning.formats.sources import (
    address,
    below,
    distinct,
    members_by_name,
    open_text,
    refuse_unknown_checksums,
)
from captioning.progress import say
from captioning.records import PREDICT, Pair

LICENSE = "captions: CC BY 4.0; photographs: each its own, as the caption file states it"
CITATION = (
    "Chen et al.: Microsoft COCO Captions: Data Collection and Evaluation Server, arXiv:1504.00325, 2015"
)

KARPATHY = "dataset_coco.json"
PARTS = {"train": "train", "val": "val", "test": PREDICT}
"""Part of COCO -> our split."""


class Settings(DatasetSettings):
    """Which part of COCO, where from, and how it is split."""

    year: Literal[2014, 2017]
    parts: Annotated[list[Literal["train", "val", "test"]], Field(min_length=1), AfterValidator(distinct)]
    """Parts of COCO, in this order; test is for prediction."""
    source: str
    """Address under which train2014.zip and so on lie; COCO's own is http://images.cocodataset.org/zips."""
    annotations: str
    """Address under which annotations_trainval2014.zip and so on lie; http://images.cocodataset.org/annotations."""
    karpathy: str | None
    """Address or path of Karpathy's dataset_coco.json, whose splits replace COCO's; null for COCO's own."""
    checksums: dict[str, str]
    """Archive -> its sha256 in hexadecimal; an archive without one is not checked."""

    @model_validator(mode="after")
    def _checksums_name_archives(self) -> "Settings":
        refuse_unknown_checksums(
            self.checksums, [_archive(self, part) for part in PARTS] + list(_texts(self))
        )
        return self


def sources(settings: Settings) -> Iterator[Source]:
    """Yield the archives of the parts, their caption files, and Karpathy's splits if wanted."""
    places = {_text(settings, part): settings.annotations for part in settings.parts}
    places |= {_archive(settings, part): settings.source for part in settings.parts}
    for name, place in places.items():
        yield Source(place=below(place, name), kind="file", sha256=settings.checksums.get(name))
    if settings.karpathy:
        yield Source(place=settings.karpathy, kind="list")


def prepare(folder: Path, settings: Settings, fetch: Fetch) -> None:
    """Fetch the archives of the parts, their caption files, and Karpathy's splits if wanted."""
    for name in dict.fromkeys(_text(settings, part) for part in settings.parts):
        fetch(below(settings.annotations, name), folder / name, settings.checksums.get(name))
    if settings.karpathy:
        fetch(address(settings.karpathy), folder / KARPATHY, None)
    for part in settings.parts:
        name = _archive(settings, part)
        fetch(below(settings.source, name), folder / name, settings.checksums.get(name))


def read_pairs(folder: Path, settings: Settings) -> Iterator[Pair]:
    """Yield the images of each part in the order of its JSON file, their captions in the order of COCO's numbers.

    Memory holds the captions and file names of one part, at most 414,113 short strings, and Karpathy's splits.
    """
    splits = _read_karpathy_splits(folder, settings)
    num_left_out = 0
    for part in settings.parts:
        for pair in _read_part(folder, settings, part):
            if splits is None or part == "test":
                yield pair
            elif split := splits.pop(_number(pair.image_id), None):
                yield replace(pair, split=split)
            else:
                num_left_out += 1
    if splits is not None:
        say(f"coco: {num_left_out:,} images that Karpathy's splits do not name are left out")
        if splits:
            say(
                f"coco: {len(splits):,} images that Karpathy's splits name are in no part of {settings.parts}"
            )


def _read_karpathy_splits(folder: Path, settings: Settings) -> dict[int, str] | None:
    """Return COCO's number -> split; names differ between the years, numbers do not."""
    if not settings.karpathy:
        return None
    return {
        _number(PurePosixPath(name).stem): split for name, split in read_splits(folder / KARPATHY).items()
    }


def _read_part(folder: Path, settings: Settings, part: str) -> Iterator[Pair]:
    archive = _archive(settings, part)
    with zipfile.ZipFile(folder / archive) as images:
        members = members_by_name(images)
    licenses, images_of_part, captions = _read_json(
        folder / _text(settings, part), _json_name(settings, part)
    )
    for number, name, license_number in images_of_part:
        yield Pair(
            image_id=PurePosixPath(name).stem,
            archive=archive if name in members else "",
            member=members.get(name, name),
            captions=tuple(caption for _, caption in sorted(captions.pop(number, ()))),
            split=PARTS[part],
            license=licenses.get(license_number, ""),
        )
    if captions:
        say(
            f"coco: captions of {len(captions):,} images that {_json_name(settings, part)} does not list are left out"
        )


Captions = dict[int, list[tuple[int, str]]]
"""COCO's number of an image -> COCO's number of a caption, caption."""


def _read_json(path: Path, name: str) -> tuple[dict[int, str], list[tuple[int, str, int]], Captions]:
    """Return the licenses, the images (number, file name, license) and the captions of a JSON file in an archive."""
    licenses: dict[int, str] = {}
    images: list[tuple[int, str, int]] = []
    captions: Captions = defaultdict(list)
    lists = ("licenses", "images", "annotations") if name.startswith("captions_") else ("licenses", "images")
    with zipfile.ZipFile(path) as archive, open_text(archive, name) as file:
        for key, entry in read_lists(file, f"{path.name}: {name}", *lists):
            try:
                if key == "licenses":
                    licenses[entry["id"]] = f"{entry['name']}, {entry['url']}"
                elif key == "images":
                    images.append((entry["id"], entry["file_name"], entry.get("license", 0)))
                else:
                    captions[entry["image_id"]].append((entry["id"], entry["caption"]))
            except (KeyError, TypeError, AttributeError) as error:
                raise _bad_form(f"{path.name}: {name}", key, entry, error) from None
    return licenses, images, captions


def _bad_form(name: str, key: str, entry: Any, error: Exception) -> ValueError:
    return ValueError(
        f"{name}: an entry of {key} is {str(entry)[:80]}..., not in COCO's form ({error!r}); expected licenses with "
        "id, name and url, images with id and file_name, annotations with id, image_id and caption"
    )


def _number(image_id: str) -> int:
    """Return COCO's number of an image: 391895 of COCO_val2014_000000391895 and of 000000391895."""
    digits = image_id.rpartition("_")[2]
    if not digits.isdigit():
        raise ValueError(f"image {image_id!r} has no name of COCO; expected one that ends with its number")
    return int(digits)


def _archive(settings: Settings, part: str) -> str:
    return f"{part}{settings.year}.zip"


def _texts(settings: Settings) -> list[str]:
    return list(dict.fromkeys(_text(settings, part) for part in PARTS))


def _text(settings: Settings, part: str) -> str:
    return (
        f"image_info_test{settings.year}.zip"
        if part == "test"
        else f"annotations_trainval{settings.year}.zip"
    )


def _json_name(settings: Settings, part: str) -> str:
    return f"{'image_info' if part == 'test' else 'captions'}_{part}{settings.year}.json"
