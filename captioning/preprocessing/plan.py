"""What goes into which shard: a table a split whose row groups are the shards, the references, the vocabulary."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby, zip_longest
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from captioning import tables
from captioning.outputs import whole_folder
from captioning.preprocessing.settings import PreprocessSettings
from captioning.records import PREDICT, SPLITS
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
ROWS_PER_BATCH = 10_000


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


def write_plan(clean: Path, splits: Path, folder: Path, settings: PreprocessSettings) -> None:
    """Write a table for each split whose row groups are its shards, the references and the vocabulary.

    Raises:
        ValueError: the tables of `clean` and `splits` do not belong together, or no image is in train.
    """
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
        vocabulary = Vocabulary.build(
            train_captions, min_word_count=settings.min_word_count, tokens=settings.tokens
        )
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


def read_pieces(plan: Path, folder: Path, raw: Path, settings: PreprocessSettings) -> Iterator[Piece]:
    """Yield the shards that the plan in the folder `plan` tells of, to be written into `folder`."""
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
