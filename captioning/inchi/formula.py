"""The formula: components separated by dots, each in Hill order, each one that can be a molecule."""

import bisect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from captioning.inchi.states import REMEMBERED, Lexeme, State, bits, members
from captioning.inchi.valences import ELEMENTS, is_molecule, most_neighbours

MOST_ATOMS = 250
"""Of an element in a component."""
SUPPLIERS = ("N", "P", "Si")
"""Elements behind H in Hill order of which some can make hydrogens fit that carbon alone cannot hold."""

Elements = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Component:
    """A molecule of the formula."""

    elements: Elements
    """Heavy atoms by element, in the order of their locants."""
    num_hydrogens: int

    @property
    def num_atoms(self) -> int:
        """Return how many atoms have locants."""
        return sum(count for _, count in self.elements)


HYDROGEN_MOLECULE = Component((("H", 1),), 1)
"""H2: one of its atoms has the locant 1, the other is its hydrogen."""


@dataclass(frozen=True)
class Limits:
    """What can be written."""

    num_atoms: int
    """Of a component: the largest locant, all below it included."""
    num_components: int
    symbols: frozenset[str]


@dataclass(frozen=True)
class Formula(State):
    """A formula on its way; whoever reads on asks `is_complete` and takes `components`."""

    limits: Limits
    done: tuple[Component, ...] = ()
    multiplier: int = 0
    """Of the present component; 0 is none yet."""
    elements: Elements = ()
    """Of the present component, in the order written, with H; the last may still get a count."""
    is_counted: bool = False
    """Whether the last element has its count."""

    @property
    def components(self) -> tuple[Component, ...]:
        """Return the components, each as often as it occurs."""
        heavy, hydrogens = _parted(self.elements)
        own = Component(heavy, hydrogens) if heavy else HYDROGEN_MOLECULE
        return self.done + (own,) * max(1, self.multiplier)

    @property
    def is_complete(self) -> bool:  # type: ignore[override]
        """Tell whether the last component is one."""
        return bool(self.elements) and is_molecule(*_parted(self.elements))

    @property
    def numbers(self) -> int:  # type: ignore[override]
        """Return multipliers at the begin of a component, counts behind an element."""
        if not self.elements:
            most = self.limits.num_components - len(self.done)
            return bits(range(2, most + 1)) if not self.multiplier else 0
        if self.is_counted:
            return 0
        *before, (element, _) = self.elements
        return _counts(tuple(before), element, self.limits)

    @property
    def symbols(self) -> frozenset[str]:  # type: ignore[override]
        """Return the elements that may follow, and the dot."""
        found = _next_elements(self.elements, self.limits)
        has_place = len(self.done) + max(1, self.multiplier) < self.limits.num_components
        if self.is_complete and has_place:
            found |= {"."}
        return found

    def after(self, lexeme: Lexeme) -> "Formula":
        """Return the formula with one lexeme more."""
        if lexeme == ".":
            return Formula(self.limits, self.components)
        if isinstance(lexeme, str):
            return replace(self, elements=(*self.elements, (lexeme, 1)), is_counted=False)
        if not self.elements:
            return replace(self, multiplier=lexeme)
        *before, (element, _) = self.elements
        return replace(self, elements=(*before, (element, lexeme)), is_counted=True)

    def with_supply(self) -> tuple[Component, ...]:
        """Return the present component, as often as it occurs, with the atoms that it lacks."""
        elements: Elements = self.elements or (("C", 1),)
        heavy, hydrogens = _parted(elements)
        if not is_molecule(heavy, hydrogens):
            lacking = [
                count
                for element in SUPPLIERS
                if _is_behind(element, elements) and (count := _supply(elements, element, self.limits))
            ]
            heavy += (("Si", min(lacking, default=6)),)
        return (Component(heavy, hydrogens),) * max(1, self.multiplier)

    def shortest(self) -> Lexeme | None:
        """Return what makes the present component one."""
        if not self.elements:
            return next(own for own in ("C", *sorted(self.symbols)) if own in self.symbols)
        if self.is_complete:
            return None
        for count in members(self.numbers):
            *before, (element, _) = self.elements
            if is_molecule(*_parted((*before, (element, count)))):
                return count
        for element in SUPPLIERS:
            if element in self.symbols and _supply(self.elements, element, self.limits):
                return element
        return next(members(self.numbers))


@lru_cache(maxsize=REMEMBERED)
def _parted(elements: Elements) -> tuple[Elements, int]:
    heavy = tuple(own for own in elements if own[0] != "H")
    return heavy, sum(count for element, count in elements if element == "H")


@lru_cache(maxsize=REMEMBERED)
def _may_become_molecule(elements: Elements, limits: Limits) -> bool:
    """Tell whether a component that begins so can be completed by one element more, or by none."""
    heavy, hydrogens = _parted(elements)
    num_atoms = sum(count for _, count in heavy)
    if num_atoms > limits.num_atoms:
        return False
    if num_atoms > 1 and any(most_neighbours(element) == 0 for element, _ in heavy):
        return False  # what has no neighbours stands alone
    return is_molecule(heavy, hydrogens) or any(
        _supply(elements, element, limits) for element in _suppliers(elements[-1][0], elements, limits)
    )


def _suppliers(last: str, elements: Elements, limits: Limits) -> Iterator[str]:
    for element in SUPPLIERS:
        if element in limits.symbols and _is_behind(element, elements):
            yield element


@lru_cache(maxsize=REMEMBERED)
def _supply(elements: Elements, element: str, limits: Limits) -> int:
    """Return how many atoms of an element make a component of this beginning, 0 where no number does."""
    heavy, hydrogens = _parted(elements)
    num_atoms = sum(count for _, count in heavy)

    def is_enough(count: int) -> bool:
        return is_molecule((*heavy, (element, count)), hydrogens)

    most = min(6 + num_atoms, limits.num_atoms - num_atoms)
    if most < 1 or not is_enough(most):  # where few atoms are enough, more are too
        return 0
    return 1 + bisect.bisect_left(range(1, most), True, key=is_enough)


def _is_behind(element: str, elements: Elements) -> bool:
    """Tell whether an element may follow in Hill order."""
    if not elements:
        return True
    first, last = elements[0][0], elements[-1][0]
    if first != "C":
        return element != "C" and element > last
    if element in ("C", "H"):
        return element == "H" and last == "C"
    return last in ("C", "H") or element > last


@lru_cache(maxsize=REMEMBERED)
def _next_elements(elements: Elements, limits: Limits) -> frozenset[str]:
    if sum(count for element, count in elements if element != "H") >= limits.num_atoms:
        return frozenset({"H"} if _follows("H", elements, limits) else ())
    return frozenset(element for element in (*ELEMENTS, "H") if _follows(element, elements, limits))


def _follows(element: str, elements: Elements, limits: Limits) -> bool:
    return (
        element in limits.symbols
        and _is_behind(element, elements)
        and (
            _may_become_molecule((*elements, (element, 1)), limits)
            or (_may_stand_together(elements, element) and _counts(elements, element, limits) != 0)
        )
    )


def _may_stand_together(elements: Elements, element: str) -> bool:
    return all(own == "H" or most_neighbours(own) for own in (element, *(own for own, _ in elements)))


@lru_cache(maxsize=REMEMBERED)
def _counts(before: Elements, element: str, limits: Limits) -> int:

    def may_follow(count: int) -> bool:
        return _may_become_molecule((*before, (element, count)), limits)

    if element == "H":  # fewer are easier to place
        least = 2 if may_follow(2) else 3
        end = bisect.bisect_left(range(MOST_ATOMS), True, lo=least, key=lambda count: not may_follow(count))
        return bits(range(2, end))
    return bits(filter(may_follow, range(2, limits.num_atoms + 1)))
