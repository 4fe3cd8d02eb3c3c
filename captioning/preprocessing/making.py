"""One planned shard -> its file and its entry in the ledger, in any process of any machine that sees the files."""

import functools
import json
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from captioning import workers
from captioning.images import BadImage, decode, encode_jpeg, open_folder
from captioning.outputs import is_full_disk, whole_file
from captioning.preprocessing.plan import Piece
from captioning.preprocessing.settings import PreprocessSettings
from captioning.shards import ShardImage, write_shard
from captioning.vocabulary import Vocabulary

NUM_SAMPLED = 32
"""Images made before the others to learn what one takes in time and on disk."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What an image takes, on average over a sample."""

    seconds: float
    num_bytes: float
    """On disk."""
    needs_torch: bool
    """Whether torch was imported to make it."""


def make_shard(piece: Piece) -> None:
    """Decode, resize and write the images and captions of one shard, and enter it in the ledger.

    Raises:
        ValueError: an image cannot be read any more, or the disk is full; the message names it.
    """
    rows = pq.ParquetFile(piece.plan).read_row_group(piece.row_group)
    try:
        with whole_file(piece.path) as aside:
            entry = write_shard(aside, workers.ahead(_make_images(piece, rows)), rows["image_id"].to_pylist())
        with whole_file(piece.entry) as aside:
            aside.write_text(json.dumps(entry | {"file": piece.path.name}))
    except OSError as error:
        if is_full_disk(error):
            raise ValueError(
                f"no space is left in {piece.path.parent} for {piece.path.name}; the shards before it are kept: "
                "free some space and run again"
            ) from None
        raise


def _make_images(piece: Piece, rows: pa.Table) -> Iterator[ShardImage]:
    vocabulary = _vocabulary(piece.vocabulary)
    for row, encoded in workers.ahead(_read_images(piece, rows)):
        yield ShardImage(
            stored=_stored(encoded, row, piece.settings),
            tokens=[vocabulary.encode(caption)[: piece.settings.max_words] for caption in row["captions"]],
        )


def _read_images(piece: Piece, rows: pa.Table) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Yield the rows with the bytes of their images."""
    source = open_folder(piece.raw)
    for batch in rows.to_batches(max_chunksize=256):
        for row in batch.to_pylist():
            try:
                yield row, source.read(row["archive"], row["member"])
            except (BadImage, OSError, KeyError, zipfile.BadZipFile) as error:
                raise _changed(row, error) from None


def _changed(row: dict[str, Any], error: Exception) -> ValueError:
    return ValueError(
        f"image {row['image_id']} ({row['archive'] or 'file'}: {row['member']}) was readable when it was cleaned "
        f"and is not now: {error}; run `dvc repro --force clean`"
    )


@functools.lru_cache(maxsize=1)
def _vocabulary(path: Path) -> Vocabulary:
    return Vocabulary.load(path)


def _stored(encoded: bytes, row: dict[str, Any], settings: PreprocessSettings) -> np.ndarray:
    """Return the pixels, C x H x W, or the JPEG file made of them, as the settings say."""
    try:
        pixels = settings.image(decode(encoded))
    except BadImage as error:
        raise _changed(row, error) from None
    return pixels if settings.storage == "pixels" else encode_jpeg(pixels, settings.jpeg_quality)


def sample(piece: Piece) -> Cost:
    """Make some images of a shard, the first one untimed, and say what one costs."""
    rows = pq.ParquetFile(piece.plan).read_row_group(piece.row_group)
    images = _make_images(piece, rows[: NUM_SAMPLED + 1])
    sizes = [next(images).stored.nbytes]
    began = time.perf_counter()
    sizes += [image.stored.nbytes for image in images]
    seconds = (time.perf_counter() - began) / max(len(sizes) - 1, 1)
    return Cost(seconds=seconds, num_bytes=sum(sizes) / len(sizes), needs_torch="torch" in sys.modules)
