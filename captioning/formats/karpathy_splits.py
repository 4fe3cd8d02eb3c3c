"""The form of Andrej Karpathy's dataset_coco.json, dataset_flickr30k.json, ...: images, captions and splits.

`restval`, the rest of COCO's validation photographs, is for training, as in the papers that use these splits.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from captioning.formats.json_lists import read_lists


def read_images(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the images in the order of the file, whose split is train, val or test: one object at a time."""
    with path.open(encoding="utf-8") as file:
        for _, image in read_lists(file, path.name, "images"):
            try:
                yield {**image, "split": {"restval": "train"}.get(image["split"], image["split"])}
            except (KeyError, TypeError) as error:
                raise bad_form(path, image, error) from None


def read_splits(path: Path) -> dict[str, str]:
    """Return file name -> split of every image: held in memory, some 200 bytes an image."""
    splits = {}
    for image in read_images(path):
        try:
            splits[image["filename"]] = image["split"]
        except KeyError as error:
            raise bad_form(path, image, error) from None
    return splits


def bad_form(path: Path, image: Any, error: Exception) -> ValueError:
    """Return what to raise for an image that is not as it should be."""
    return ValueError(
        f"{path.name}: image {str(image)[:80]}... is not in Karpathy's form ({error!r}); "
        "expected filename, split and sentences, each with raw or tokens"
    )
