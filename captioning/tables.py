"""Tables larger than memory: SQL over Parquet files, whose rows are read and written in order, a group at a time."""

import glob
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from captioning.home import work

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ROWS_PER_GROUP = 100_000
"""Rows held in memory and written as one row group of a table."""
MEMORY = "1GB"
"""What a query holds in memory; the rest of what it sorts or joins goes to disk."""


@contextmanager
def database() -> Iterator["DuckDBPyConnection"]:
    """Yield a DuckDB that lives as long as the block, in bounded memory, on all processors.

    Rows come in an order of their own unless a query says `ORDER BY`.
    """
    import duckdb

    with tempfile.TemporaryDirectory(dir=work("spill")) as spill:
        settings = {
            "memory_limit": MEMORY,
            "temp_directory": spill,
            "threads": len(os.sched_getaffinity(0)),
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        with duckdb.connect(config=settings) as connection:
            connection.execute("SET enable_progress_bar = false")
            yield connection


def open_table(connection: "DuckDBPyConnection", name: str, path: Path, *, numbered: str = "") -> None:
    """Let queries call the Parquet file `path`, or the files of the folder `path` together, `name`.

    With `numbered` a column of that name counts the rows of a file from 0.
    """
    pattern = glob.escape(str(path)) + "/*.parquet" * path.is_dir()
    table = connection.read_parquet(pattern, file_row_number=bool(numbered))
    if numbered:
        table = table.project(f"file_row_number AS {numbered}, * EXCLUDE (file_row_number)")
    table.create_view(name)


def write(
    batches: Iterable[pa.RecordBatch], path: Path, schema: pa.Schema, rows_per_group: int = ROWS_PER_GROUP
) -> int:
    """Write record batches as one table of `schema` in row groups of `rows_per_group`; return the number of rows.

    Equal rows in equal order give equal bytes, however they were batched.
    """
    waiting: list[pa.Table] = []
    num_rows = num_waiting = 0
    with pq.ParquetWriter(path, schema) as table:
        for batch in batches:
            columns = pa.Table.from_batches([batch]).select(schema.names).cast(schema)
            while num_waiting + len(columns) >= rows_per_group:
                part = columns[: rows_per_group - num_waiting]
                columns = columns[len(part) :]
                table.write_table(pa.concat_tables([*waiting, part]), row_group_size=rows_per_group)
                waiting, num_rows, num_waiting = [], num_rows + rows_per_group, 0
            if len(columns):
                waiting.append(columns)
                num_waiting += len(columns)
        if num_waiting:
            table.write_table(pa.concat_tables(waiting), row_group_size=rows_per_group)
    return num_rows + num_waiting


def read(
    path: Path, columns: list[str] | None = None, rows_per_batch: int = ROWS_PER_GROUP
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a table in order, at most `rows_per_batch` at a time."""
    with pq.ParquetFile(path, pre_buffer=False) as table:  # or it keeps all that was read
        yield from table.iter_batches(rows_per_batch, columns=columns)
