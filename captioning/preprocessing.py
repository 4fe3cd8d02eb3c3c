"""Clean images and captions -> examples: pixels and word ids in HDF5 shards, the vocabulary from train captions only.

A plan is written first: a table for each split whose row groups are the shards. Then each shard is made by itself,
in any process of any machine that sees the files, and entered in a ledger; a killed run goes on with the shards
that the ledger lacks and ends with the same bytes.
"""

import errno
import functools
import json
import shutil
import sys
import time
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby, zip_longest
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from captioning import tables, workers
from captioning.fingerprints import code_identity, file_identity, fingerprint
from captioning.home import work
from captioning.images import BadImage, PixelTransform, decode, encode_jpeg, open_folder
from captioning.outputs import whole_file, whole_folder
from captioning.params import Settings
from captioning.progress import in_bytes, in_time, progress, say
from captioning.records import PREDICT, SPLITS
from captioning.shards import ShardImage, write_shard
from captioning.vocabulary import Vocabulary

PLAN_SCHEMA = pa.schema(
    {
        "image_id": pa.string(),
        "archive": pa.string(),
        "member": pa.string(),
        "captions": pa.list_(pa.string()),
    }
)
REFERENCE_SCHEMA = pa.schema(
    {"image_id": pa.string(), "split": pa.string(), "position": pa.int32(), "caption": pa.string()}
)
REFERENCES, VOCABULARY = "references.parquet", "vocabulary.json"
DECIDE_THE_BYTES = [f"captioning.{name}" for name in ("preprocessing", "shards", "images", "vocabulary")]
ROWS_PER_BATCH = 10_000
NUM_SAMPLED = 32
"""Images made before the others to learn what one takes in time and on disk."""
SPARE_SHARE = 0.05
"""Of the space needed, for what is written beside the images."""


class PreprocessSettings(Settings):
    """The `preprocess` section."""

    image: PixelTransform
    """Size of the stored pixels."""
    storage: Literal["pixels", "jpeg"]
    """`pixels`: as training reads them; `jpeg`: a sixth of the disk, decoded each time they are read."""
    jpeg_quality: int = Field(ge=1, le=100)
    """Of the files stored by `storage: jpeg`."""
    min_word_count: int = Field(ge=1)
    """Rarer words of the train captions become `<unk>`."""
    max_words: int = Field(ge=1)
    """Longer captions are cut for training. References never are."""
    images_per_shard: int = Field(ge=1)
    """A shard is 1 to 4 GB at best: 8,192 images of 256 x 256 pixels are 1.6 GB."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """All that a process needs to write one shard; paths are absolute."""

    split: str
    path: Path
    """Of the shard."""
    entry: Path
    """Of its entry in the ledger, written when the shard is whole."""
    plan: Path
    row_group: int
    num_images: int
    vocabulary: Path
    raw: Path
    settings: PreprocessSettings


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What an image takes, on average over a sample."""

    seconds: float
    num_bytes: float
    """On disk."""
    needs_torch: bool
    """Whether torch was imported to make it."""


def write_examples(
    raw: Path, clean: Path, splits: Path, folder: Path, settings: PreprocessSettings
) -> dict[str, int]:
    """Write the shards of every split into `folder`, which appears whole or not at all.

    Returns:
        The number of images of each split.

    Raises:
        ValueError: the tables do not belong together, an image cannot be read any more, or the disk is too small.
    """
    parts = work("preprocess", _fingerprint(clean, splits, settings)).resolve()
    with whole_folder(folder, resume_in=parts / "examples") as aside:
        plan = parts / "plan"
        if not plan.exists():
            _write_plan(clean, splits, plan, settings)
        pieces = list(_pieces(plan, aside, raw.resolve(), settings))
        _write_shards(pieces, folder, settings)
        indexed = _index(pieces)
        index = {"storage": settings.storage, "splits": indexed}
        (aside / "index.json").write_text(json.dumps(index, indent=1) + "\n")
        (aside / "transform.json").write_text(settings.image.model_dump_json() + "\n")
        for name in (VOCABULARY, REFERENCES):
            shutil.copyfile(plan / name, aside / name)
    shutil.rmtree(parts, ignore_errors=True)
    return {split: own["num_images"] for split, own in indexed.items()}


def _fingerprint(clean: Path, splits: Path, settings: PreprocessSettings) -> str:
    tables_read = [clean / "images.parquet", clean / "captions.parquet", splits / "images.parquet"]
    code = code_identity(*(sys.modules[name] for name in DECIDE_THE_BYTES))
    return fingerprint(settings.model_dump(), code, *map(file_identity, tables_read))


def _write_plan(clean: Path, splits: Path, folder: Path, settings: PreprocessSettings) -> None:
    """Write a table for each split whose row groups are its shards, the references and the vocabulary."""
    with whole_folder(folder) as aside:
        _write_tables(_join(clean, splits), aside, settings.images_per_shard)
        if not (aside / "train.parquet").exists():
            raise ValueError(f"no image of {splits} is in train; correct the section split")
        train_captions = (
            caption
            for batch in tables.read(aside / "train.parquet", ["captions"], ROWS_PER_BATCH)
            for captions in batch["captions"].to_pylist()
            for caption in captions
        )
        vocabulary = Vocabulary.build(train_captions, min_word_count=settings.min_word_count)
        vocabulary.save(aside / VOCABULARY)


class Planned(NamedTuple):
    """An image to be stored, with its captions by position."""

    split: str
    image_id: str
    archive: str
    member: str
    captions: list[tuple[int, str]]


def _join(clean: Path, splits: Path) -> Iterator[Planned]:
    """Yield the images of `clean` with their splits and captions: all three tables are in one order."""
    images = _rows(clean / "images.parquet", ["image_id", "archive", "member"])
    placed = _rows(splits / "images.parquet", ["image_id", "split"])
    captions = groupby(_rows(clean / "captions.parquet", ["image_id", "position", "caption"]), itemgetter(0))
    next_id, own = next(captions, (None, iter(())))
    for image, place in zip_longest(images, placed):
        if image is None or place is None or image[0] != place[0]:
            raise ValueError(
                f"{splits} does not list the images of {clean} in their order: it has {place and place[0]!r} "
                f"where {image and image[0]!r} is expected; run `dvc repro --force split`"
            )
        image_id, archive, member = image
        image_captions = []
        if image_id == next_id:
            image_captions = [(position, caption) for _, position, caption in own]
            next_id, own = next(captions, (None, iter(())))
        yield Planned(place[1], image_id, archive, member, image_captions)
    if next_id is not None:
        raise ValueError(
            f"{clean}/captions.parquet: the captions of {next_id!r} do not stand in the order of images.parquet; "
            "run `dvc repro --force clean`"
        )


def _rows(path: Path, columns: list[str]) -> Iterator[tuple[Any, ...]]:
    for batch in tables.read(path, columns, ROWS_PER_BATCH):
        yield from zip(*(batch[name].to_pylist() for name in columns), strict=True)


def _write_tables(images: Iterable[Planned], folder: Path, images_per_shard: int) -> None:
    """Write the plan of each split and the references, holding one shard of each split in memory."""
    waiting: dict[str, list[Planned]] = defaultdict(list)
    plans: dict[str, pq.ParquetWriter] = {}
    with ExitStack() as stack:
        references = stack.enter_context(pq.ParquetWriter(folder / REFERENCES, REFERENCE_SCHEMA))

        def flush(split: str) -> None:
            if split not in plans:
                plans[split] = stack.enter_context(pq.ParquetWriter(folder / f"{split}.parquet", PLAN_SCHEMA))
            rows = waiting.pop(split)
            plans[split].write_table(_planned(rows), row_group_size=len(rows))
            references.write_table(_references(rows))

        for image in images:
            waiting[image.split].append(image)
            if len(waiting[image.split]) == images_per_shard:
                flush(image.split)
        for split in list(waiting):
            flush(split)


def _planned(images: list[Planned]) -> pa.Table:
    rows = [
        {
            "image_id": image.image_id,
            "archive": image.archive,
            "member": image.member,
            "captions": [caption for _, caption in image.captions],
        }
        for image in images
    ]
    return pa.Table.from_pylist(rows, PLAN_SCHEMA)


def _references(images: list[Planned]) -> pa.Table:
    rows = [
        {"image_id": image.image_id, "split": image.split, "position": position, "caption": caption}
        for image in images
        for position, caption in image.captions
    ]
    return pa.Table.from_pylist(rows, REFERENCE_SCHEMA)


def _pieces(plan: Path, folder: Path, raw: Path, settings: PreprocessSettings) -> Iterator[Piece]:
    for split in (*SPLITS, PREDICT):
        table = plan / f"{split}.parquet"
        if not table.exists():
            continue
        metadata = pq.read_metadata(table)  # once: it lists every shard
        num_shards = metadata.num_row_groups
        for number in range(num_shards):
            name = f"{split}-{number:05d}-of-{num_shards:05d}"
            yield Piece(
                split=split,
                path=folder / f"{name}.h5",
                entry=plan.parent / "ledger" / f"{name}.json",
                plan=table,
                row_group=number,
                num_images=metadata.row_group(number).num_rows,
                vocabulary=plan / VOCABULARY,
                raw=raw,
                settings=settings,
            )


def _write_shards(pieces: Sequence[Piece], folder: Path, settings: PreprocessSettings) -> None:
    """Write the shards that the ledger lacks, on all processors."""
    missing = [piece for piece in pieces if not (piece.entry.exists() and piece.path.exists())]
    if not missing:
        return
    if len(missing) < len(pieces):
        say(
            f"preprocess: {len(pieces) - len(missing):,} of {len(pieces):,} shards are there from an earlier run"
        )
    missing[0].entry.parent.mkdir(exist_ok=True)
    num_images = sum(piece.num_images for piece in missing)
    cost = _sample(missing[len(missing) // 2])
    _refuse_small_disk(num_images, cost.num_bytes * num_images, missing[0].path, folder)
    seconds = cost.seconds * num_images / workers.num_processes()
    say(
        f"preprocess: {num_images:,} images, {in_bytes(cost.num_bytes * num_images)}, about {in_time(seconds)} "
        f"on {workers.num_processes()} processors"
    )
    preload = ["torch"] if cost.needs_torch else []
    written = workers.run(make_shard, missing, preload=preload)
    for _ in progress(written, total=len(missing), what="preprocess", unit="shards"):
        pass


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
        if error.errno == errno.ENOSPC or "No space left" in str(error):
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
    """Return the pixels, 3 x H x W, or the JPEG file made of them, as the settings say."""
    try:
        pixels = settings.image(decode(encoded))
    except BadImage as error:
        raise _changed(row, error) from None
    return pixels if settings.storage == "pixels" else encode_jpeg(pixels, settings.jpeg_quality)


def _sample(piece: Piece) -> Cost:
    """Make some images of a shard, the first one untimed, and say what one costs."""
    rows = pq.ParquetFile(piece.plan).read_row_group(piece.row_group)
    images = _make_images(piece, rows[: NUM_SAMPLED + 1])
    sizes = [next(images).stored.nbytes]
    began = time.perf_counter()
    sizes += [image.stored.nbytes for image in images]
    seconds = (time.perf_counter() - began) / max(len(sizes) - 1, 1)
    return Cost(seconds=seconds, num_bytes=sum(sizes) / len(sizes), needs_torch="torch" in sys.modules)


def _refuse_small_disk(num_images: int, num_bytes: float, shard: Path, folder: Path) -> None:
    needed = num_bytes * (1 + SPARE_SHARE)
    for place in {
        shard.parent.stat().st_dev: shard.parent,
        folder.parent.stat().st_dev: folder.parent,
    }.values():
        free = shutil.disk_usage(place).free
        if free < needed:
            raise ValueError(
                f"{num_images:,} images take {in_bytes(needed)} and {place} has {in_bytes(free)} free: free some "
                "space, set CAPTIONING_HOME to a folder on a larger disk, or make preprocess.image smaller or "
                "preprocess.storage jpeg"
            )


def _index(pieces: Sequence[Piece]) -> dict[str, dict[str, Any]]:
    """Return the number of images and captions of each split and the entries of its shards."""
    shards: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for piece in pieces:
        shards.setdefault(piece.split, []).append(json.loads(piece.entry.read_text()))
    return {
        split: {
            "num_images": sum(shard["num_images"] for shard in own),
            "num_captions": sum(shard["num_captions"] for shard in own),
            "shards": own,
        }
        for split, own in shards.items()
    }
