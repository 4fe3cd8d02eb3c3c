"""Tables of captions as people have them (CSV, TSV, JSON lines, Parquet), read a row at a time, grouped by image.

CSV and TSV are UTF-8, with or without a byte order mark, with line ends of any kind, even mixed; their first line
names the columns; a field that holds the delimiter, a quote or a line end stands in double quotes, and a quote
within it is doubled (RFC 4180). Whatever characters a caption holds are kept: the clean stage judges them.
"""

import csv
import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from captioning import tables
from captioning.home import work
from captioning.records import PREDICT, SPLITS

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
SPLIT_NAMES = {
    "": "",
    **{split: split for split in (*SPLITS, PREDICT)},
    "restval": "train",
    "valid": "val",
    "validation": "val",
    "dev": "val",
}
"""What a column of splits may say -> our name for it."""
ROWS_PER_BATCH = 10_000
"""Rows held in memory."""


@dataclass(frozen=True, kw_only=True)
class CaptionRow:
    """A row of a table of captions, or all rows of one image together."""

    place: str
    """File and line (or row), for messages; of the first row where several are together."""
    key: str
    """What names the image."""
    captions: tuple[str, ...] = ()
    values: dict[str, str] = field(default_factory=dict)
    """What else the row says (split, license, ...), empty where it says nothing."""


def suffix(place: str) -> str:
    """Return the suffix of an address or path, which must be that of a table.

    Raises:
        ValueError: it is another one.
    """
    found = PurePosixPath(urlsplit(place).path).suffix.lower()
    if found not in SUFFIXES:
        raise ValueError(
            f"{place!r} is no table of captions: expected a name that ends with {', '.join(SUFFIXES)}"
        )
    return found


def read_rows(
    path: Path, name: str, *, key: str, caption: str, values: Mapping[str, str | None] | None = None
) -> Iterator[CaptionRow]:
    """Yield the rows of a table in order.

    Args:
        path: the table; its suffix says of which form.
        name: what messages call it.
        key: column of what names the image.
        caption: column of the caption; in JSON lines and Parquet it may hold a list of captions.
        values: what else a row says -> its column, None if the table has none. Of these "split" is one of ours.

    Raises:
        ValueError: a column is missing, or a row cannot be read; the message names file and line.
    """
    read = {".jsonl": _read_json, ".parquet": _read_parquet}.get(path.suffix, _read_delimited)
    further = dict(values or {})
    columns = list(dict.fromkeys([key, caption, *(column for column in further.values() if column)]))
    unit = "row" if path.suffix == ".parquet" else "line"
    for number, cells in read(path, name, columns):
        place = f"{name}: {unit} {number:,}"
        row = dict(zip(columns, cells, strict=True))
        captions = row[caption] if isinstance(row[caption], list) else [row[caption]]
        stated = {
            what: _text(row[column], column, place) if column else "" for what, column in further.items()
        }
        if "split" in stated:
            stated["split"] = _split(stated["split"], str(further["split"]), place)
        yield CaptionRow(
            place=place,
            key=_text(row[key], key, place),
            captions=tuple(_text(one, caption, place) for one in captions),
            values=stated,
        )


def _split(stated: str, column: str, place: str) -> str:
    split = SPLIT_NAMES.get(stated.strip().lower())
    if split is None:
        known = ", ".join(name for name in SPLIT_NAMES if name)
        raise ValueError(f"{place}: {column} is {stated!r}; expected one of {known}")
    return split


def _text(value: Any, column: str, place: str) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{place}: {column} is {str(value)[:60]!r}, a {type(value).__name__}; expected text")
    text = str(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"{place}: {column} is {text[:60]!r}, which is not UTF-8; save the file as UTF-8"
            ) from None
    return text


def _read_delimited(path: Path, name: str, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    lines = _split_lines(path, name)
    number, header = next(lines, (1, []))
    _refuse_missing(columns, header, f"{name}: line {number}")
    indices = [header.index(column) for column in columns]
    for number, cells in lines:
        if len(cells) != len(header):
            raise ValueError(
                f"{name}: line {number:,} has {len(cells)} fields, the first line names {len(header)}: {cells!s:.120}; "
                "a field that holds the delimiter, a quote or a line end must stand in double quotes"
            )
        yield number, [cells[index] for index in indices]


def _split_lines(path: Path, name: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the fields of each row with the number of the line on which the row begins."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
        while True:
            number = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise ValueError(
                    f"{name}: line {number:,}: {error}; a quote within a quoted field must be doubled, and a field "
                    "that begins with a quote must end with one"
                ) from None
            if cells:
                yield number, cells


def _read_json(path: Path, name: str, columns: Sequence[str]) -> Iterator[tuple[int, list[Any]]]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            place = f"{name}: line {number:,}"
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise ValueError(
                    f"{place} is not JSON ({error}): {line[:60]!r}; expected one object a line"
                ) from None
            if not isinstance(row, dict):
                raise ValueError(f"{place} is {line[:60]!r}; expected an object such as {{...}}")
            _refuse_missing(columns, list(row), place)
            yield number, [row[column] for column in columns]


def _read_parquet(path: Path, name: str, columns: Sequence[str]) -> Iterator[tuple[int, list[Any]]]:
    try:
        table = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{name} is no Parquet file, or a damaged one: {error}") from None
    with table:
        _refuse_missing(columns, table.schema_arrow.names, name)
        number = 0
        for batch in table.iter_batches(ROWS_PER_BATCH, columns=list(columns)):
            for cells in zip(*(batch.column(column).to_pylist() for column in columns), strict=True):
                number += 1
                yield number, list(cells)


def _refuse_missing(columns: Sequence[str], found: Sequence[str], place: str) -> None:
    for column in columns:
        if found.count(column) != 1:
            raise ValueError(
                f"{place} has {'no column' if column not in found else 'two columns'} {column!r}; it has "
                f"{', '.join(found[:12]) or 'nothing'}: correct the table, or the column's name in the section download"
            )


SCHEMA = pa.schema([("key", pa.string()), ("rest", pa.string())])
"""A row's key, and what else it holds as JSON: two columns of text are what sorts fastest."""


class CaptionTable:
    """Rows on disk that may be many more than memory holds, and the questions asked of them."""

    def __init__(self, connection: "DuckDBPyConnection", rows: Iterable[CaptionRow], folder: Path) -> None:
        self._connection, self._folder = connection, folder
        tables.write(_batches(rows), folder / "rows.parquet", SCHEMA)
        tables.open_table(connection, "caption_rows", folder / "rows.parquet", numbered="row")

    def images(self) -> Iterator[CaptionRow]:
        """Yield the rows of each image together, in the order of first rows, whether or not they stand together.

        Raises:
            ValueError: rows of one image contradict each other in what else they say; the message names both.
        """
        query = """
            SELECT key, rest FROM caption_rows
            JOIN (SELECT key, min(row) AS first FROM caption_rows GROUP BY key) USING (key)
            ORDER BY first, row
        """
        for key, rows in groupby(self._select(query), itemgetter(0)):
            yield _merged(key, (rest for _, rest in rows))

    def others(self, names: Iterable[str]) -> Iterator[str]:
        """Yield those of `names`, sorted, that are no image's key."""
        path = self._folder / "names.parquet"
        schema = pa.schema([("key", pa.string())])
        remaining = iter(names)
        batches = iter(lambda: list(islice(remaining, ROWS_PER_BATCH)), [])
        tables.write(
            (pa.record_batch([pa.array(batch, pa.string())], schema) for batch in batches), path, schema
        )
        tables.open_table(self._connection, "all_names", path)
        query = "SELECT key FROM all_names ANTI JOIN caption_rows USING (key) ORDER BY key"
        for (name,) in self._select(query):
            yield name

    def _select(self, query: str) -> Iterator[tuple[str, ...]]:
        for batch in self._connection.sql(query).to_arrow_reader(ROWS_PER_BATCH):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


@contextmanager
def caption_table(rows: Iterable[CaptionRow]) -> Iterator[CaptionTable]:
    """Yield `rows` as a table that lies on disk as long as the block lasts."""
    with tables.database() as connection, tempfile.TemporaryDirectory(dir=work("spill")) as folder:
        yield CaptionTable(connection, rows, Path(folder))


def _batches(rows: Iterable[CaptionRow]) -> Iterator[pa.RecordBatch]:
    remaining = iter(rows)
    while batch := list(islice(remaining, ROWS_PER_BATCH)):
        rest = [json.dumps([row.place, row.captions, row.values]) for row in batch]
        yield pa.record_batch([[row.key for row in batch], rest], SCHEMA)


def _merged(key: str, rows: Iterable[str]) -> CaptionRow:
    """Return the rows of one image as one; what else they say is that of the first row that says it."""
    places: list[str] = []
    captions: list[str] = []
    values: dict[str, str] = {}
    origins: dict[str, str] = {}
    for place, spoken, stated in map(json.loads, rows):
        places.append(place)
        captions += spoken
        for what, value in stated.items():
            if value and values.get(what) and value != values[what]:
                raise ValueError(
                    f"{place}: {what} of {key!r} is {value!r}, but {origins[what]} says {values[what]!r}; "
                    "one image has one: correct either row, or give each image its own id"
                )
            if not values.get(what):
                values[what], origins[what] = value, place
    return CaptionRow(place=places[0], key=key, captions=tuple(captions), values=values)


def read_numbered(lines: Iterable[str], name: str) -> dict[str, list[str]]:
    """Return file name -> captions, both in order, of Flickr8k's and Flickr30k's lines `1000.jpg#0<tab>A child ...`.

    Raises:
        ValueError: a line has another form.
    """
    captions: dict[str, list[str]] = defaultdict(list)
    for number, line in enumerate(lines, start=1):
        image, has_tab, caption = line.rstrip("\r\n").partition("\t")
        if not has_tab or "#" not in image:
            raise ValueError(
                f"{name}: line {number} is {line.rstrip()[:80]!r}; expected name#number<tab>caption"
            )
        captions[image.rpartition("#")[0]].append(caption)
    return captions
