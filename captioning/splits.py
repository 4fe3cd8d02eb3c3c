"""Clean images -> exactly one split each: train, val or test; predict for those that are only to be captioned.

An image decides by its own id, or by what its data set states; a near-duplicate follows its earliest twin.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator, model_validator

from captioning import tables
from captioning.outputs import whole_folder
from captioning.params import Settings
from captioning.records import PREDICT, SPLITS

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SCHEMA = pa.schema({"image_id": pa.string(), "split": pa.string()})
IM2TXT = {"train": 0.85, "val": 0.05, "test": 0.10}
"""How im2txt (Vinyals et al., 2016, arXiv:1609.06647) divides COCO's val2014; it trains on the first share, too."""

Counts = dict[str, dict[str, int]]
"""Number of images by source and split."""


class Ratios(Settings):
    """Shares of the images, which add up to 1."""

    train: float = Field(gt=0, lt=1)
    val: float = Field(ge=0, lt=1)
    """More than 0: training keeps the checkpoint that is best on val."""
    test: float = Field(ge=0, lt=1)
    """0 says that no test split is wanted; `evaluate.split` is val then."""

    @model_validator(mode="after")
    def _are_usable(self) -> "Ratios":
        if not self.val:
            raise ValueError(
                "val is 0, but training keeps the checkpoint that is best on val; where two splits are enough, "
                "set test to 0 and evaluate.split to val"
            )
        total = self.train + self.val + self.test
        if not math.isclose(total, 1, abs_tol=1e-6):
            raise ValueError(f"train, val and test add up to {total:g}, expected 1")
        return self


class SplitSettings(Settings):
    """How images come into splits."""

    policy: Literal["dataset", "ratios", "im2txt"]
    """`dataset`: as the data set states; `ratios`: by a keyed hash of the image id; `im2txt`: as the data set states,
    its val divided by the hash into 85 % train, 5 % val and 10 % test."""
    ratios: Ratios
    """Used by the policy `ratios`; a test of 0 lets the others do without test images, too."""
    key: str
    """Of the hash: another key, another assignment."""
    stratified: bool
    """False: an image keeps its split as the data grow, and shares are met within chance. True: each source is
    divided exactly, by rank of the hash in it, so that an image may move when images are added to its source."""

    @field_validator("key")
    @classmethod
    def _is_short(cls, key: str) -> str:
        if not 1 <= len(key.encode()) <= hashlib.blake2b.MAX_KEY_SIZE:
            raise ValueError(
                f"{key!r} has {len(key.encode())} bytes, expected 1 to {hashlib.blake2b.MAX_KEY_SIZE}"
            )
        return key

    @model_validator(mode="after")
    def _divides(self) -> "SplitSettings":
        if self.stratified and self.policy == "dataset":
            raise ValueError(
                "stratified is true and policy 'dataset', which divides nothing; set stratified: false, "
                "or policy: ratios or im2txt"
            )
        return self


def write_splits(clean: Path, folder: Path, settings: SplitSettings) -> Counts:
    """Write images.parquet (image_id, split), in the order of the clean images, into `folder`, whole or not.

    Raises:
        ValueError: an image states no split that the policy could use, or a split would be empty.
    """
    counts: Counter[tuple[str, str]] = Counter()
    with whole_folder(folder) as aside, tables.database() as connection:
        path = clean / "images.parquet"
        tables.open_table(connection, "images", path, numbered="row")
        if settings.policy != "ratios":
            _refuse_unstated(connection)
        _decide(connection, path, settings)
        tables.write(_assigned(connection, counts), aside / "images.parquet", SCHEMA)
        by_source = {source: dict.fromkeys((*SPLITS, PREDICT), 0) for source, _ in sorted(counts)}
        for (source, split), count in counts.items():
            by_source[source][split] = count
        _refuse_empty(by_source, settings)
    return by_source


def add_up(counts: Counts) -> dict[str, int]:
    """Return the number of images by split, of all sources together."""
    return {split: sum(own[split] for own in counts.values()) for split in (*SPLITS, PREDICT)}


def _refuse_unstated(connection: "DuckDBPyConnection") -> None:
    splits = ", ".join(f"'{split}'" for split in (*SPLITS, PREDICT))
    others = connection.sql(
        f"""
        SELECT split, count(*), arg_min(image_id, row) AS first, min(row) AS first_row
        FROM images WHERE split NOT IN ({splits}) GROUP BY split ORDER BY split
        """
    ).fetchall()
    if others:
        [(num_images,)] = connection.sql("SELECT count(*) FROM images").fetchall()
        values = ", ".join(repr(split) for split, *_ in others[:5])
        first = min(others, key=lambda other: other[3])[2]
        raise ValueError(
            f"{sum(other[1] for other in others):,} of {num_images:,} images state none of train, val and test, "
            f"but {values}, first {first!r}; set split.policy to ratios, or correct the source"
        )


def _decide(connection: "DuckDBPyConnection", path: Path, settings: SplitSettings) -> None:
    """Make the table `decided` (image_id, split) of the images that follow no twin."""
    shares = IM2TXT if settings.policy == "im2txt" else settings.ratios.model_dump()
    schema = pa.schema(
        dict.fromkeys(["image_id", "source", "split"], pa.string()) | {"position": pa.float64()}
    )
    reader = pa.RecordBatchReader.from_batches(schema, _positioned(path, settings))
    connection.register("positioned", reader)
    rank = """
        (row_number() OVER (PARTITION BY source, position IS NULL ORDER BY position, image_id) - 0.5)
        / count(*) OVER (PARTITION BY source, position IS NULL)
    """
    connection.execute(
        f"""
        CREATE TABLE decided AS SELECT image_id, CASE
            WHEN position IS NULL THEN split
            WHEN share < $until_val THEN 'train'
            WHEN share < $until_test THEN 'val'
            ELSE 'test' END AS split
        FROM (SELECT *, {rank if settings.stratified else "position"} AS share FROM positioned)
        """,
        {"until_val": shares["train"], "until_test": shares["train"] + shares["val"]},
    )
    connection.unregister("positioned")


def _positioned(path: Path, settings: SplitSettings) -> Iterator[pa.RecordBatch]:
    """Yield the images that follow no twin, with a position in [0, 1) where the policy divides, else null."""
    for batch in tables.read(path, ["image_id", "source", "split", "twin"]):
        own = batch.filter(pc.equal(batch["twin"], ""))
        positions = [
            find_position(image_id, settings.key) if _is_divided(split, settings) else None
            for image_id, split in zip(own["image_id"].to_pylist(), own["split"].to_pylist(), strict=True)
        ]
        columns = {name: own[name].cast(pa.string()) for name in ("image_id", "source", "split")}
        yield pa.record_batch(columns | {"position": pa.array(positions, pa.float64())})


def _is_divided(stated: str, settings: SplitSettings) -> bool:
    match settings.policy:
        case "ratios":
            return stated != PREDICT
        case "im2txt":
            return stated == "val"
    return False


def find_position(image_id: str, key: str) -> float:
    """Return a number in [0, 1), uniform over ids, that depends on nothing else."""
    digest = hashlib.blake2b(image_id.encode(), digest_size=8, key=key.encode()).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53  # 53 bits: what a float holds exactly


def _assigned(connection: "DuckDBPyConnection", counts: Counter[tuple[str, str]]) -> Iterator[pa.RecordBatch]:
    """Yield every image with its split, in order, while counting them by source and split."""
    assigned = connection.sql(
        f"""
        SELECT images.image_id, source, if(images.split = '{PREDICT}', images.split, decided.split) AS split
        FROM images LEFT JOIN decided ON decided.image_id = if(twin = '', images.image_id, twin)
        ORDER BY row
        """
    )
    for batch in assigned.to_arrow_reader(tables.ROWS_PER_GROUP):
        assert not batch["split"].null_count, "a twin of images.parquet is no image there"
        counts.update(zip(batch["source"].to_pylist(), batch["split"].to_pylist(), strict=True))
        yield batch


def _refuse_empty(by_source: Counts, settings: SplitSettings) -> None:
    counts = add_up(by_source)
    empty = [split for split in SPLITS if not counts[split] and (split != "test" or settings.ratios.test)]
    if empty:
        next_step = (
            "raise its share in split.ratios"
            if settings.policy == "ratios"
            else "set split.policy to ratios, or, where only test is empty and none is wanted, split.ratios.test to 0"
        )
        counted = ", ".join(f"{counts[split]:,} {split}" for split in SPLITS)
        raise ValueError(
            f"no image in {' and '.join(empty)} ({counted}); "
            f"expected at least one in each: bring more images (download.limit), or {next_step}"
        )
