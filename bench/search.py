"""Captions of 100,000 pictures searched by words, against SQLite's full-text index (FTS5)."""

import json
import re
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.comparison import Comparison, alternately
from bench.photographs import shared
from captioning.collection import Collection
from captioning.slices import FUNCTION_WORDS

NUM_PICTURES, CAPTIONS_PER_PICTURE, TARGET_MILLISECONDS = 100_000, 3, 50.0
EVERY = 25
"""Of COCO's 5,000 pictures one is asked for."""
TOP = 10


def search_milliseconds() -> Comparison:
    """Measure queries of one caption each, as a person would write them."""
    captions = _captions()
    num_copies = NUM_PICTURES // len(captions)
    pictures = {
        f"{copy}/{image_id}": [
            (own * 2)[(copy + number) % len(own)] for number in range(CAPTIONS_PER_PICTURE)
        ]
        for copy in range(num_copies)
        for image_id, own in captions.items()
    }
    queries = [own[1] for own in [*captions.values()][::EVERY]]
    with tempfile.TemporaryDirectory() as folder:
        collection = _index(Path(folder), pictures)
        database = _fts5(pictures)
        value, baseline = alternately(
            _median(queries, lambda query: collection.search(query, top=TOP)),
            _median(queries, lambda query: _search_fts5(database, query)),
            num_rounds=3,
        )
    return Comparison(
        value=value,
        baseline=baseline,
        unit="ms",
        what=f"a query over {len(pictures):,} pictures of {CAPTIONS_PER_PICTURE} captions, against FTS5; "
        f"recall@{TOP} on COCO's {len(captions):,} is {_recall(captions):.3f} (wanted: 0.38)",
        target=baseline / TARGET_MILLISECONDS,
        is_rate=False,
    )


def _captions() -> dict[str, list[str]]:
    """Return the captions of COCO's validation pictures by image id."""
    captions: dict[str, list[str]] = {}
    for row in json.loads(shared("coco/captions_val2017.json").read_text())["annotations"]:
        captions.setdefault(str(row["image_id"]), []).append(row["caption"])
    return captions


def _index(folder: Path, pictures: dict[str, list[str]]) -> Collection:
    collection = Collection(folder)
    rows = [
        {"image": path, "captions": [{"text": text} for text in texts], "error": None}
        for path, texts in pictures.items()
    ]
    collection.update(rows, dict.fromkeys(pictures, ""), "")
    return collection


def _recall(captions: dict[str, list[str]]) -> float:
    """Return how often the second caption of a picture finds it among the first `TOP` by its first caption."""
    with tempfile.TemporaryDirectory() as folder:
        collection = _index(Path(folder), {image_id: own[:1] for image_id, own in captions.items()})
        hits = [
            image_id in {found.path for found in collection.search(own[1], top=TOP)}
            for image_id, own in captions.items()
        ]
    return statistics.mean(hits)


def _median(queries: list[str], search: Callable[[str], object]) -> Callable[[], float]:
    """Return what asks all queries and says how many milliseconds the median one took."""

    def measure() -> float:
        times = []
        for query in queries:
            began = time.perf_counter()
            search(query)
            times.append(time.perf_counter() - began)
        return 1000 * statistics.median(times)

    return measure


def _fts5(pictures: dict[str, list[str]]) -> sqlite3.Connection:
    database = sqlite3.connect(":memory:")
    database.execute(
        "CREATE VIRTUAL TABLE captions USING fts5 (path UNINDEXED, text, tokenize = 'porter unicode61')"
    )
    rows = ((path, "\n".join(texts)) for path, texts in pictures.items())
    database.executemany("INSERT INTO captions VALUES (?, ?)", rows)
    return database


def _search_fts5(database: sqlite3.Connection, query: str) -> object:
    stated = dict.fromkeys(re.findall(r"\w+", query.lower()))
    words = " OR ".join(f'"{word}"' for word in stated if word not in FUNCTION_WORDS)
    shown = "path, highlight(captions, 1, '<', '>')"
    statement = f"SELECT {shown} FROM captions WHERE captions MATCH ? ORDER BY rank LIMIT ?"
    return database.execute(statement, (words, TOP)).fetchall()
