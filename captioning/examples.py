"""The examples that a model trains on and is scored on: a folder of HDF5 shards, read by split and position.

`index.json` names the shards of each split, `vocabulary.json` the words, `transform.json` how a picture became
pixels, `references.parquet` (image_id, split, position, caption) the raw captions.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from captioning.images import PixelTransform
from captioning.shards import Shard

MAX_OPEN_SHARDS = 256
"""Files kept open by one process."""


def split_names(folder: Path) -> list[str]:
    """Return the names of the splits that have images."""
    splits = json.loads((folder / "index.json").read_text())["splits"]
    return [split for split, own in splits.items() if own["num_images"]]


class Examples:
    """The images and captions of one split, by position.

    Nothing is held in memory but the number of images of each shard. Files are opened lazily, once per process.
    """

    def __init__(self, folder: Path, split: str) -> None:
        index = json.loads((folder / "index.json").read_text())["splits"][split]
        self.folder, self.split = folder, split
        self.transform = PixelTransform.model_validate_json((folder / "transform.json").read_text())
        self.image_shape = (self.transform.channels, self.transform.height, self.transform.width)
        self.digest = hashlib.sha256(json.dumps(index["shards"]).encode()).hexdigest()
        self._paths = [folder / shard["file"] for shard in index["shards"]]
        self._starts = np.cumsum([0] + [shard["num_images"] for shard in index["shards"]])
        self._open: OrderedDict[int, Shard] = OrderedDict()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": OrderedDict()}

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _place(self, position: int) -> tuple[Shard, int]:
        """Return the shard of an image and the image's position in it."""
        number = int(np.searchsorted(self._starts, position, side="right")) - 1
        if number not in self._open:
            self._open[number] = Shard(self._paths[number])
            if len(self._open) > MAX_OPEN_SHARDS:
                self._open.popitem(last=False)
        return self._open[number], int(position - self._starts[number])

    def images(self, positions: Iterable[int]) -> np.ndarray:
        """Return the pixels at `positions`, uint8, B x C x H x W, in the order given."""
        wanted = list(positions)
        pixels_BCHW = np.empty((len(wanted), *self.image_shape), np.uint8)
        for pixels_CHW, position in zip(pixels_BCHW, wanted, strict=True):
            shard, own = self._place(position)
            shard.read_pixels(own, pixels_CHW)
        return pixels_BCHW

    def tokens(self, position: int) -> list[np.ndarray]:
        """Return the word ids of each caption of one image, int32, without `<bos>` and `<eos>`."""
        shard, own = self._place(position)
        return shard.tokens(own)

    def image_id(self, position: int) -> str:
        """Return the id of one image."""
        shard, own = self._place(position)
        return shard.image_ids(own, own + 1)[0]

    @cached_property
    def image_ids(self) -> tuple[str, ...]:
        """All ids of the split, in its order: of a large split `image_id` asks for one."""
        return tuple(
            image_id
            for path, count in zip(self._paths, np.diff(self._starts), strict=True)
            for image_id in Shard(path).image_ids(0, count)
        )

    def references(self) -> dict[str, list[str]]:
        """Return the raw reference captions by image id."""
        table = pq.read_table(
            self.folder / "references.parquet",
            columns=["image_id", "caption"],
            filters=[("split", "==", self.split)],
        )
        references: dict[str, list[str]] = {}
        for image_id, caption in zip(*(column.to_pylist() for column in table.columns), strict=True):
            references.setdefault(image_id, []).append(caption)
        return references
