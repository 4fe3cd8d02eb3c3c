"""What is found in the shards -> the value tables that the gate behind the costly step judges.

In memory is one row a shard. Whether an image is in two shards, and whether the references are of the same images,
DuckDB finds, on disk where that does not fit.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from captioning.gates.queries import grouped, value_tables
from captioning.gates.shard_looks import AGAIN, CHANNELS, MARKERS, NO_PIXELS, Look, Stated
from captioning.gates.values import NUM_EXAMPLES, Example, ValueTables, reduced, total, value_table
from captioning.records import PREDICT, SPLITS
from captioning.tables import open_table

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection as Connection

NEEDED = ("train", "val")
"""Splits without which nothing can be trained; test may be empty."""


def layout_quantities(examples: Path, stated: list[Stated], looks: Iterable[Look]) -> ValueTables:
    """Return the value tables of datasets: their type and shape by contract and as found.

    A file that the index does not name, and a needed split without shards, have a row of their own.
    """
    rows = [row for each in looks for row in each.layout]
    full = {shard.split for shard in stated}
    rows += [(f"{split} shards", "one or more", "none") for split in NEEDED if split not in full]
    strays = {path.name for path in examples.glob("*.h5")} - {shard.path.name for shard in stated}
    rows += [(name, "in index.json", "not in index.json") for name in sorted(strays)]
    frame = pd.DataFrame(rows, columns=["dataset", "contract", "found"])
    return reduced("datasets", frame, {"found": "contract"})


class Sums:
    """What all shards come to: one row a shard, sums a split; the ids of the images go to a database."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._rows: list[dict[str, Any]] = []
        self._pixels = dict.fromkeys((*SPLITS, PREDICT), NO_PIXELS)
        self._captions_of_image: dict[int, tuple[int, list[Example]]] = {}
        connection.execute("CREATE TABLE held (row BIGINT, image_id VARCHAR, split VARCHAR)")

    def add(self, stated: Stated, look: Look) -> Look:
        """Add one shard; return the same look without what is added."""
        if not look.row:
            return look
        self._rows.append(look.row)
        self._pixels[stated.split] += look.pixels
        for value, count, examples in look.captions_of_image:
            so_far, first = self._captions_of_image.get(value, (0, []))
            self._captions_of_image[value] = so_far + count, (first + examples)[:NUM_EXAMPLES]
        rows = np.arange(stated.first_row, stated.first_row + len(look.image_ids))
        held = pa.table({"row": rows, "image_id": pa.array(look.image_ids, pa.string())})
        self._connection.register("part", held)
        self._connection.execute("INSERT INTO held SELECT row, image_id, ? FROM part", [stated.split])
        return Look(layout=look.layout, row={}, pixels=NO_PIXELS, image_ids=[], captions_of_image=[])

    def quantities(self, examples: Path, words: list[str]) -> ValueTables:
        """Return the value tables of shards, images, splits, channels and totals."""
        shards = pd.DataFrame(self._rows)
        captioned = shards[shards["split"] != PREDICT]
        of_captions = ["lowest_token", "highest_token", "shortest_caption", "longest_caption"]
        compared = {"num_images": "indexed_images", "num_captions": "indexed_captions"}
        return {
            **reduced("shards", shards.drop(columns=["split", *of_captions]), compared),
            **reduced("shards", captioned[["file", *of_captions]]),
            **self._image_quantities(),
            **reduced("splits", self._splits(shards)),
            **reduced("splits", _references(self._connection, examples / "references.parquet")),
            **self._channel_quantities(),
            **_vocabulary_totals(words),
        }

    def _image_quantities(self) -> ValueTables:
        by_id = "(SELECT count(*) AS num_rows, min(row) AS row FROM held GROUP BY image_id)"
        rows = [(value, count, first) for value, (count, first) in self._captions_of_image.items()]
        return {
            **value_tables(
                self._connection,
                "images",
                "SELECT row, image_id AS name FROM held",
                {"num_rows_of_id": grouped("num_rows", by_id, count="sum(num_rows)")},
            ),
            ("images", "num_captions"): value_table("num_captions", rows),
        }

    def _used(self) -> list[str]:
        """Return the splits with images to learn from or to be scored on."""
        return [split for split in SPLITS if split in NEEDED or self._pixels[split].num_images]

    def _splits(self, shards: pd.DataFrame) -> pd.DataFrame:
        columns = ["num_images", "num_captions", "num_tokens", "num_unknown"]
        sums = shards.groupby("split")[columns].sum().reindex(self._used())
        pixels = [self._pixels[split] for split in self._used()]
        return pd.DataFrame(
            {
                "split": self._used(),
                "num_images": sums["num_images"].tolist(),
                "mean_caption_tokens": (sums["num_tokens"] / sums["num_captions"].clip(lower=1)).tolist(),
                "unknown_share": (sums["num_unknown"] / sums["num_tokens"].clip(lower=1)).tolist(),
                "flat_image_share": [each.num_flat / max(each.num_images, 1) for each in pixels],
            }
        )

    def _channel_quantities(self) -> ValueTables:
        found = {split: self._pixels[split].statistics() for split in self._used()}
        num_channels = max(own.shape[1] for own in found.values())
        statistics = {split: np.broadcast_to(own, (2, num_channels)) for split, own in found.items()}
        rows = [
            (f"{split} {channel}", *statistics[split][:, number])
            for split in statistics
            for number, channel in enumerate(CHANNELS[num_channels])
        ]
        mean_distance, deviation_distance = np.ptp(np.stack(list(statistics.values())), axis=0).max(axis=1)
        frame = pd.DataFrame(rows, columns=["channel", "pixel_mean", "pixel_deviation"])
        return {
            **reduced("channels", frame),
            **total("pixel_mean_distance", float(mean_distance)),
            **total("pixel_deviation_distance", float(deviation_distance)),
        }


def _vocabulary_totals(words: list[str]) -> ValueTables:
    num_displaced = sum(marker != word for marker, word in zip(MARKERS, words, strict=False))
    return {
        **total("num_words", len(words)),
        **total("num_repeated_words", len(words) - len(set(words))),
        **total("num_displaced_markers", num_displaced + max(len(MARKERS) - len(words), 0)),
    }


def _references(connection: "Connection", path: Path) -> pd.DataFrame:
    """Return by split how many images are only in the shards or only in the references."""
    import duckdb

    held, referenced = "SELECT image_id, split FROM held", "SELECT image_id, split FROM referenced"
    try:
        open_table(connection, "referenced", path, numbered="row")
        lonely = connection.execute(
            f"SELECT split, count(*) FROM (({held} EXCEPT {referenced}) UNION ALL ({referenced} EXCEPT {held})) "
            "GROUP BY split"
        ).fetchall()
    except duckdb.Error as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} is missing or not readable ({reason}); {AGAIN}") from None
    counts = [dict(lonely).get(split, 0) for split in SPLITS]
    return pd.DataFrame({"split": list(SPLITS), "num_unreferenced_images": counts})
