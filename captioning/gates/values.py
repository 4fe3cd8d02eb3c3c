"""Value tables: what is judged of a quantity, small however many rows the data has.

A value table has one row a distinct value of the quantity: the value, the number of data rows that have it, and
the first few of those rows. Judging it is judging every row, at the cost of the distinct values.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from captioning.gates.rules import TOTALS

NUM_EXAMPLES = 3
"""Rows named where a rule is broken."""

Value = int | float | str
Example = tuple[int, str]
"""Position of a row in its table, and its name."""


@dataclass(frozen=True, kw_only=True)
class ValueTable:
    """The distinct values of one quantity, in ascending order."""

    values: pd.DataFrame
    """One column, the quantity's; or two, with the quantity that it is compared with."""
    counts: tuple[int, ...]
    """Data rows that have each value."""
    examples: tuple[tuple[Example, ...], ...]
    """The first rows that have each value, at most `NUM_EXAMPLES`."""

    @property
    def num_rows(self) -> int:
        """Return the number of data rows."""
        return sum(self.counts)


ValueTables = Mapping[tuple[str, str], ValueTable]
"""By table and column."""


def value_table(column: str, rows: Iterable[tuple[Value, int, Iterable[Example]]]) -> ValueTable:
    """Return the value table of (value, number of rows, first rows), one entry a distinct value."""
    ordered = sorted(rows, key=lambda row: row[0])
    values = [value for value, _, _ in ordered]
    return ValueTable(
        values=pd.DataFrame({column: pd.Series(values, dtype=None if values else "int64")}),
        counts=tuple(count for _, count, _ in ordered),
        examples=tuple(tuple(examples) for _, _, examples in ordered),
    )


def total(column: str, value: Value, examples: Iterable[str] = ()) -> ValueTables:
    """Return the value table of a number about the whole data set; `examples` are rows that it is about."""
    named = tuple(enumerate(examples))
    return {(TOTALS, column): value_table(column, [(value, 1, named)])}


def reduced(table: str, rows: pd.DataFrame, compared: Mapping[str, str] | None = None) -> ValueTables:
    """Return the value tables of all columns of small `rows`, whose first column is their name.

    Args:
        table: what the rows are.
        rows: one row a thing.
        compared: column -> the column that it is judged against.
    """
    names, pairs = rows.columns[0], compared or {}
    columns = [str(column) for column in rows.columns[1:] if column not in pairs.values()]
    return {
        (table, column): _reduced_column(rows, str(names), [column, *filter(None, [pairs.get(column)])])
        for column in columns
    }


def _reduced_column(rows: pd.DataFrame, names: str, columns: list[str]) -> ValueTable:
    found: dict[tuple[Value, ...], list[Example]] = {}
    for position, (name, *values) in enumerate(rows[[names, *columns]].itertuples(index=False, name=None)):
        found.setdefault(tuple(values), []).append((position, str(name)))
    ordered = sorted(found.items())
    frame = pd.DataFrame([value for value, _ in ordered], columns=columns)
    return ValueTable(
        values=frame if ordered else frame.astype("int64"),
        counts=tuple(len(examples) for _, examples in ordered),
        examples=tuple(tuple(examples[:NUM_EXAMPLES]) for _, examples in ordered),
    )
