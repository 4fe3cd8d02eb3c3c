"""One look at a shard: its layout, its counts, its captions, and the pixels of a sample of its images.

Every shard is looked at by itself, in any process; in memory are its captions, its ids and one image.
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from captioning import workers
from captioning.gates.values import NUM_EXAMPLES, Example
from captioning.images import BadImage, decode
from captioning.progress import progress
from captioning.records import PREDICT, SPLITS

# Stated here once more, so that the vocabulary is not judged by its own word.
MARKERS = ["<pad>", "<bos>", "<eos>", "<unk>"]
UNKNOWN = MARKERS.index("<unk>")
CHANNELS = {3: ("red", "green", "blue"), 1: ("gray",)}
"""Names of the channels of pixels, by their number."""
FLAT_DEVIATION = 2.0
"""A picture whose pixels deviate less from their mean, of 255, shows nothing."""
FEW_SHARDS = 8
"""Looked at by this process alone: to start others would take longer."""
AGAIN = "`dvc repro --force preprocess` writes it anew"


@dataclass(frozen=True, kw_only=True)
class Stated:
    """A shard as index.json and transform.json state it."""

    split: str
    path: Path
    first_row: int
    """Number of images in the shards before it."""
    num_images: int
    num_captions: int
    layout: Mapping[str, str]
    """Type and shape of each dataset, in words."""
    image_shape: tuple[int, int, int]
    """Channels, height, width."""
    num_sampled: int
    """Images to be looked at."""


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """Sums over sampled images, from which means and deviations follow."""

    num_values: int
    """In each channel."""
    sums: np.ndarray
    """float64, one a channel."""
    squares: np.ndarray
    """float64, one a channel."""
    num_images: int
    num_flat: int
    num_damaged: int
    """Images that are not of the bytes that were written, or cannot be decoded to the right size."""

    def __add__(self, other: "Pixels") -> "Pixels":
        return Pixels(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    def statistics(self) -> np.ndarray:
        """Return mean and deviation of each channel, 2 x C, 0..255; zeros where nothing was sampled."""
        mean = self.sums / max(self.num_values, 1)
        return np.stack([mean, np.sqrt(np.maximum(self.squares / max(self.num_values, 1) - mean**2, 0))])


NO_PIXELS = Pixels(
    num_values=0, sums=np.zeros(1), squares=np.zeros(1), num_images=0, num_flat=0, num_damaged=0
)
"""Of any number of channels."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one look at a shard found."""

    layout: list[tuple[str, str, str]]
    """Dataset, its layout by contract, and as found."""
    row: dict[str, Any]
    """Numbers about the shard; empty, as is all that follows, where its layout is another."""
    pixels: Pixels
    image_ids: list[str]
    captions_of_image: list[tuple[int, int, list[Example]]]
    """(captions of an image, number of images, first images)."""


def read_stated(examples: Path, num_sampled: int) -> list[Stated]:
    """Return the shards that the index names, train before val before test before predict.

    Raises:
        ValueError: index or transform are missing, not readable or incomplete.
    """
    index, transform = read_json(examples / "index.json"), read_json(examples / "transform.json")
    shape = (transform.get("channels", 3), transform["height"], transform["width"])
    layout = _contract(examples, index.get("storage"), shape)
    stated: list[Stated] = []
    for split in (*SPLITS, PREDICT):
        for shard in index["splits"].get(split, {"shards": []})["shards"]:
            stated.append(
                Stated(
                    split=split,
                    path=examples / shard["file"],
                    first_row=stated[-1].first_row + stated[-1].num_images if stated else 0,
                    num_images=shard["num_images"],
                    num_captions=shard["num_captions"],
                    layout=layout,
                    image_shape=shape,
                    num_sampled=num_sampled,
                )
            )
    return stated


def _contract(examples: Path, storage: object, shape: tuple[int, int, int]) -> dict[str, str]:
    """Return the layout of a shard's datasets, in words."""
    stored = {
        "pixels": {"images": f"uint8 N x {' x '.join(map(str, shape))}"},
        "jpeg": {"encoded": "uint8 N", "encoded_offsets": "int64 N"},
    }
    if not isinstance(storage, str) or storage not in stored:
        raise ValueError(
            f"{examples}/index.json: storage is {storage!r}, expected {' or '.join(stored)}; {AGAIN}"
        )
    return stored[storage] | {
        "checksums": "uint32 N",
        "image_ids": "text N",
        "tokens": "int32 N",
        "caption_offsets": "int64 N",
        "image_offsets": "int64 N",
    }


def look_at_shards(stated: list[Stated]) -> Iterator[Look]:
    """Yield what is found in each shard, in order; of many shards on all processors."""
    if len(stated) < FEW_SHARDS:
        yield from map(look, stated)
        return
    preload = ["torch", "torchvision.io"] if "encoded" in stated[0].layout else []
    looks = workers.run(look, stated, preload=preload)
    yield from progress(looks, total=len(stated), what="inspect", unit="shards")


def look(stated: Stated) -> Look:
    """Return what is found in one shard: its layout and, where that is as expected, all else.

    Raises:
        ValueError: the file is damaged where data are read.
    """
    found = _layout(stated.path)
    layout = [
        (f"{stated.path.name}:{name}", expected, found.get(name, found.get("", "absent")))
        for name, expected in stated.layout.items()
    ]
    if any(expected != found for _, expected, found in layout):
        return Look(layout=layout, row={}, pixels=NO_PIXELS, image_ids=[], captions_of_image=[])
    try:
        with h5py.File(stated.path, "r") as file:
            return _look_inside(stated, file, layout)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{stated.path} is damaged ({error}); {AGAIN}") from None


def _layout(path: Path) -> dict[str, str]:
    """Return the type and shape of each dataset in words; under "" what is wrong with the whole file."""
    if not path.exists():
        return {"": "no such file"}
    try:
        with h5py.File(path, "r") as file:
            return {
                name: _describe(dataset)
                for name, dataset in file.items()
                if isinstance(dataset, h5py.Dataset)
            }
    except OSError:
        return {"": "not a readable HDF5 file"}


def _describe(dataset: h5py.Dataset) -> str:
    kind = "text" if h5py.check_string_dtype(dataset.dtype) else str(dataset.dtype)
    shape = " x ".join(map(str, ("N", *dataset.shape[1:])))
    return f"{kind} {shape}" + (", chunked" if dataset.chunks else "")  # chunked, it is read 90 times slower


def _look_inside(stated: Stated, file: h5py.File, layout: list[tuple[str, str, str]]) -> Look:
    image_ids = [image_id.decode() for image_id in file["image_ids"][:]]
    pixels = sample_pixels(stated, file)
    row = _shard_row(stated, file, len(image_ids)) | {
        "num_damaged": pixels.num_damaged,
        "pixel_mean": float(pixels.statistics()[0].mean()),
    }
    return Look(
        layout=layout,
        row=row,
        pixels=pixels,
        image_ids=image_ids,
        captions_of_image=[] if stated.split == PREDICT else _captions_of_image(stated, file, image_ids),
    )


def sample_pixels(stated: Stated, file: h5py.File) -> Pixels:
    """Return the sums over up to `num_sampled` evenly spaced images, read one at a time."""
    num_images, pixels = _num_images(file), NO_PIXELS
    positions = np.linspace(0, num_images - 1, min(stated.num_sampled, num_images)).astype(int)
    checksums = file["checksums"][:]
    for position in np.unique(positions):
        stored = file["images"][position] if "images" in file else _read_encoded(file, position)
        is_as_written = position < len(checksums) and zlib.crc32(stored.tobytes()) == checksums[position]
        pixels += _sums(_decoded(stored, stated.image_shape), is_as_written)
    return pixels


def _num_images(file: h5py.File) -> int:
    return len(file["images"]) if "images" in file else max(len(file["encoded_offsets"]) - 1, 0)


def _read_encoded(file: h5py.File, position: int) -> np.ndarray:
    """Return the JPEG file of one image, uint8; of nonsensical offsets nothing."""
    start, stop = file["encoded_offsets"][position : position + 2]
    return file["encoded"][max(start, 0) : max(start, stop, 0)]


def _decoded(stored: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray | None:
    """Return the pixels of an image as stored, C x H x W; None where they cannot be had, or are of another size."""
    if stored.ndim == 1:
        try:
            stored = decode(stored.tobytes()).transpose(2, 0, 1)[: shape[0]]
        except BadImage:
            return None
    return stored if stored.shape == shape else None


def _sums(image: np.ndarray | None, is_as_written: bool) -> Pixels:
    if image is None:
        return replace(NO_PIXELS, num_images=1, num_damaged=1)
    values = image.reshape(len(image), -1).astype(np.float64)
    return Pixels(
        num_values=values.shape[1],
        sums=values.sum(axis=1),
        squares=np.square(values).sum(axis=1),
        num_images=1,
        num_flat=int(values.std() < FLAT_DEVIATION),
        num_damaged=int(not is_as_written),
    )


def _shard_row(stated: Stated, file: h5py.File, num_ids: int) -> dict[str, Any]:
    tokens, caption_offsets, image_offsets = (
        file[name][:] for name in ("tokens", "caption_offsets", "image_offsets")
    )
    num_images, num_captions = _num_images(file), max(len(caption_offsets) - 1, 0)
    lengths = np.diff(caption_offsets) if num_captions else np.zeros(1, np.int64)
    num_bad = _num_bad(caption_offsets, num_captions, len(tokens))
    num_bad += _num_bad(image_offsets, num_images, num_captions)
    num_bad += abs(num_ids - num_images) + abs(len(file["checksums"]) - num_images)
    if "encoded" in file:
        num_bad += _num_bad(file["encoded_offsets"][:], num_images, len(file["encoded"]))
    return {
        "file": stated.path.name,
        "split": stated.split,
        "num_images": num_images,
        "indexed_images": stated.num_images,
        "num_captions": num_captions,
        "indexed_captions": stated.num_captions,
        "num_bad_offsets": num_bad,
        "lowest_token": int(tokens.min()) if len(tokens) else UNKNOWN,
        "highest_token": int(tokens.max()) if len(tokens) else UNKNOWN,
        "shortest_caption": int(lengths.min()),
        "longest_caption": int(lengths.max()),
        "num_tokens": len(tokens),
        "num_unknown": int((tokens == UNKNOWN).sum()),
    }


def _num_bad(offsets: np.ndarray, num_rows: int, end: int) -> int:
    """Count what is wrong with offsets of `num_rows` rows that share `end` values between them."""
    if len(offsets) == 0:
        return 1
    steps = int((np.diff(offsets) < 0).sum())
    return steps + int(offsets[0] != 0) + int(offsets[-1] != end) + int(len(offsets) != num_rows + 1)


def _captions_of_image(
    stated: Stated, file: h5py.File, image_ids: list[str]
) -> list[tuple[int, int, list[Example]]]:
    num_captions = np.zeros(len(image_ids), np.int64)
    found = np.diff(file["image_offsets"][:])[: len(image_ids)]
    num_captions[: len(found)] = found
    rows = []
    for value, count in zip(*np.unique(num_captions, return_counts=True), strict=True):
        first = np.flatnonzero(num_captions == value)[:NUM_EXAMPLES]
        examples = [(stated.first_row + int(position), image_ids[position]) for position in first]
        rows.append((int(value), int(count), examples))
    return rows


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        ValueError: it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is missing or not readable ({error}); {AGAIN}") from None
