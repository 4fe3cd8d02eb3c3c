"""Captions of many pictures -> text, JSON Lines, CSV or Markdown; kept while they are made.

A row is `{"image": ..., "captions": [{"text": ..., "probability": ...}, ...], "error": null}`, the best caption first;
of a picture without captions the error says why.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from captioning.outputs import whole_file

Row = Mapping[str, Any]

SUFFIX = ".captions.partial"
"""Of the file, beside the one that is asked for, that keeps the rows until all are there."""


class Kept:
    """The rows of a file that is being made, one JSON line each as they come: a run that was ended goes on with them.

    Rows with an error are tried again. Use as a context manager.

    Args:
        file: that is asked for.
        made_by: what decides the captions: model, settings; its words are shown to a person.

    Raises:
        ValueError: the rows that are there were made by something else.
    """

    def __init__(self, file: Path, made_by: str) -> None:
        self._path = file.with_name(file.name + SUFFIX)
        self.rows: dict[str, Row] = {}
        head = json.dumps({"made_by": made_by}) + "\n"
        if self._path.exists():
            before, rows = _read(self._path)
            if before is not None and before != made_by:
                raise ValueError(
                    f"{self._path} has {len(rows):,} captions made by {before}, and now it is {made_by}: remove it to "
                    "begin anew, or name another --out"
                )
            self.rows = {row["image"]: row for row in rows if row["error"] is None}
        with whole_file(self._path) as aside:  # without errors, and without a line torn by a kill
            aside.write_text(head + "".join(_line(row) for row in self.rows.values()), encoding="utf-8")

    def __enter__(self) -> Self:
        self._file = self._path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, row: Row) -> None:
        """Keep a row."""
        self.rows[row["image"]] = row
        self._file.write(_line(row))
        self._file.flush()

    def remove(self) -> None:
        """Forget what was kept: all is where it should be."""
        self._path.unlink()


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _read(path: Path) -> tuple[str | None, list[Row]]:
    """Return who made the rows that were kept, and the rows up to a torn one."""
    made_by, rows = None, []
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                value = json.loads(line)
            except ValueError:
                break
            if made_by is None:
                made_by = value["made_by"]
            else:
                rows.append(value)
    return made_by, rows


def write(file: Path, form: str, rows: Iterable[Row], *, top: int) -> None:
    """Write rows to a file that appears whole."""
    with whole_file(file) as aside, aside.open("w", encoding="utf-8") as opened:
        opened.writelines(lines(form, rows, top=top))


def lines(form: str, rows: Iterable[Row], *, top: int) -> Iterator[str]:
    """Yield the lines of a file of rows, as they come.

    Args:
        form: `text`, `jsonl`, `csv` or `markdown`.
        rows: of pictures.
        top: most captions of a picture.
    """
    match form:
        case "jsonl":
            return map(_line, rows)
        case "csv":
            return csv_lines(rows, top=top)
        case "markdown":
            return markdown_lines(rows)
    return map(as_text, rows)


def as_text(row: Row) -> str:
    """Return the lines about a picture."""
    if row["error"] is not None:
        return f"{row['image']}: {row['error']}\n"
    captions = [f"  {own['probability']:.1e}  {own['text']}\n" for own in row["captions"]]
    return "".join([f"{row['image']}\n", *captions])


def csv_lines(rows: Iterable[Row], *, top: int) -> Iterator[str]:
    """Yield a table: image, the captions with their probabilities, error."""
    numbers = [""] if top == 1 else [f"_{number}" for number in range(1, top + 1)]
    yield _csv(
        ["image", *(f"{what}{own}" for own in numbers for what in ("caption", "probability")), "error"]
    )
    for row in rows:
        captions = [value for own in row["captions"] for value in (own["text"], own["probability"])]
        padding = [""] * (2 * top - len(captions))
        yield _csv([row["image"], *captions, *padding, row["error"] or ""])


def _csv(values: Iterable[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


def markdown_lines(rows: Iterable[Row]) -> Iterator[str]:
    """Yield a table of pictures and their captions, the best first."""
    yield "| picture | caption |\n|---|---|\n"
    for row in rows:
        texts = [own["text"] for own in row["captions"]] or [f"*{row['error']}*"]
        yield f"| {_cell(row['image'])} | {'<br>'.join(map(_cell, texts))} |\n"


def _cell(text: str) -> str:
    for sign, written in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("\n", " ")):
        text = text.replace(sign, written)
    return text
