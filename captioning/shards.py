"""One HDF5 file of images and their word ids: written once, whole, and read at random.

Datasets of N images with C captions and W words, all contiguous, so that any row is one read at a known offset:

- images            uint8 N x C x H x W, where pixels are stored
- encoded           uint8, the JPEG files of all images one after the other, where those are stored
- encoded_offsets   int64 N + 1: image i is encoded[encoded_offsets[i]:encoded_offsets[i + 1]]
- checksums         uint32 N: CRC-32 of each image's bytes as stored
- image_ids         text N
- image_offsets     int64 N + 1: image i has the captions image_offsets[i] to image_offsets[i + 1]
- caption_offsets   int64 C + 1: caption c is tokens[caption_offsets[c]:caption_offsets[c + 1]]
- tokens            int32 W: word ids without `<bos>` and `<eos>`

Chunked as h5py would choose, pixels are read 90 times slower.
"""

import hashlib
import os
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np

from captioning.images import decode


@dataclass(frozen=True, kw_only=True)
class ShardImage:
    """What a shard stores of an image."""

    stored: np.ndarray
    """uint8: pixels C x H x W, or the bytes of a JPEG file."""
    tokens: Sequence[Sequence[int]]
    """Word ids of each caption."""


def write_shard(path: Path, images: Iterable[ShardImage], image_ids: Sequence[str]) -> dict[str, object]:
    """Write the images, which are those of `image_ids` in that order: all pixels, or all JPEG files.

    One image's pixels are held in memory at a time, but the JPEG files of the whole shard.

    Returns:
        The shard's entry of the index: file, num_images, num_captions, digest of the content.
    """
    packed, checksums = _Packed(), np.zeros(len(image_ids), np.uint32)
    with h5py.File(path, "w") as file:
        pixels = None
        for position, image in enumerate(images):
            checksums[position] = zlib.crc32(np.ascontiguousarray(image.stored).data)
            packed.add(image)
            if image.stored.ndim == 3:
                pixels = pixels or _Pixels(file, len(image_ids), image.stored.shape)
                pixels.write(position, image.stored)
        datasets = packed.datasets() | {
            "checksums": checksums,
            "image_ids": np.array([image_id.encode() for image_id in image_ids], dtype="S"),
        }
        for name, values in sorted(datasets.items()):
            file.create_dataset(name, data=values)
    digest = hashlib.blake2b(digest_size=16)
    for name, values in sorted(datasets.items()):
        if name != "encoded":  # its checksums stand for it, as they do for the pixels
            digest.update(np.ascontiguousarray(values).tobytes())
    return {
        "file": path.name,
        "num_images": len(image_ids),
        "num_captions": len(datasets["caption_offsets"]) - 1,
        "digest": digest.hexdigest(),
    }


class _Pixels:
    """The dataset of pixels, written an image at a time: h5py's own indexing takes half as long again."""

    def __init__(self, file: h5py.File, num_images: int, shape: tuple[int, ...]) -> None:
        # Filled with zeros first, as HDF5 would, all were written twice.
        dataset = file.create_dataset("images", (num_images, *shape), np.uint8, fill_time="never")
        self._dataset, self._selection = dataset.id, dataset.id.get_space()
        self._one = h5py.h5s.create_simple((1, *shape))

    def write(self, position: int, pixels: np.ndarray) -> None:
        self._selection.select_hyperslab((position, 0, 0, 0), self._one.shape)
        self._dataset.write(self._one, self._selection, np.ascontiguousarray(pixels))


class _Packed:
    """Rows of differing length, one after the other, with their offsets."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._caption_ends, self._image_ends, self._encoded_ends = [0], [0], [0]
        self._encoded = bytearray()

    def add(self, image: ShardImage) -> None:
        for tokens in image.tokens:
            self._tokens.extend(tokens)
            self._caption_ends.append(len(self._tokens))
        self._image_ends.append(len(self._caption_ends) - 1)
        if image.stored.ndim == 1:
            self._encoded += image.stored.data
            self._encoded_ends.append(len(self._encoded))

    def datasets(self) -> dict[str, np.ndarray]:
        datasets: dict[str, np.ndarray] = {
            "tokens": np.array(self._tokens, dtype=np.int32),
            "caption_offsets": np.array(self._caption_ends, dtype=np.int64),
            "image_offsets": np.array(self._image_ends, dtype=np.int64),
        }
        if self._encoded:
            datasets["encoded"] = np.frombuffer(self._encoded, dtype=np.uint8)
            datasets["encoded_offsets"] = np.array(self._encoded_ends, dtype=np.int64)
        return datasets


class Shard:
    """A shard opened for reading, by any number of threads and forked processes at once.

    Rows are read at the offsets that HDF5 states, past HDF5's own lock, cache and selections.
    """

    def __init__(self, path: Path) -> None:
        with h5py.File(path, "r") as file:
            self._places = {name: self._place(path, dataset) for name, dataset in file.items()}
        self._descriptor = os.open(path, os.O_RDONLY)

    @staticmethod
    def _place(path: Path, dataset: h5py.Dataset) -> tuple[int, np.dtype, tuple[int, ...]]:
        offset = dataset.id.get_offset()
        if offset is None and dataset.size:
            raise ValueError(
                f"{path}: {dataset.name} is chunked, expected contiguous; `dvc repro --force preprocess` writes it anew"
            )
        return offset or 0, dataset.dtype, dataset.shape

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Return rows `start` to `stop` of a dataset."""
        _, dtype, shape = self._places[name]
        values = np.empty((stop - start, *shape[1:]), dtype)
        self._read(name, start, values)
        return values

    def _read(self, name: str, start: int, into: np.ndarray) -> None:
        offset, dtype, shape = self._places[name]
        row_bytes = dtype.itemsize * int(np.prod(shape[1:]))
        memory, position = into.data.cast("B") if into.size else memoryview(b""), 0
        while position < len(memory):
            count = os.preadv(self._descriptor, [memory[position:]], offset + start * row_bytes + position)
            if not count:
                raise ValueError(
                    f"a shard ends within its dataset {name!r}; `dvc repro --force preprocess` writes it anew"
                )
            position += count

    def read_pixels(self, position: int, into: np.ndarray) -> None:
        """Read the pixels of one image into uint8, C x H x W."""
        if "images" in self._places:
            self._read("images", position, into)
        else:
            start, stop = self.rows("encoded_offsets", position, position + 2)
            into[...] = decode(self.rows("encoded", start, stop).tobytes()).transpose(2, 0, 1)[: len(into)]

    def tokens(self, position: int) -> list[np.ndarray]:
        """Return the word ids of each caption of one image, int32."""
        first, last = self.rows("image_offsets", position, position + 2)
        ends = self.rows("caption_offsets", first, last + 1)
        words = self.rows("tokens", ends[0], ends[-1])
        return [words[start - ends[0] : stop - ends[0]] for start, stop in pairwise(ends)]

    def image_ids(self, start: int, stop: int) -> list[str]:
        """Return the ids of the images `start` to `stop`."""
        return [image_id.decode() for image_id in self.rows("image_ids", start, stop)]
