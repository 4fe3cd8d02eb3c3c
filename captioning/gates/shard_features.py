"""Shards of pixels and token ids -> the feature tables that the gate behind the costly step judges."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from captioning.gates.rules import TOTALS
from captioning.records import SPLITS

# Stated here once more, so that the vocabulary is not judged by its own word.
MARKERS = ["<pad>", "<bos>", "<eos>", "<unk>"]
UNKNOWN = MARKERS.index("<unk>")
CHANNELS = ("red", "green", "blue")
FLAT_DEVIATION = 2.0
"""A picture whose pixels deviate less from their mean, of 255, shows nothing."""
_AGAIN = "`dvc repro --force preprocess` writes it anew"


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A shard as the index states it."""

    split: str
    path: Path
    num_images: int
    num_captions: int


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

    def __add__(self, other: "Pixels") -> "Pixels":
        return Pixels(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    def statistics(self) -> np.ndarray:
        """Return mean and deviation of each channel, 2 x 3, 0..255; zeros where nothing was sampled."""
        mean = self.sums / max(self.num_values, 1)
        return np.stack([mean, np.sqrt(np.maximum(self.squares / max(self.num_values, 1) - mean**2, 0))])


NO_PIXELS = Pixels(num_values=0, sums=np.zeros(3), squares=np.zeros(3), num_images=0, num_flat=0)


def read_index(examples: Path) -> list[Shard]:
    """Return the shards that the index names, train before val before test."""
    splits = read_json(examples / "index.json")["splits"]
    return [
        Shard(
            split=split,
            path=examples / shard["file"],
            num_images=shard["num_images"],
            num_captions=shard["num_captions"],
        )
        for split in SPLITS
        for shard in splits[split]["shards"]
    ]


def layout_features(examples: Path, shards: list[Shard], image_shape: tuple[int, int, int]) -> pd.DataFrame:
    """Return one row a dataset of a shard: its type and shape by contract and as found.

    A file that the index does not name, and a split without shards, have a row of their own.
    """
    expected = {
        "images": f"uint8 N x {' x '.join(map(str, image_shape))}",
        "image_ids": "text N",
        "tokens": "int32 N",
        "caption_offsets": "int64 N",
        "image_offsets": "int64 N",
    }
    rows = []
    for shard in shards:
        found = _layout(shard.path)
        rows += [
            (f"{shard.path.name}:{name}", expected[name], found.get(name, found.get("", "absent")))
            for name in expected
        ]
    full = {shard.split for shard in shards}
    rows += [(f"{split} shards", "one or more", "none") for split in SPLITS if split not in full]
    strays = {path.name for path in examples.glob("*.h5")} - {shard.path.name for shard in shards}
    rows += [(name, "in index.json", "not in index.json") for name in sorted(strays)]
    return pd.DataFrame(rows, columns=["dataset", "contract", "found"])


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
    return f"{kind} {' x '.join(map(str, ('N', *dataset.shape[1:])))}"


def features(
    examples: Path, shards: list[Shard], words: list[str], num_sampled: int
) -> dict[str, pd.DataFrame]:
    """Return the feature tables `shards`, `images`, `splits`, `channels` and `totals`."""
    pixels, shard_rows, images = dict.fromkeys(SPLITS, NO_PIXELS), [], []
    for shard in shards:
        with h5py.File(shard.path, "r") as file:
            sampled = sample_pixels(file["images"], num_sampled)
            pixels[shard.split] += sampled
            shard_rows.append(_shard_row(shard, file))
            shard_rows[-1]["pixel_mean"] = float(sampled.statistics()[0].mean())
            images.append(_image_rows(shard, file))
    statistics = {split: pixels[split].statistics() for split in SPLITS}
    per_shard, per_image = pd.DataFrame(shard_rows), pd.concat(images, ignore_index=True)
    channels = [
        (f"{split} {channel}", *statistics[split][:, number])
        for split in SPLITS
        for number, channel in enumerate(CHANNELS)
    ]
    return {
        "shards": per_shard,
        "images": per_image,
        "splits": _split_features(examples, per_shard, per_image, pixels),
        "channels": pd.DataFrame(channels, columns=["channel", "pixel_mean", "pixel_deviation"]),
        TOTALS: _total_features(words, np.stack(list(statistics.values()))),
    }


def sample_pixels(images: h5py.Dataset, num_sampled: int) -> Pixels:
    """Return the sums over up to `num_sampled` evenly spaced images, read one at a time."""
    pixels = NO_PIXELS
    for position in np.unique(np.linspace(0, len(images) - 1, min(num_sampled, len(images))).astype(int)):
        image = images[position].reshape(len(CHANNELS), -1).astype(np.float64)
        pixels += Pixels(
            num_values=image.shape[1],
            sums=image.sum(axis=1),
            squares=np.square(image).sum(axis=1),
            num_images=1,
            num_flat=int(image.std() < FLAT_DEVIATION),
        )
    return pixels


def _shard_row(shard: Shard, file: h5py.File) -> dict[str, Any]:
    tokens, caption_offsets, image_offsets = (
        file[name][:] for name in ("tokens", "caption_offsets", "image_offsets")
    )
    num_images, num_captions = len(file["images"]), max(len(caption_offsets) - 1, 0)
    lengths = np.diff(caption_offsets) if num_captions else np.zeros(1, np.int64)
    return {
        "file": shard.path.name,
        "split": shard.split,
        "num_images": num_images,
        "indexed_images": shard.num_images,
        "num_captions": num_captions,
        "indexed_captions": shard.num_captions,
        "num_bad_offsets": _num_bad(caption_offsets, num_captions, len(tokens))
        + _num_bad(image_offsets, num_images, num_captions)
        + abs(len(file["image_ids"]) - num_images),
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


def _image_rows(shard: Shard, file: h5py.File) -> pd.DataFrame:
    image_ids = [image_id.decode() for image_id in file["image_ids"][:]]
    num_captions = np.zeros(len(image_ids), np.int64)
    found = np.diff(file["image_offsets"][:])[: len(image_ids)]
    num_captions[: len(found)] = found
    return pd.DataFrame({"image_id": image_ids, "split": shard.split, "num_captions": num_captions})


def _split_features(
    examples: Path, shards: pd.DataFrame, images: pd.DataFrame, pixels: dict[str, Pixels]
) -> pd.DataFrame:
    references = _read_references(examples / "references.parquet")
    sums = shards.groupby("split")[["num_images", "num_captions", "num_tokens", "num_unknown"]].sum()
    sums = sums.reindex(list(SPLITS))
    referenced = {split: set(references.loc[references["split"] == split, "image_id"]) for split in SPLITS}
    held = {split: set(images.loc[images["split"] == split, "image_id"]) for split in SPLITS}
    return pd.DataFrame(
        {
            "split": list(SPLITS),
            "num_images": sums["num_images"].tolist(),
            "num_unreferenced_images": [len(held[split] ^ referenced[split]) for split in SPLITS],
            "mean_caption_tokens": (sums["num_tokens"] / sums["num_captions"].clip(lower=1)).tolist(),
            "unknown_share": (sums["num_unknown"] / sums["num_tokens"].clip(lower=1)).tolist(),
            "flat_image_share": [
                pixels[split].num_flat / max(pixels[split].num_images, 1) for split in SPLITS
            ],
        }
    )


def _total_features(words: list[str], statistics: np.ndarray) -> pd.DataFrame:
    mean_distance, deviation_distance = np.ptp(statistics, axis=0).max(axis=1)
    return pd.DataFrame(
        {
            "name": ["all"],
            "num_words": len(words),
            "num_repeated_words": len(words) - len(set(words)),
            "num_displaced_markers": sum(marker != word for marker, word in zip(MARKERS, words, strict=False))
            + max(len(MARKERS) - len(words), 0),
            "pixel_mean_distance": mean_distance,
            "pixel_deviation_distance": deviation_distance,
        }
    )


def _read_references(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path, columns=["image_id", "split"]).drop_duplicates()
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is missing or not readable ({error}); {_AGAIN}") from None


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        ValueError: it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is missing or not readable ({error}); {_AGAIN}") from None
