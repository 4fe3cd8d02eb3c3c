"""What the data is, counted by DuckDB in the tables that the stages left: sources, licenses, splits, gates."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from captioning import tables
from captioning.records import PREDICT, SPLITS
from captioning.vocabulary import MARKERS, Vocabulary

NUM_WORDS_NAMED = 20
"""Most frequent words of the captions on a card."""
MOST_ROWS = 50
"""Of any table of a card: a data set may state a license a picture."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one gate found, from its report.json."""

    gate: str
    subject: str
    is_accepted: bool
    num_expectations: int
    broken: list[dict[str, Any]]
    """Rows of the report whose expectation does not hold."""
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class CaptionCount:
    """The references of a split."""

    split: str
    num_images: int
    num_captions: int
    mean_words: float
    most_words: int


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """The facts of a data card."""

    sources: list[tuple[str, str, int, int]]
    """Source, license, pictures stated, pictures fetched; most pictures first."""
    failures: list[tuple[str, int]]
    """Why pictures could not be fetched, and how many."""
    quarantined: list[tuple[str, bool, int]]
    """Reason, whether it is about a picture (or a single caption), how many."""
    num_images: int
    """Kept."""
    sizes: tuple[int, int, int, int, int, int]
    """Smallest, median, largest width, then height, in pixels."""
    num_twins: int
    """Kept pictures with an earlier near-duplicate, whose split they share."""
    split_names: list[str]
    splits: list[tuple[str, list[int]]]
    """Source, pictures of each split."""
    captions: list[CaptionCount]
    num_words: int
    """Of the vocabulary, without markers."""
    frequent_words: list[str]
    verdicts: list[Verdict]


def read_data_facts(raw: Path, clean: Path, splits: Path, examples: Path, reports: Path) -> DataFacts:
    """Count what the stages before training left in their folders."""
    vocabulary = Vocabulary.load(examples / "vocabulary.json")
    with tables.database() as database:
        tables.open_table(database, "stated", raw / "rows.parquet")
        tables.open_table(database, "kept", clean / "images.parquet")
        tables.open_table(database, "quarantine", clean / "quarantine.parquet")
        tables.open_table(database, "placed", splits / "images.parquet")

        def rows(query: str) -> list[tuple[Any, ...]]:
            return database.execute(query).fetchall()

        split_names = [
            name
            for name in (*SPLITS, PREDICT)
            if rows(f"SELECT 1 FROM placed WHERE split = '{name}' LIMIT 1")
        ]
        columns = ", ".join(f"count(*) FILTER (placed.split = '{name}')" for name in split_names)
        [(num_images, num_twins, *sizes)] = rows(
            "SELECT count(*), count(*) FILTER (twin != ''), "
            "min(width), median(width)::INTEGER, max(width), min(height), median(height)::INTEGER, max(height) "
            "FROM kept"
        )
        return DataFacts(
            sources=rows(
                "SELECT source, license, count(*), count(*) FILTER (status = 'ok') FROM stated "
                f"GROUP BY ALL ORDER BY count(*) DESC, source, license LIMIT {MOST_ROWS}"
            ),
            failures=rows(
                "SELECT split_part(error, ':', 1) AS reason, count(*) FROM stated WHERE status != 'ok' "
                f"GROUP BY reason ORDER BY count(*) DESC, reason LIMIT {MOST_ROWS}"
            ),
            quarantined=rows(
                "SELECT reason, position < 0 AS is_image, count(*) FROM quarantine GROUP BY ALL "
                f"ORDER BY is_image DESC, count(*) DESC, reason LIMIT {MOST_ROWS}"
            ),
            num_images=num_images,
            sizes=tuple(sizes),  # type: ignore[arg-type]
            num_twins=num_twins,
            split_names=split_names,
            splits=[
                (source, counts)
                for source, *counts in rows(
                    f"SELECT source, {columns} FROM kept JOIN placed USING (image_id) "
                    f"GROUP BY source ORDER BY count(*) DESC, source LIMIT {MOST_ROWS}"
                )
            ],
            captions=_caption_counts(examples / "references.parquet", split_names, vocabulary),
            num_words=len(vocabulary) - len(MARKERS),
            frequent_words=list(vocabulary.words[len(MARKERS) :][:NUM_WORDS_NAMED]),
            verdicts=[
                _verdict("validate", "the tables", reports / "validation" / "report.json"),
                _verdict("inspect", "the shards of pixels and words", reports / "inspection" / "report.json"),
            ],
        )


def _caption_counts(
    references: Path, split_names: Sequence[str], vocabulary: Vocabulary
) -> list[CaptionCount]:
    """Count the words as the vocabulary does."""
    images: defaultdict[str, set[str]] = defaultdict(set)
    lengths: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for batch in tables.read(references, ["split", "image_id", "caption"]):
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            split, image_id, caption = row
            images[split].add(image_id)
            lengths[split][len(vocabulary.split(caption))] += 1
    return [
        CaptionCount(
            split=split,
            num_images=len(images[split]),
            num_captions=lengths[split].total(),
            mean_words=round(
                sum(n * count for n, count in lengths[split].items()) / lengths[split].total(), 2
            ),
            most_words=max(lengths[split]),
        )
        for split in split_names
        if split in lengths
    ]


def sizes_of(clean: Path, image_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return width and height in pixels of some pictures as their data set has them, upright."""
    with tables.database() as database:
        tables.open_table(database, "kept", clean / "images.parquet")
        database.register("wanted", pa.table({"image_id": pa.array(image_ids, pa.string())}))
        found = database.execute("SELECT image_id, width, height FROM kept SEMI JOIN wanted USING (image_id)")
        return {image_id: (width, height) for image_id, width, height in found.fetchall()}


def _verdict(gate: str, subject: str, path: Path) -> Verdict:
    try:
        report = json.loads(path.read_text())
        return Verdict(
            gate=gate,
            subject=subject,
            is_accepted=report["accepted"],
            num_expectations=report["num_expectations"],
            broken=[row for row in report["expectations"] if not row["holds"]],
            notes=report["notes"],
        )
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path} is no report of a gate: {error!r}; `dvc repro {gate}` writes it") from None
