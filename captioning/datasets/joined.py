"""Several data sets in one run: each part in a folder of its own, its name before the ids of its images.

    download:
      dataset: joined
      parts:
        coco: {dataset: coco, year: 2014, ...}
        mine: {dataset: folder, limit: 1000, ...}

A part has its data set's own keys; the common ones (retries, timeouts, ...) are those of the section, but a part may
have a `limit` of its own, and a `split`, into which all of its images go that have captions: `split: test` makes a part
that is only tested on. `split.policy` may treat the parts as the strata that they are: rows.parquet names them.

dvc.yaml names this file and not those of the parts: after an edit of a part's module run `dvc repro --force download`.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError, field_validator, model_validator

from captioning import lookup
from captioning.datasets import DatasetSettings, Fetch, Source
from captioning.progress import say
from captioning.records import SPLITS, Pair

LICENSE = "those of its parts, each printed as it is prepared"
CITATION = "those of its parts"

SPLIT = "split"
"""Key of a part."""


class Settings(DatasetSettings):
    """The parts."""

    parts: dict[str, dict[str, Any]]
    """Name -> data set with its own keys; the name is also the part's folder and `source`."""

    @field_validator("parts")
    @classmethod
    def _can_be_folders(cls, parts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        if not parts:
            raise ValueError("no parts; expected at least one NAME: {dataset: ..., its keys}")
        if bad := [name for name in parts if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name)]:
            raise ValueError(
                f"part {bad[0]!r}: expected a name of letters, digits, - and _, since it names a folder"
            )
        return parts

    @model_validator(mode="after")
    def _parts_are_right(self) -> "Settings":
        part_settings(self)
        return self


def part_settings(settings: Settings) -> dict[str, DatasetSettings]:
    """Return the whole settings of each part.

    Raises:
        ValueError: a part names no data set or split, or has unknown, missing or ill-typed keys.
    """
    own = {"dataset", "limit"}
    common = {key: getattr(settings, key) for key in DatasetSettings.model_fields if key not in own}
    found: dict[str, DatasetSettings] = {}
    for name, part in settings.parts.items():
        if part.get("dataset") == "joined" or not isinstance(part.get("dataset"), str):
            known = ", ".join(other for other in lookup.names("datasets") if other != "joined")
            raise ValueError(f"part {name!r}: dataset is {part.get('dataset')!r}; expected one of {known}")
        if part.get(SPLIT, "test") not in SPLITS:
            raise ValueError(f"part {name!r}: split is {part[SPLIT]!r}; expected one of {', '.join(SPLITS)}")
        if repeated := sorted(set(part) & set(common)):
            raise ValueError(
                f"part {name!r} has the keys {repeated}, which all parts share; state them once, above"
            )
        try:
            found[name] = lookup.find("datasets", part["dataset"]).Settings.model_validate(
                {"limit": None, **common, **{key: value for key, value in part.items() if key != SPLIT}}
            )
        except ValidationError as error:
            sentences = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
            raise ValueError(f"part {name!r}: {'; '.join(sentences)}") from None
    return found


def sources(settings: Settings) -> Iterator[Source]:
    """Yield the sources of each part."""
    for part in part_settings(settings).values():
        yield from lookup.find("datasets", part.dataset).sources(part)


def prepare(folder: Path, settings: Settings, fetch: Fetch) -> None:
    """Prepare each part in its folder."""
    for name, part in part_settings(settings).items():
        dataset = lookup.find("datasets", part.dataset)
        say(f"joined: {name}: {part.dataset}. License: {dataset.LICENSE}. Source: {dataset.CITATION}")
        (folder / name).mkdir(exist_ok=True)
        dataset.prepare(folder / name, part, fetch)


def read_pairs(folder: Path, settings: Settings) -> Iterator[Pair]:
    """Yield the images of the parts, one part after the other, each in its own order."""
    for name, part in part_settings(settings).items():
        pairs = lookup.find("datasets", part.dataset).read_pairs(folder / name, part)
        for pair in itertools.islice(pairs, part.limit):
            split = settings.parts[name].get(SPLIT, pair.split) if pair.captions else pair.split
            yield replace(
                pair,
                split=split,
                image_id=f"{name}/{pair.image_id}",
                source=name,
                archive=pair.archive and f"{name}/{pair.archive}",
            )
