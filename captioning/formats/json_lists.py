"""A JSON object of long lists, read an entry at a time: the whole of COCO's would fill a gigabyte."""

import json
from collections.abc import Iterator
from typing import Any, TextIO

CHUNK_CHARACTERS = 1 << 20
"""Read at a time."""
MAX_ENTRY_CHARACTERS = 1 << 26
"""A longer entry is no entry: the file is damaged, or of another form."""


def read_lists(file: TextIO, name: str, *lists: str) -> Iterator[tuple[str, Any]]:
    """Yield (list, entry) for the entries of those of the object's `lists`, in the order of the file.

    Raises:
        ValueError: the file, called `name` in the message, is damaged or no JSON object, or lacks one of `lists`.
    """
    text = _Text(file, name)
    found = []
    text.expect("{")
    while not text.accept("}"):
        key = text.value()
        found.append(key)
        text.expect(":")
        if text.accept("["):
            for entry in text.entries():
                if key in lists:
                    yield key, entry
        else:
            text.value()
        text.accept(",")
    if missing := [wanted for wanted in lists if wanted not in found]:
        raise ValueError(f"{name} has no list {json.dumps(missing[0])}; it has {json.dumps(found[:8])}")


class _Text:
    """JSON text of which a few pieces are in memory."""

    def __init__(self, file: TextIO, name: str) -> None:
        self._file, self._name = file, name
        self._text, self._position = "", 0

    def accept(self, character: str) -> bool:
        """Step over `character` if it is the next one that is not white space."""
        if self._next() != character:
            return False
        self._position += 1
        return True

    def expect(self, character: str) -> None:
        """Step over `character`, which must be the next."""
        if not self.accept(character):
            raise self._damage(f"expected {character!r}")

    def entries(self) -> Iterator[Any]:
        """Yield the entries of a list whose bracket was stepped over, and step over its end."""
        while not self.accept("]"):
            yield self.value()
            if not self.accept(",") and self._next() != "]":
                raise self._damage("expected ',' or ']'")

    def value(self) -> Any:
        """Step over one value and return it."""
        self._next()
        while True:
            try:
                value, end = json.JSONDecoder().raw_decode(self._text, self._position)
            except (json.JSONDecodeError, RecursionError) as error:
                if not self._read_on():
                    raise self._damage(getattr(error, "msg", "nested too deeply")) from None
            else:
                if end < len(self._text) or not self._read_on():  # a number could go on in the next piece
                    self._position = end
                    return value

    def _next(self) -> str:
        """Return the next character that is not white space, empty at the end of the file."""
        while True:
            while (character := self._text[self._position : self._position + 1]).isspace():
                self._position += 1
            if character or not self._read_on():
                return character

    def _read_on(self) -> bool:
        """Read a piece more, as long as what is held, so that a long entry is not tried over and over."""
        held = self._text[self._position :]
        if len(held) > MAX_ENTRY_CHARACTERS:
            return False
        try:
            more = self._file.read(max(CHUNK_CHARACTERS, len(held)))
        except UnicodeDecodeError as error:
            raise ValueError(f"{self._name} is not UTF-8 text: {error.reason}") from None
        self._text, self._position = held + more, 0
        return bool(more)

    def _damage(self, what: str) -> ValueError:
        beginning = self._text[self._position : self._position + 60]
        return ValueError(f"{self._name} is damaged, cut short or no JSON object: {what} at {beginning!r}")
