"""Where captioned images come from; one module a dataset, chosen by `download.dataset`.

Each module has

- `LICENSE`, `CITATION`: what a user must know before using the pictures; the download stage prints them.
- `class Settings(DatasetSettings)`: its own keys of the `download` section.
- `sources(settings)`: yield every `Source` outside of the project whose change means new data.
- `prepare(folder, settings, fetch)`: put the archives that hold the images, and the caption files, into `folder`.
  `fetch(url, path, sha256)` downloads one file (`https://`, `http://`, `file://`), checked where `sha256` is given.
- `read_pairs(folder, settings)`: yield one `Pair` an image, in a deterministic order, ids unique. Images without
  captions that are there to be captioned have the split `predict`; `source` stays empty but where data sets are joined.

`prepare` may find in `folder` what an interrupted run left there, perhaps one of another `limit`: archives that it
fetched, and what it had put into a folder called `made` inside, which it must be able to judge. Memory does not grow
with the number of images, unless the module says by how much. A pair whose image is in no archive states a `url`; the
download stage fetches those itself, and each ends as one row with a status. So does a pair that states an `error`, for
a data set that makes its own images. Files in `folder` that only `read_pairs` needs may stay there; all are written
deterministically.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from captioning.params import Settings

MADE = "made"
"""Folder inside a data set's folder for what takes long to make: an interrupted run finds it again."""

Fetch = Callable[[str, Path, str | None], None]
"""`fetch(url, path, sha256)`; raises `OSError` or `ValueError` with a sentence for the user when it cannot."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A place outside of the project that a data set is made from."""

    place: str
    """An address, or a path from the project root, as the settings state it."""
    kind: Literal["file", "list", "folder"]
    """A list names what there is and is small enough to be read whole; a file is looked at from outside."""
    sha256: str | None = None
    """Where the settings state it: another content would be refused, so there is nothing new to be seen."""


class DatasetSettings(Settings):
    """Keys of the `download` section that every dataset has."""

    dataset: str
    """Name of a module in captioning/datasets."""
    limit: int | None = Field(ge=1)
    """At most so many images, the first ones in the dataset's order; null is all."""
    max_failed_share: float = Field(ge=0, le=1)
    """The stage refuses when a larger share of the images could not be fetched."""
    timeout_seconds: float = Field(gt=0)
    """For one request to connect, and between two pieces of its answer."""
    retries: int = Field(ge=0)
    """Further attempts for one file, with growing pauses."""
    num_connections: int = Field(ge=1)
    """Files fetched at the same time."""
    connections_per_host: int = Field(ge=1)
    """Of these, from one host."""
    images_per_archive: int = Field(ge=1)
    """Images without an archive are fetched in parts of so many; an interrupted run continues at the next part."""
    max_image_bytes: int = Field(ge=1)
    """A larger single image is not fetched."""
    max_image_seconds: float = Field(gt=0)
    """A single image that takes longer, from the first byte asked to the last received, is given up."""
    allow_private_addresses: bool
    """Whether addresses inside private networks, and of this machine, may be fetched from."""
