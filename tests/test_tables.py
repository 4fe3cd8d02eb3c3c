"""Tables are found wherever they lie and keep their order."""

from pathlib import Path

import pyarrow as pa
import pytest

from captioning import tables

SCHEMA = pa.schema([("word", pa.string())])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two tables in a folder whose name has every letter that could be taken for a pattern or the end of a text."""
    folder = tmp_path / "[a]*? it's"
    folder.mkdir()
    for name, words in (("first", ["a", "man"]), ("second", ["and", "a", "dog"])):
        tables.write([pa.record_batch([pa.array(words)], SCHEMA)], folder / f"{name}.parquet", SCHEMA)
    return folder


def test_a_table_is_numbered_by_its_rows_whatever_its_folder_is_called(folder: Path):
    with tables.database() as connection:
        tables.open_table(connection, "words", folder / "second.parquet", numbered="row")
        found = connection.execute("SELECT row, word FROM words ORDER BY row").fetchall()
    assert found == [(0, "and"), (1, "a"), (2, "dog")]


def test_the_tables_of_a_folder_are_one(folder: Path):
    with tables.database() as connection:
        tables.open_table(connection, "words", folder)
        found = connection.execute("SELECT word, count(*) FROM words GROUP BY word ORDER BY word").fetchall()
    assert found == [("a", 2), ("and", 1), ("dog", 1), ("man", 1)]


def test_equal_rows_give_equal_bytes_however_they_came(tmp_path: Path):
    words = [str(number) for number in range(10)]
    for name, sizes in (("one", [10]), ("many", [1, 0, 4, 2, 3])):
        ends = [sum(sizes[: position + 1]) for position in range(len(sizes))]
        batches = [
            pa.record_batch([pa.array(words[end - size : end], pa.string())], SCHEMA)
            for end, size in zip(ends, sizes, strict=True)
        ]
        assert tables.write(batches, tmp_path / name, SCHEMA, rows_per_group=3) == 10
    assert (tmp_path / "one").read_bytes() == (tmp_path / "many").read_bytes()
