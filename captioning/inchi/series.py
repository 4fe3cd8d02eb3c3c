"""A layer that has a part for each component, separated by `;`, equal ones once with a multiplier: `2*1-2;3-4`."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from captioning.inchi.states import Lexeme, State, bits


class Parts:
    """What a layer has for each component.

    Args:
        begins: for each component the begin of its part; None where it has none, and must be empty.
        kinds: equal where components are alike so far, which a multiplier needs.
        is_due: whether a component's part must not be empty.
        outcome: of a part that is complete, or of None where it is empty.
    """

    def __init__(
        self,
        begins: list[State | None],
        kinds: list[Hashable],
        *,
        is_due: Callable[[int], bool],
        outcome: Callable[[int, Any], Any] = lambda component, part: part,
    ) -> None:
        self.begins, self.kinds, self.is_due, self.outcome = begins, kinds, is_due, outcome
        self.num = len(begins)

    def run(self, component: int) -> int:
        """Return how many components in a row are alike, this one and those behind it."""
        count = 1
        while component + count < self.num and self.kinds[component + count] == self.kinds[component]:
            count += 1
        return count

    def comes(self, component: int) -> bool:
        """Tell whether a component from here on may have a part."""
        return any(begin is not None for begin in self.begins[component:])


@dataclass(frozen=True, eq=False)
class Series(State):
    """Such a layer on its way."""

    parts: Parts
    component: int = 0
    """The one whose part this is, counted from 0."""
    count: int = 1
    """How many components this part is of."""
    part: State | None = None
    """None at the begin of a part."""
    number: int = 0
    """The first number of a part, which may turn out a multiplier; `part` is None where it can be nothing else."""
    is_multiplied: bool = False
    outcomes: tuple[Any, ...] = ()
    is_empty: bool = True
    """Whether no component before this one has a part."""

    @property
    def _begin(self) -> State | None:
        return self.parts.begins[self.component]

    @property
    def _is_at_begin(self) -> bool:
        return self.part is None and not self.number

    @cached_property
    def numbers(self) -> int:  # type: ignore[override]
        """Return multipliers, and the part's own numbers."""
        if self.part is not None:
            return self.part.numbers
        if self.number or self._begin is None:
            return 0
        found = self._begin.numbers
        if not self.is_multiplied:
            found |= bits(range(2, self.parts.run(self.component) + 1))
        return found

    @cached_property
    def symbols(self) -> frozenset[str]:  # type: ignore[override]
        """Return the part's own symbols, the star behind a multiplier, and `;`."""
        found: frozenset[str] = frozenset()
        if self.part is not None:
            found = self.part.symbols
        elif self._is_at_begin and self._begin is not None:
            found = self._begin.symbols
        if self.number and 2 <= self.number <= self.parts.run(self.component):
            found |= {"*"}
        if self._may_close() and self.component + self.count < self.parts.num:
            found |= {";"}
        return found

    def _may_close(self) -> bool:
        if self.part is not None:
            return self.part.is_complete
        if not self._is_at_begin or self.is_multiplied:
            return False
        is_due = self._begin is not None and self.parts.is_due(self.component)
        return not is_due and (not self.is_empty or self.parts.comes(self.component + 1))

    @property
    def is_complete(self) -> bool:  # type: ignore[override]
        """Tell whether each component had its part."""
        return self._may_close() and self.component + self.count == self.parts.num

    def after(self, lexeme: Lexeme) -> "Series":
        """Return the series with one lexeme more."""
        if lexeme == ";" and self._may_close():
            return Series(
                self.parts,
                self.component + self.count,
                outcomes=self.results(),
                is_empty=self.is_empty and self.part is None,
            )
        if lexeme == "*" and self.number:
            return replace(self, count=self.number, number=0, part=None, is_multiplied=True)
        if self.part is not None:
            return replace(self, part=self.part.after(lexeme), number=0)
        begin = self._begin
        assert begin is not None
        if isinstance(lexeme, str):
            return replace(self, part=begin.after(lexeme))
        part = begin.after(lexeme) if begin.numbers >> lexeme & 1 else None
        return replace(self, part=part, number=0 if self.is_multiplied else lexeme)

    def results(self) -> tuple[Any, ...]:
        """Return the outcomes so far, with those of this part."""
        own = tuple(
            self.parts.outcome(component, self.part)
            for component in range(self.component, self.component + self.count)
        )
        return self.outcomes + own

    def shortest(self) -> Lexeme | None:
        """Return what ends the part, then the series."""
        if self.is_complete:
            return None
        if self.part is not None:
            return ";" if self.part.is_complete else self.part.shortest()
        if self.number:
            return "*"
        if ";" in self.symbols:
            return ";"
        assert self._begin is not None
        return self._begin.shortest()
