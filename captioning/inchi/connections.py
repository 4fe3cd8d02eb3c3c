"""The connection table of a component: a walk over its atoms, `1-5-3-6(2)8-7(5)4-9`.

A number that comes for the first time is an atom with a bond to the one before; one that was there closes a ring back
to an atom that this branch hangs on. Behind `(` stand branches, behind `)` the walk goes on at once.
"""

from dataclasses import dataclass
from functools import cached_property

from captioning.inchi.formula import Component
from captioning.inchi.states import NOTHING, Lexeme, State, bits, members
from captioning.inchi.valences import has_room, most_neighbours, profile

MOST_TRIALS = 300
"""Ways of closing rings that are looked through, where the rest of a walk needs closures."""


class Atoms:
    """What the formula says of a component's atoms, by locant."""

    def __init__(self, component: Component) -> None:
        self.num_hydrogens = component.num_hydrogens
        self.num_atoms = component.num_atoms
        self.elements = ["", *(element for element, count in component.elements for _ in range(count))]
        self.most_neighbours = [0, *map(most_neighbours, self.elements[1:])]
        self.all = bits(range(1, self.num_atoms + 1))
        own = {element: 0 for element, _ in component.elements}
        for locant, element in enumerate(self.elements[1:], 1):
            own[element] |= 1 << locant
        self.of_element = [*own.items()]
        """Locants by element, as bits."""

    def count(self, locants: int) -> list[tuple[str, int]]:
        """Return how many of some atoms there are of each element."""
        return [
            (element, number) for element, own in self.of_element if (number := (locants & own).bit_count())
        ]


@dataclass(frozen=True)
class Bonds:
    """The bonds that a component has."""

    atoms: Atoms
    neighbours: tuple[int, ...]
    """By locant, as bits; [0] is empty."""

    def like(self, other: "Bonds | None") -> "Bonds":
        """Return these atoms with the bonds of others, where there are others."""
        return self if other is None else Bonds(self.atoms, other.neighbours)

    def degree(self, locant: int) -> int:
        """Return the number of an atom's neighbours."""
        return self.neighbours[locant].bit_count()

    def hydrogens(self, locant: int) -> int:
        """Return the most hydrogens that an atom can carry."""
        return profile(self.atoms.elements[locant], self.degree(locant))[0]


@dataclass(frozen=True, eq=False)
class Walk(State):
    """A connection table on its way."""

    bonds: Bonds
    used: int = 0
    """Locants that were there, as bits."""
    open: tuple[tuple[int, int], ...] = ()
    """Atoms whose parenthesis is open, outermost first, each with the atoms above it and itself, as bits."""
    path: int = 0
    """The atom that the walk is at and those above it, as bits."""
    at: int = 0
    """The atom that the next number is bonded to; at the end of a branch, whose last number closed a ring, 0."""
    is_number_due: bool = True
    room: int = 0
    """The most hydrogens of the atoms that were there, with the bonds that they have."""

    @property
    def atoms(self) -> Atoms:
        """Return the component's atoms."""
        return self.bonds.atoms

    @cached_property
    def numbers(self) -> int:  # type: ignore[override]
        """Return new atoms, and those that a ring can be closed to."""
        if not self.is_number_due:
            return 0
        found = self._new_atoms()
        if self.at:
            for locant in members(self.path & ~self.bonds.neighbours[self.at] & ~(1 << self.at)):
                is_full = self.bonds.degree(locant) >= self.atoms.most_neighbours[locant]
                if not is_full and self._after_number(locant).has_end:
                    found |= 1 << locant
        return found

    def _new_atoms(self) -> int:
        found, tried = 0, dict[str, bool]()
        for locant in members(self.atoms.all & ~self.used):
            element = self.atoms.elements[locant]
            if element not in tried:
                tried[element] = self._after_number(locant).has_end
            if tried[element]:
                found |= 1 << locant
        return found

    @cached_property
    def symbols(self) -> frozenset[str]:  # type: ignore[override]
        """Return the punctuation that may follow a number."""
        if self.is_number_due:
            return NOTHING
        may_bond = self.at and self.bonds.degree(self.at) < self.atoms.most_neighbours[self.at]
        tried = ("-(" if may_bond else "") + (",)" if self.open else "")
        return frozenset(symbol for symbol in tried if self.after(symbol).has_end)

    @cached_property
    def is_complete(self) -> bool:  # type: ignore[override]
        """Tell whether every atom was there and no parenthesis is open."""
        return not self.is_number_due and not self.open and self.used == self.atoms.all

    def after(self, lexeme: Lexeme) -> "Walk":
        """Return the walk with one lexeme more."""
        if isinstance(lexeme, int):
            return self._after_number(lexeme)
        if lexeme == "-":
            return Walk(self.bonds, self.used, self.open, self.path, self.at, True, self.room)
        if lexeme == "(":
            opened = (*self.open, (self.at, self.path))
            return Walk(self.bonds, self.used, opened, self.path, self.at, True, self.room)
        at, path = self.open[-1]
        rest = self.open if lexeme == "," else self.open[:-1]
        return Walk(self.bonds, self.used, rest, path, at, True, self.room)

    def _after_number(self, locant: int) -> "Walk":
        bonds, own, room = self.bonds, 1 << locant, self.room
        is_new = not self.used & own
        if self.at:
            room -= bonds.hydrogens(self.at) + (0 if is_new else bonds.hydrogens(locant))
            neighbours = [*bonds.neighbours]
            neighbours[self.at] |= own
            neighbours[locant] |= 1 << self.at
            bonds = Bonds(self.atoms, tuple(neighbours))
            room += bonds.hydrogens(self.at)
        if self.at or is_new:
            room += bonds.hydrogens(locant)
        if is_new:
            return Walk(bonds, self.used | own, self.open, self.path | own, locant, False, room)
        return Walk(bonds, self.used, self.open, self.path, 0, False, room)

    @cached_property
    def has_end(self) -> bool:
        """Tell whether the walk can be completed: atoms placed, parentheses closed, hydrogens left room for."""
        if self.is_number_due and not self.at:  # the first number, which needs no bond
            return True
        due = [at for at, _ in self.open]
        if self.is_number_due:
            due.append(self.at)
        left = self.atoms.count(self.atoms.all & ~self.used)
        num_left = sum(count for _, count in left)
        if num_left < len(due):
            return self._ends_in_rings(due, left, num_left)
        return self._has_room(due, left, num_left - len(due))

    def _has_room(self, due: list[int], left: list[tuple[str, int]], num_bonds: int) -> bool:
        """Tell whether the atoms that are left can all be bonded once those that are due have a bond."""
        may_branch = {at for at, _ in self.open}
        if not self.is_number_due and self.at:
            may_branch.add(self.at)
        if num_bonds and not due:  # all that is left hangs on this atom
            if not self.at:
                return False
            due, num_bonds = [self.at], num_bonds - 1
        found, room = [(profile(element, 1), count) for element, count in left], self.room
        for locant in may_branch.union(due):
            degree = self.bonds.degree(locant) + due.count(locant)
            if degree > self.atoms.most_neighbours[locant]:
                return False
            own = profile(self.atoms.elements[locant], degree)
            room -= self.bonds.hydrogens(locant)
            if locant in may_branch:
                found.append((own, 1))
            else:
                room += own[0]
        found.sort()
        return has_room(tuple(found), num_bonds, self.atoms.num_hydrogens - room)

    def _ends_in_rings(self, due: list[int], left: list[tuple[str, int]], num_left: int) -> bool:
        """Tell whether bonds that are due, more than atoms are left, can close rings."""
        room = self.atoms.num_hydrogens - sum(profile(element, 1)[0] * count for element, count in left)
        return _Closures(self, room).exist(due, num_left)

    def shortest(self) -> Lexeme | None:
        """Return what leads on: the atoms that have most neighbours first."""
        if self.is_complete:
            return None
        if self.is_number_due:
            new = self.numbers & ~self.used
            most = self.atoms.most_neighbours
            return max(members(new or self.numbers), key=lambda locant: (most[locant], -locant))
        num_left = (self.atoms.all & ~self.used).bit_count()
        order = ("-", ")", "(", ",") if num_left > len(self.open) else (")", "-", "(", ",")
        return next(symbol for symbol in order if symbol in self.symbols)


class _Closures:
    """A search for rings that bonds which are due can close, the last one first.

    Args:
        walk: the walk so far.
        num_hydrogens: what its atoms must still have room for.
    """

    def __init__(self, walk: Walk, num_hydrogens: int) -> None:
        self._bonds, self._num_hydrogens = walk.bonds, num_hydrogens
        self._above = dict(walk.open) | {walk.at: walk.path}
        self._more = dict.fromkeys(members(walk.used), 0)
        """Bonds that atoms are given."""
        self._closed: set[tuple[int, int]] = set()
        self._num_trials = 0

    def exist(self, due: list[int], num_new: int) -> bool:
        """Tell whether the atoms that are due can have a bond each, `num_new` of them to new atoms."""
        self._num_trials += 1
        if self._num_trials > MOST_TRIALS:
            return False
        if not due:
            return num_new == 0 and self._room() >= self._num_hydrogens
        *rest, at = due
        if num_new > len(due) or not self._is_open(at):
            return False
        self._more[at] += 1
        found = (num_new > 0 and self.exist(rest, num_new - 1)) or any(
            self._closes(at, other, rest, num_new) for other in self._partners(at)
        )
        self._more[at] -= 1
        return found

    def _closes(self, at: int, other: int, rest: list[int], num_new: int) -> bool:
        self._more[other] += 1
        self._closed.add((at, other))
        found = self.exist(rest, num_new)
        self._closed.remove((at, other))
        self._more[other] -= 1
        return found

    def _partners(self, at: int) -> list[int]:
        above = self._above[at] & ~self._bonds.neighbours[at] & ~(1 << at)
        return [own for own in members(above) if self._is_open(own) and (at, own) not in self._closed]

    def _is_open(self, locant: int) -> bool:
        return self._bonds.degree(locant) + self._more[locant] < self._bonds.atoms.most_neighbours[locant]

    def _room(self) -> int:
        elements = self._bonds.atoms.elements
        return sum(
            profile(elements[locant], self._bonds.degree(locant) + more)[0]
            for locant, more in self._more.items()
        )
