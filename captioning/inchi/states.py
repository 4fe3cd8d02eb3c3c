"""The contract of all states, and sets of numbers as bits."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

Lexeme = int | str

REMEMBERED = 2**16
"""Answers of a function that are kept, of molecules that are much alike: some ten megabytes each."""


def bits(numbers: Iterable[int]) -> int:
    """Return a set of numbers as bits: bit n for n."""
    found = 0
    for number in numbers:
        found |= 1 << number
    return found


def members(set_: int) -> Iterator[int]:
    """Yield the numbers of a set, in ascending order."""
    while set_:
        lowest = set_ & -set_
        yield lowest.bit_length() - 1
        set_ ^= lowest


class State(ABC):
    """A place in a text; immutable. Numbers and symbols that may come next never lead to a dead end."""

    numbers: int = 0
    """As bits."""
    symbols: frozenset[str] = frozenset()
    is_complete: bool = False
    """Whether the text, or this part of it, may end here."""

    @abstractmethod
    def after(self, lexeme: Lexeme) -> "State":
        """Return the state after a lexeme that may come next."""

    @abstractmethod
    def shortest(self) -> Lexeme | None:
        """Return a next lexeme on a short way to the end, None at the end; it depends on the state alone."""


NOTHING = frozenset[str]()
