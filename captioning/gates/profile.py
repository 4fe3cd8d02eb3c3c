"""What the training data looks like, as counts: later data are compared with those of the champion.

A profile is JSON: `num_images`, `num_captions` and `num_words` of the train split; `caption_words`, `image_size`
and `brightness`: bin -> number of captions or images; `words`: the most frequent words with their counts, most
frequent first. The same data gives the same bytes.
"""

from typing import TYPE_CHECKING, Any

from captioning.gates.queries import scalar
from captioning.gates.table_quantities import TRAIN

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection as Connection

WORDS_KEPT = 20_000
"""Most frequent words that a profile names; the rest is a number."""
MOST_WORDS = 100
"""Longer captions are counted as of so many words."""
BINS_PER_OCTAVE = 8
"""Of the image size, the square root of its pixels."""
BRIGHTNESS_PER_BIN = 4
"""Of the pixel mean, 0..255."""

COUNTED = {
    "caption_words": f"SELECT least(num_words, {MOST_WORDS}) FROM caption_facts WHERE split = {TRAIN}",
    "image_size": "SELECT floor(0.5 * log2(greatest(width, 1)::DOUBLE * greatest(height, 1)) "
    f"* {BINS_PER_OCTAVE} + 1e-9)::INTEGER FROM images JOIN placed USING (row) WHERE placed.split = 'train'",
    "brightness": f"SELECT try_cast(floor(pixel_mean / {BRIGHTNESS_PER_BIN}) AS INTEGER) FROM images "
    "JOIN placed USING (row) WHERE placed.split = 'train'",
}
"""Distribution -> query for the bin of each caption or image."""


def take_profile(connection: "Connection") -> dict[str, Any]:
    """Return the profile of the train split of the tables that `table_quantities.quantities` has opened."""
    counts = {name: _counts(connection, query) for name, query in COUNTED.items()}
    words = "SELECT word, num_train FROM words WHERE num_train > 0"
    return {
        "num_images": sum(counts["image_size"].values()),
        "num_captions": sum(counts["caption_words"].values()),
        "num_words": scalar(connection, f"SELECT coalesce(sum(num_train), 0) FROM ({words})"),
        **{name: {str(number): count for number, count in bins.items()} for name, bins in counts.items()},
        "words": dict(
            connection.execute(f"{words} ORDER BY num_train DESC, word LIMIT {WORDS_KEPT}").fetchall()
        ),
    }


def _counts(connection: "Connection", query: str) -> dict[int, int]:
    rows = connection.execute(
        f"SELECT bin, count(*) FROM ({query}) AS t(bin) WHERE bin IS NOT NULL GROUP BY bin ORDER BY bin"
    ).fetchall()
    return dict(rows)
