"""Split tables and images -> HDF5 shards of pixels and token ids, and back.

A shard (`train-00000-of-00003.h5`) holds `images` uint8 N x 3 x H x W, one image a chunk, so that a random image is
one read; `image_ids`; the captions' ids packed end to end in `tokens` with `caption_offsets` into them, and
`image_offsets` into the captions. Beside the shards: `index.json`, `vocabulary.json`, `transform.json` and the raw
`references.parquet` that scores are computed against.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from pydantic import Field

from captioning.images import BadImage, ImageFolder, PixelTransform, decode
from captioning.outputs import whole_folder
from captioning.params import Settings
from captioning.progress import progress
from captioning.records import SPLITS
from captioning.vocabulary import Vocabulary


class PreprocessSettings(Settings):
    """The `preprocess` section."""

    image: PixelTransform
    """Size of the stored pixels."""
    min_word_count: int = Field(ge=1)
    """Rarer words of the train captions become `<unk>`."""
    max_words: int = Field(ge=1)
    """Longer captions are cut for training. References never are."""
    images_per_shard: int = Field(ge=1)


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """All that one process needs to write one shard."""

    path: Path
    raw: Path
    rows: list[tuple[str, str, str]]
    """(image_id, archive, member)."""
    tokens: list[list[list[int]]]
    """Token ids by image and caption."""
    transform: PixelTransform


def write_examples(
    raw: Path, clean: Path, splits: Path, folder: Path, settings: PreprocessSettings
) -> dict[str, int]:
    """Write the shards of every split into `folder`, which appears whole or not at all.

    Returns:
        The number of images of each split.
    """
    rows = pd.read_parquet(clean / "images.parquet").merge(
        pd.read_parquet(splits / "images.parquet"),
        on="image_id",
        suffixes=("_stated", ""),
        validate="one_to_one",
    )
    captions = pd.read_parquet(clean / "captions.parquet").merge(rows[["image_id", "split"]], on="image_id")
    vocabulary = Vocabulary.build(
        captions.loc[captions["split"] == "train", "caption"], min_word_count=settings.min_word_count
    )
    with whole_folder(folder) as aside:
        plans = list(_plan(rows, captions, vocabulary, raw, aside, settings))
        context = get_context("forkserver")
        context.set_forkserver_preload([__name__])  # imported once, not once a worker
        with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=context) as pool:
            written = pool.map(write_shard, plans)
            shards = list(progress(written, total=len(plans), what="preprocess", unit="shards"))
        (aside / "index.json").write_text(json.dumps({"splits": _index(shards)}, indent=1) + "\n")
        vocabulary.save(aside / "vocabulary.json")
        (aside / "transform.json").write_text(settings.image.model_dump_json() + "\n")
        references = captions[["image_id", "split", "position", "caption"]]
        references.to_parquet(aside / "references.parquet", index=False)
    return {str(split): int(count) for split, count in rows["split"].value_counts().items()}


def _plan(
    rows: pd.DataFrame,
    captions: pd.DataFrame,
    vocabulary: Vocabulary,
    raw: Path,
    folder: Path,
    settings: PreprocessSettings,
) -> Iterator[ShardPlan]:
    ids_of = captions.groupby("image_id", sort=False)["caption"].agg(list)
    for split in SPLITS:
        members = rows[rows["split"] == split]
        num_shards = -(-len(members) // settings.images_per_shard)
        for number in range(num_shards):
            part = members.iloc[number * settings.images_per_shard : (number + 1) * settings.images_per_shard]
            yield ShardPlan(
                path=folder / f"{split}-{number:05d}-of-{num_shards:05d}.h5",
                raw=raw,
                rows=list(part[["image_id", "archive", "member"]].itertuples(index=False, name=None)),
                tokens=[
                    [vocabulary.encode(caption)[: settings.max_words] for caption in ids_of[image_id]]
                    for image_id in part["image_id"]
                ],
                transform=settings.image,
            )


def write_shard(plan: ShardPlan) -> dict[str, object]:
    """Decode, resize and write the images and captions of one shard.

    Returns:
        Its entry of the index: file, counts, a digest of its content, and the sums behind the pixel statistics.
    """
    source, shape = ImageFolder(plan.raw), (3, plan.transform.height, plan.transform.width)
    digest, total, squares = hashlib.blake2b(digest_size=16), np.zeros(3), np.zeros(3)
    with h5py.File(plan.path, "w") as file:
        images = file.create_dataset("images", (len(plan.rows), *shape), np.uint8, chunks=(1, *shape))
        for position, (image_id, archive, member) in enumerate(plan.rows):
            pixels = _pixels(source, archive, member, image_id, plan.transform)
            images[position] = pixels
            digest.update(pixels.tobytes())
            total += pixels.sum(axis=(1, 2), dtype=np.float64)
            squares += np.square(pixels, dtype=np.float64).sum(axis=(1, 2))
        for name, values in _packed(plan).items():
            file.create_dataset(name, data=values)
            digest.update(
                np.asarray(values).astype("S" if values.dtype == object else values.dtype).tobytes()
            )
    captions = sum(len(captions) for captions in plan.tokens)
    return {
        "file": plan.path.name,
        "num_images": len(plan.rows),
        "num_captions": captions,
        "digest": digest.hexdigest(),
        "num_pixels": len(plan.rows) * shape[1] * shape[2],
        "sum": total.tolist(),
        "sum_of_squares": squares.tolist(),
    }


def _pixels(
    source: ImageFolder, archive: str, member: str, image_id: str, transform: PixelTransform
) -> np.ndarray:
    try:
        return transform(decode(source.read(archive, member)))
    except (BadImage, OSError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"image {image_id} ({archive or 'file'}: {member}) was readable when it was cleaned and is not now: "
            f"{error}; run `dvc repro clean` again"
        ) from None


def _packed(plan: ShardPlan) -> dict[str, np.ndarray]:
    captions = [tokens for image in plan.tokens for tokens in image]
    return {
        "image_ids": np.array([image_id.encode() for image_id, _, _ in plan.rows], dtype=object),
        "tokens": np.array([token for tokens in captions for token in tokens], dtype=np.int32),
        "caption_offsets": np.cumsum([0, *map(len, captions)], dtype=np.int64),
        "image_offsets": np.cumsum([0, *map(len, plan.tokens)], dtype=np.int64),
    }


def _index(shards: Sequence[dict]) -> dict[str, object]:
    splits: dict[str, object] = {}
    for split in SPLITS:
        own = [shard for shard in shards if shard["file"].startswith(f"{split}-")]
        num_pixels = sum(shard["num_pixels"] for shard in own)
        mean = sum(np.array(shard["sum"]) for shard in own) / max(num_pixels, 1)
        square = sum(np.array(shard["sum_of_squares"]) for shard in own) / max(num_pixels, 1)
        splits[split] = {
            "num_images": sum(shard["num_images"] for shard in own),
            "num_captions": sum(shard["num_captions"] for shard in own),
            "pixel_mean": np.round(mean, 4).tolist(),
            "pixel_deviation": np.round(np.sqrt(np.maximum(square - mean**2, 0)), 4).tolist(),
            "shards": [
                {key: shard[key] for key in ("file", "num_images", "num_captions", "digest")} for shard in own
            ],
        }
    return splits


class Examples:
    """The images and captions of one split, by position. Files are opened lazily, once per process."""

    def __init__(self, folder: Path, split: str) -> None:
        index = json.loads((folder / "index.json").read_text())["splits"][split]
        self.folder, self.split = folder, split
        self.digest = hashlib.sha256(json.dumps(index["shards"]).encode()).hexdigest()
        self._shards = [folder / shard["file"] for shard in index["shards"]]
        self._starts = np.cumsum([0] + [shard["num_images"] for shard in index["shards"]])
        self._files: dict[int, h5py.File] = {}
        self._load_captions()

    def _load_captions(self) -> None:
        ids: list[str] = []
        tokens, captions, images = [np.empty(0, np.int32)], [np.zeros(1, np.int64)], [np.zeros(1, np.int64)]
        for number in range(len(self._shards)):
            file = self._file(number)
            ids.extend(image_id.decode() for image_id in file["image_ids"][:])
            tokens.append(file["tokens"][:])
            captions.append(file["caption_offsets"][1:] + captions[-1][-1])
            images.append(file["image_offsets"][1:] + images[-1][-1])
        self.image_ids = tuple(ids)
        self._tokens = np.concatenate(tokens)
        self._caption_offsets, self._image_offsets = np.concatenate(captions), np.concatenate(images)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_files": {}}

    def _file(self, shard: int) -> h5py.File:
        if shard not in self._files:
            self._files[shard] = h5py.File(self._shards[shard], "r")
        return self._files[shard]

    def __len__(self) -> int:
        return len(self.image_ids)

    def images(self, positions: Iterable[int]) -> np.ndarray:
        """Return the pixels at `positions`, uint8, B x 3 x H x W, in the order given."""
        return np.stack([self._image(position) for position in positions])

    def _image(self, position: int) -> np.ndarray:
        shard = int(np.searchsorted(self._starts, position, side="right")) - 1
        return self._file(shard)["images"][position - self._starts[shard]]

    def tokens(self, position: int) -> list[np.ndarray]:
        """Return the word ids of each caption of one image, int32, without `<bos>` and `<eos>`."""
        first, last = self._image_offsets[position : position + 2]
        return [
            self._tokens[self._caption_offsets[caption] : self._caption_offsets[caption + 1]]
            for caption in range(first, last)
        ]

    def references(self) -> dict[str, list[str]]:
        """Return the raw reference captions by image id."""
        table = pd.read_parquet(self.folder / "references.parquet")
        own = table[table["split"] == self.split]
        captions_of = own.groupby("image_id", sort=False)["caption"].agg(list)
        return {str(image_id): list(captions) for image_id, captions in captions_of.items()}
