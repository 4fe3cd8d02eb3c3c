"""Tables of the first three stages -> the value tables that the gate in front of the costly step judges.

DuckDB counts, in bounded memory: what grows with the data are an image's number and split, and of a caption its
length, on disk where they do not fit. What leaves this module is one row a distinct value.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from captioning.gates.queries import grouped, scalar, share, value_tables, with_rest
from captioning.gates.rules import in_words
from captioning.gates.table_schema import Files
from captioning.gates.values import NUM_EXAMPLES, ValueTables, reduced, total
from captioning.records import PREDICT, SPLITS
from captioning.tables import open_table
from captioning.tokens import module_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection as Connection

FLAT_DEVIATION = 2.0
"""A picture whose pixels deviate less from their mean, of 255, shows nothing."""
FOREIGN = "foreign-looking"
"""Flag of a caption in another script or language."""
TRAIN = SPLITS.index("train") + 1
"""Number of the split in `caption_facts`; 0 is a split of no known name."""
SPLIT_NUMBER = f"coalesce(list_position({[*SPLITS, PREDICT]}, split), 0)::UTINYINT"
SCORED = f"split IN {SPLITS}"
IS_SPACED_ODDLY = " OR ".join(
    ["caption = ''", "starts_with(caption, ' ')", "ends_with(caption, ' ')"]
    + [f"contains(caption, {gap})" for gap in ("'  '", "chr(9)", "chr(10)", "chr(13)")]
)
"""Of captions that did not come out of the clean stage; the others are counted three times as fast."""
NUM_CHARACTERS = f"(CASE WHEN {IS_SPACED_ODDLY} THEN len(trim(caption)) ELSE len(caption) END)::INTEGER"
NUM_WORDS = f"""(CASE WHEN {IS_SPACED_ODDLY}
    THEN len(list_filter(string_split_regex(caption, '\\s+'), lambda word: word <> ''))
    ELSE len(string_split(caption, ' ')) END)::INTEGER"""
TOKENS_PER_BATCH = 50_000


def quantities(connection: "Connection", files: Files, min_images_of_source: int, tokens: str) -> ValueTables:
    """Return the value tables of images, captions, members (rows of the split table), sources and totals.

    In `connection` the tables `placed`, `caption_facts` and `words` are left for `profile`.
    """
    _open(connection, files)
    _place(connection)
    _read_captions(connection)
    _count_words(connection, tokens)
    return {
        **_image_quantities(connection),
        **_caption_quantities(connection),
        **_member_quantities(connection),
        **_source_quantities(connection, min_images_of_source),
        **_image_totals(connection, files),
        **_caption_totals(connection, files),
    }


def _open(connection: "Connection", files: Files) -> None:
    """Name the Parquet files `images`, `captions`, `members`, `quarantine`, with their rows numbered."""
    named = {
        "images": files.images,
        "captions": files.captions,
        "members": files.splits,
        "quarantine": files.quarantine,
    }
    for name, path in named.items():
        open_table(connection, name, path, numbered="row")


def _place(connection: "Connection") -> None:
    """Make `placed`, one row a distinct image id: first row, number of rows, split, number of splits it is in."""
    connection.execute(
        "CREATE TABLE placed AS SELECT image_id, first_row AS row, num_rows, "
        "coalesce(stated, '') AS split, coalesce(num_splits, 0) AS num_splits "
        "FROM (SELECT image_id, min(row) AS first_row, count(*) AS num_rows FROM images GROUP BY image_id) "
        "LEFT JOIN (SELECT image_id, min(split) AS stated, count(*) AS num_splits FROM members GROUP BY image_id) "
        "USING (image_id)"
    )


def _read_captions(connection: "Connection") -> None:
    """Make `caption_facts`, one row a caption, without its text; `image` is NULL where its image was not kept."""
    measured = (  # before the join, which would else write the texts to disk
        f"SELECT row, image_id, position, flag = '{FOREIGN}' AS is_foreign, {NUM_CHARACTERS} AS num_characters, "
        f"{NUM_WORDS} AS num_words FROM captions"
    )
    connection.execute(
        f"CREATE TABLE caption_facts AS SELECT measured.row, placed.row AS image, {SPLIT_NUMBER} AS split, position, "
        f"is_foreign, num_characters, num_words FROM ({measured}) AS measured LEFT JOIN placed USING (image_id)"
    )


def _count_words(connection: "Connection", tokens: str) -> None:
    """Make `words`: each word as the vocabulary splits captions, how often train has it, how often val and test."""
    connection.execute("CREATE TABLE found_words (word VARCHAR, num_train BIGINT, num_scored BIGINT)")
    parts = connection.sql(
        "SELECT token, count(*) FILTER (split = 'train') AS num_train, "
        "count(*) FILTER (split <> 'train') AS num_scored "
        "FROM (SELECT split, unnest(string_split(caption, ' ')) AS token FROM captions JOIN placed USING (image_id) "
        f"WHERE {SCORED}) GROUP BY token"
    ).to_arrow_reader(TOKENS_PER_BATCH)
    inserting = connection.cursor()
    split = module_of(tokens).split
    for batch in parts:
        inserting.register("part", _words_of(batch, split))
        inserting.execute("INSERT INTO found_words SELECT * FROM part")
    connection.execute(
        "CREATE TABLE words AS SELECT word, sum(num_train)::BIGINT AS num_train, sum(num_scored)::BIGINT AS num_scored "
        "FROM found_words GROUP BY word"
    )


def _words_of(tokens: pa.RecordBatch, split: Callable[[str], list[str]]) -> pa.Table:
    found = [
        (word, num_train, num_scored)
        for token, num_train, num_scored in zip(
            *(column.to_pylist() for column in tokens.columns), strict=True
        )
        for word in split(token)
    ]
    names = ["word", "num_train", "num_scored"]
    types = [pa.string(), pa.int64(), pa.int64()]
    columns = list(zip(*found, strict=True)) or [()] * len(names)
    return pa.table([pa.array(c, t) for c, t in zip(columns, types, strict=True)], names=names)


IMAGE_NAMES = "SELECT row, image_id AS name FROM images"
CAPTION_NAMES = "SELECT row, image_id || '#' || position AS name FROM captions"
MEMBER_NAMES = "SELECT row, image_id AS name FROM members"


def _image_quantities(connection: "Connection") -> ValueTables:
    captioned = (
        "(SELECT placed.row, num_rows, coalesce(num_captions, 0) AS num_captions FROM placed LEFT JOIN "
        "(SELECT image AS row, count(*) AS num_captions FROM caption_facts GROUP BY image) USING (row) "
        f"WHERE split <> '{PREDICT}')"
    )
    queries = {
        "num_rows_of_id": grouped("num_rows", "placed", count="sum(num_rows)"),
        "width": grouped("width", "images"),
        "height": grouped("height", "images"),
        "shorter_side": grouped("least(width, height)", "images"),
        "longer_side": grouped("greatest(width, height)", "images"),
        "num_captions": grouped("num_captions", captioned, count="sum(num_rows)"),
        "num_splits": grouped("num_splits", "placed", count="sum(num_rows)"),
        "num_splits_of_content": with_rest(_leaks_of_content(), "images"),
    }
    return value_tables(connection, "images", IMAGE_NAMES, queries)


def _leaks_of_content() -> str:
    """Return the query for (row, number of splits) of the images whose bytes are in several of the scored splits."""
    contents = (
        "SELECT images.row, coalesce(nullif(sha256, ''), image_id) AS content, placed.split "
        f"FROM images JOIN placed USING (image_id) WHERE placed.{SCORED}"
    )
    # By eight bytes of each first: a quarter of the time and memory.
    suspects = (
        f"SELECT hash(content) FROM ({contents}) GROUP BY hash(content) HAVING min(split) <> max(split)"
    )
    return (
        f"SELECT row, value FROM ({contents}) JOIN (SELECT content, count(DISTINCT split) AS value FROM ({contents}) "
        f"WHERE hash(content) IN ({suspects}) GROUP BY content HAVING value > 1) USING (content)"
    )


def _leaks_of_twins() -> str:
    """Return the query for the rows of images that have a near-duplicate in another of the scored splits."""
    groups = (
        "SELECT images.row, coalesce(nullif(twin, ''), image_id) AS leader, placed.split "
        f"FROM images JOIN placed USING (image_id) WHERE placed.{SCORED} "
        "AND coalesce(nullif(twin, ''), image_id) IN (SELECT twin FROM images WHERE twin <> '')"
    )
    return (
        f"SELECT row FROM ({groups}) SEMI JOIN (SELECT leader FROM ({groups}) GROUP BY leader "
        "HAVING min(split) <> max(split)) USING (leader)"
    )


def _caption_quantities(connection: "Connection") -> ValueTables:
    # Only images with fewer distinct positions than captions are looked at one by one: a bit a position.
    suspects = (
        "SELECT image FROM caption_facts WHERE image IS NOT NULL GROUP BY image "
        "HAVING count(*) > bit_count(bit_or(1::BIGINT << (abs(position) % 63)))"
    )
    repeated = (
        "SELECT row, count(*) OVER (PARTITION BY image, position) AS value FROM caption_facts "
        f"SEMI JOIN ({suspects}) USING (image) QUALIFY value > 1"
    )
    queries = {
        "num_captions_at_position": with_rest(repeated, "caption_facts"),
        "is_of_kept_image": grouped("(image IS NOT NULL)::INTEGER", "caption_facts"),
        "num_characters": grouped("num_characters", "caption_facts"),
        "num_words": grouped("num_words", "caption_facts"),
    }
    return value_tables(connection, "captions", CAPTION_NAMES, queries)


def _member_quantities(connection: "Connection") -> ValueTables:
    joined = (
        "(SELECT members.row, (placed.image_id IS NOT NULL)::INTEGER AS is_kept "
        "FROM members LEFT JOIN placed USING (image_id))"
    )
    queries = {"split": grouped("split", "members"), "is_kept": grouped("is_kept", joined)}
    return value_tables(connection, "members", MEMBER_NAMES, queries)


def _source_quantities(connection: "Connection", min_images: int) -> ValueTables:
    """Return of each source of `min_images` or more the splits that it lacks and another source has, in words."""
    counts = connection.execute(
        "SELECT source, placed.split, count(*) FROM images JOIN placed USING (image_id) "
        f"WHERE placed.{SCORED} GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    splits_of: dict[str, dict[str, int]] = {}
    for source, split, count in counts:
        splits_of.setdefault(source, {})[split] = count
    used = [split for split in SPLITS if any(split in own for own in splits_of.values())]
    rows = [
        (source or "unnamed source", ", ".join(split for split in used if split not in own) or "none")
        for source, own in splits_of.items()
        if sum(own.values()) >= min_images
    ]
    return reduced("sources", pd.DataFrame(rows, columns=["source", "missing_splits"]))


def _image_totals(connection: "Connection", files: Files) -> ValueTables:
    num_raw, num_kept = num_rows(files.raw_rows), num_rows(files.images)
    num_quarantined = scalar(connection, "SELECT count(*) FROM quarantine WHERE position < 0")
    flat = f"SELECT row FROM images WHERE pixel_deviation < {FLAT_DEVIATION}"
    split_counts = dict(connection.execute("SELECT split, count(*) FROM members GROUP BY split").fetchall())
    return {
        **total("kept_image_share", num_kept / max(num_raw, 1)),
        **total("num_unaccounted_images", num_raw - num_kept - num_quarantined),
        **share(connection, "flat_image_share", flat, IMAGE_NAMES, num_kept),
        **share(connection, "leaked_image_share", _leaks_of_twins(), IMAGE_NAMES, num_kept),
        **{
            key: table
            for split in SPLITS
            for key, table in total(f"num_{split}_images", split_counts.get(split, 0)).items()
        },
    }


def _caption_totals(connection: "Connection", files: Files) -> ValueTables:
    num_kept = num_rows(files.captions)
    num_quarantined = scalar(connection, "SELECT count(*) FROM quarantine WHERE position >= 0")
    num_words = scalar(connection, "SELECT coalesce(sum(num_words), 0) FROM caption_facts")
    foreign = "SELECT row FROM caption_facts WHERE is_foreign"
    return {
        **total("quarantined_caption_share", num_quarantined / max(num_kept + num_quarantined, 1)),
        **total("num_unaccounted_captions", num_rows(files.raw_captions) - num_kept - num_quarantined),
        **total("mean_caption_words", num_words / max(num_kept, 1)),
        **share(connection, "foreign_caption_share", foreign, CAPTION_NAMES, num_kept),
        **_new_words(connection),
    }


def _new_words(connection: "Connection") -> ValueTables:
    """Return the share of the words of val and test that train never has, with the most frequent of them."""
    num_scored = scalar(connection, "SELECT coalesce(sum(num_scored), 0) FROM words")
    num_new = scalar(connection, "SELECT coalesce(sum(num_scored), 0) FROM words WHERE num_train = 0")
    most_frequent = connection.execute(
        "SELECT word, num_scored FROM words WHERE num_train = 0 AND num_scored > 0 "
        f"ORDER BY num_scored DESC, word LIMIT {NUM_EXAMPLES}"
    ).fetchall()
    examples = [f"{word} ({in_words(count)})" for word, count in most_frequent]
    return total("new_word_share", num_new / max(num_scored, 1), examples)


def num_rows(path: Path) -> int:
    """Return the number of rows of a table, from its last bytes."""
    return int(pq.read_metadata(path).num_rows)
