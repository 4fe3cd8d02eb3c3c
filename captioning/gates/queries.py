"""SQL over tables of any size -> value tables: DuckDB counts, and what leaves it is one row a distinct value."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import pyarrow as pa

from captioning.gates.values import NUM_EXAMPLES, ValueTables, total, value_table

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection as Connection

FIRST_ROWS = f"min(row, {NUM_EXAMPLES})"


def grouped(value: str, source: str, *, count: str = "count(*)") -> str:
    """Return the query for (value, number of rows, first rows) of each distinct value."""
    return f"SELECT {value} AS value, {count}::BIGINT, {FIRST_ROWS} FROM {source} GROUP BY value"


def with_rest(several: str, source: str) -> str:
    """Return the query for the rows of `several` (row, value), all other rows of `source` having the value 1."""
    return (
        f"WITH several AS MATERIALIZED ({several}) {grouped('value', 'several')} UNION ALL "
        f"SELECT 1, rest, [] FROM (SELECT (SELECT count(*) FROM {source}) - (SELECT count(*) FROM several) AS rest) "
        "WHERE rest > 0"
    )


def value_tables(connection: "Connection", table: str, names: str, queries: Mapping[str, str]) -> ValueTables:
    """Return the value tables that `queries` of (value, number of rows, first rows) give, by column.

    `names` is the query for (row, name) of all rows.
    """
    found = {column: connection.execute(query).fetchall() for column, query in queries.items()}
    first_rows = (row for rows in found.values() for _, _, first in rows for row in first)
    name_of = _names(connection, names, first_rows)
    return {
        (table, column): value_table(
            column, [(value, count, [(row, name_of[row]) for row in first]) for value, count, first in rows]
        )
        for column, rows in found.items()
    }


def share(connection: "Connection", column: str, rows: str, names: str, num_all: int) -> ValueTables:
    """Return the share of `num_all` rows that the query `rows` finds, with the names of the first of them."""
    count, first = connection.execute(f"SELECT count(*), {FIRST_ROWS} FROM ({rows})").fetchall()[0]
    name_of = _names(connection, names, first or ())
    return total(column, count / max(num_all, 1), [name_of[row] for row in first or ()])


def scalar(connection: "Connection", query: str) -> int:
    """Return the one number that a query gives."""
    return int(connection.execute(query).fetchall()[0][0])


def _names(connection: "Connection", names: str, rows: Iterable[int]) -> dict[int, str]:
    connection.register("wanted", pa.table({"row": pa.array(sorted(set(rows)), pa.int64())}))
    return dict(
        connection.execute(f"SELECT row, name FROM ({names}) SEMI JOIN wanted USING (row)").fetchall()
    )
