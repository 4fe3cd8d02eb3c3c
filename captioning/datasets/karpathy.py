"""Any data set in the form of Andrej Karpathy's splits: dataset_coco.json, dataset_flickr30k.json, ...

The JSON file names the images, their captions and their splits; each image is fetched by its own address.
`restval`, the rest of COCO's validation photographs, is for training, as in the papers that use these splits.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from pydantic import field_validator

from captioning.datasets import DatasetSettings, Fetch
from captioning.records import Pair

LICENSE = "each image its own, as the JSON file states it (column license of rows.parquet)"
CITATION = (
    "Karpathy and Fei-Fei: Deep Visual-Semantic Alignments for Generating Image Descriptions, CVPR 2015"
)

PAIRS = "dataset.json"
CHUNK_CHARACTERS = 1 << 20
"""Read at a time; the list of images begins within the first ones."""
BETWEEN_IMAGES = tuple(" \t\r\n,")


class Settings(DatasetSettings):
    """Where the JSON file and the images come from."""

    source: str
    """The JSON file: an address, or a path from the project root."""
    images: str
    """Address of the folder of images: https://, http:// or file://."""

    @field_validator("images")
    @classmethod
    def _is_an_address(cls, images: str) -> str:
        if not images.startswith(("https://", "http://", "file://")):
            raise ValueError(f"{images!r} is no address: expected https://..., http://... or file:///...")
        return images


def prepare(folder: Path, settings: Settings, fetch: Fetch) -> None:
    """Fetch the JSON file; the images are fetched pair by pair."""
    source = settings.source if "://" in settings.source else Path(settings.source).resolve().as_uri()
    fetch(source, folder / PAIRS, None)


def read_pairs(folder: Path, settings: Settings) -> Iterator[Pair]:
    """Yield the images in the order of the JSON file; the file name without its suffix is the id."""
    for image in _read_images(folder / PAIRS):
        try:
            yield Pair(
                image_id=PurePosixPath(image["filename"]).stem,
                url=_address(settings.images.rstrip("/"), image.get("filepath", ""), image["filename"]),
                captions=tuple(
                    sentence.get("raw") or " ".join(sentence["tokens"]) for sentence in image["sentences"]
                ),
                split={"restval": "train"}.get(image["split"], image["split"]),
                license=", ".join(
                    image[key] for key in ("license", "license_url", "photo_page") if image.get(key)
                ),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{settings.source}: image {str(image)[:80]}... is not in Karpathy's form ({error!r}); "
                "expected filename, split and sentences, each with raw or tokens"
            ) from None


def _address(prefix: str, filepath: str, filename: str) -> str:
    """Join the parts; `filepath` (COCO's `val2014`) is left out where the prefix already ends with it."""
    folders = [filepath] if filepath and not prefix.endswith(f"/{filepath}") else []
    return "/".join([prefix, *(quote(part) for part in [*folders, filename])])


def _read_images(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of the list "images" one by one: the whole of COCO's would fill a gigabyte."""
    decoder = json.JSONDecoder()
    with path.open(encoding="utf-8") as file:
        text = file.read(CHUNK_CHARACTERS)
        start = re.search(r'"images"\s*:\s*\[', text)
        if not start:
            raise ValueError(
                f'{path.name} is not in Karpathy\'s form: no list "images", it begins with {text[:60]!r}'
            )
        position = start.end()
        while True:
            while text[position : position + 1] in BETWEEN_IMAGES:
                position += 1
            try:
                image, position = decoder.raw_decode(text, position)
            except json.JSONDecodeError as error:
                text, position = text[position:], 0
                if text.startswith("]"):
                    return
                more = file.read(CHUNK_CHARACTERS)
                if not more:
                    raise ValueError(
                        f"{path.name} is damaged or cut short: {error.msg} at {text[:60]!r}"
                    ) from None
                text += more
            else:
                yield image
