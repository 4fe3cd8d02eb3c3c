"""Any data set in the form of Andrej Karpathy's splits: dataset_coco.json, dataset_flickr30k.json, ...

The JSON file names the images, their captions and their splits; each image is fetched by its own address.
`restval`, the rest of COCO's validation photographs, is for training, as in the papers that use these splits.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pydantic import field_validator

from captioning.datasets import DatasetSettings, Fetch, Source
from captioning.formats.karpathy_splits import bad_form, read_images
from captioning.formats.sources import address, below, local_path
from captioning.records import Pair

LICENSE = "each image its own, as the JSON file states it (column license of rows.parquet)"
CITATION = (
    "Karpathy and Fei-Fei: Deep Visual-Semantic Alignments for Generating Image Descriptions, CVPR 2015"
)

PAIRS = "dataset.json"


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


def sources(settings: Settings) -> Iterator[Source]:
    """Yield the JSON file, and the folder of images where it is on disk."""
    yield Source(place=settings.source, kind="list")
    if local_path(settings.images):
        yield Source(place=settings.images, kind="folder")


def prepare(folder: Path, settings: Settings, fetch: Fetch) -> None:
    """Fetch the JSON file; the images are fetched pair by pair."""
    fetch(address(settings.source), folder / PAIRS, None)


def read_pairs(folder: Path, settings: Settings) -> Iterator[Pair]:
    """Yield the images in the order of the JSON file; the file name without its suffix is the id."""
    for image in read_images(folder / PAIRS):
        try:
            yield Pair(
                image_id=PurePosixPath(image["filename"]).stem,
                url=_address(settings.images.rstrip("/"), image.get("filepath", ""), image["filename"]),
                captions=tuple(
                    sentence.get("raw") or " ".join(sentence["tokens"]) for sentence in image["sentences"]
                ),
                split=image["split"],
                license=", ".join(
                    image[key] for key in ("license", "license_url", "photo_page") if image.get(key)
                ),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise bad_form(folder / PAIRS, image, error) from None


def _address(prefix: str, filepath: str, filename: str) -> str:
    """Join the parts; `filepath` (COCO's `val2014`) is left out where the prefix already ends with it."""
    return below(prefix, "" if prefix.endswith(f"/{filepath}") else filepath, filename)
