"""The hydrogens of a component: fixed ones by number, `3-4,8H,1-2H3`, then mobile ones, `(H2,5,6)`.

Groups of fixed ones come by rising number of hydrogens; together with the mobile ones they are those of the formula.
"""

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from captioning.inchi.connections import Bonds
from captioning.inchi.states import NOTHING, REMEMBERED, Lexeme, State, bits, members
from captioning.inchi.valences import SHARES_HYDROGENS

MOST_FIXED = 5
"""Hydrogens of one atom."""
NO_FIXED = MOST_FIXED + 1


class Room:
    """How many hydrogens the atoms of a component have room for."""

    def __init__(self, bonds: Bonds) -> None:
        self.num_atoms, self.num_hydrogens = bonds.atoms.num_atoms, bonds.atoms.num_hydrogens
        self.of = [0, *(bonds.hydrogens(locant) for locant in range(1, self.num_atoms + 1))]
        self.all = bits(locant for locant, room in enumerate(self.of) if room)
        self.sharing = bits(
            locant for locant in members(self.all) if bonds.atoms.elements[locant] in SHARES_HYDROGENS
        )
        self.kind = (*self.of, self.sharing, self.num_hydrogens)
        """Equal where the hydrogens of components could read alike."""
        self._with_room = [
            (room, bits(locant for locant in members(self.all) if self.of[locant] == room))
            for room in sorted({*self.of} - {0})
        ]

    def can_take(self, num_hydrogens: int, atoms: int, least: int, more: int = 0) -> bool:
        """Tell whether atoms can take exactly so many.

        Args:
            num_hydrogens: to be placed.
            atoms: of which each takes none, `least` or more fixed ones, or shares mobile ones, as bits.
            least: fixed ones of an atom.
            more: of these atoms, those that may also take one less than `least`.
        """
        if num_hydrogens <= 0:
            return num_hydrogens == 0
        sharing = atoms & self.sharing
        if sharing.bit_count() < 2:  # one alone shares with none
            sharing = 0
        sums = _sums(
            self._counted(atoms & ~sharing & ~more),
            self._counted(atoms & ~sharing & more),
            least,
            sum(room * count for room, count in self._counted(sharing)),
            self.num_hydrogens,
        )
        return bool(sums >> num_hydrogens & 1)

    def _counted(self, atoms: int) -> tuple[tuple[int, int], ...]:
        return tuple((room, count) for room, own in self._with_room if (count := (atoms & own).bit_count()))

    def least_of(self, atoms: int) -> int:
        """Return the least room of atoms."""
        return next(room for room, own in self._with_room if atoms & own)


@lru_cache(maxsize=REMEMBERED)
def _sums(
    atoms: tuple[tuple[int, int], ...],
    more: tuple[tuple[int, int], ...],
    least: int,
    mobile: int,
    most: int,
) -> int:
    """Return all numbers of hydrogens that can be placed, as bits, up to `most`."""
    limit = (1 << most + 1) - 1
    found = 1
    for rooms, begin in ((atoms, least), (more, least - 1)):
        for room, count in rooms:
            for _ in range(count):
                found = _shifted(found, begin, room) & limit
    return _shifted(found, 1, min(mobile, most)) & limit


def _shifted(sums: int, least: int, most: int) -> int:
    found = sums
    for number in range(least, most + 1):
        found |= sums << number
    return found


@dataclass(frozen=True, eq=False)
class Hydrogens(State):
    """The hydrogens of a component on their way."""

    room: Room
    left: int
    """Hydrogens that are not placed yet."""
    free: int
    """Atoms without fixed or mobile hydrogens, as bits."""
    least: int = 1
    """Hydrogens of the next group."""
    group: int = 0
    """Atoms of the present group, as bits."""
    last: int = 0
    """The last of them."""
    place: str = "item"
    """What is due: item, first or later; range; listed, behind a locant; ranged, behind a range; count; counted."""
    fixed: tuple[tuple[int, int], ...] = ()
    """Atoms, as bits, with their number of fixed hydrogens."""

    @classmethod
    def begin(cls, bonds: Bonds) -> "Hydrogens":
        """Return the begin."""
        room = Room(bonds)
        return cls(room, room.num_hydrogens, room.all)

    @property
    def is_complete(self) -> bool:  # type: ignore[override]
        """Tell whether all hydrogens are placed."""
        if self.place == "count":
            return self.least == 1 and self.left == self.group.bit_count()
        return self.place == "counted" and self.left == 0

    @cached_property
    def numbers(self) -> int:  # type: ignore[override]
        """Return locants, or the hydrogens of each atom of a group."""
        match self.place:
            case "item":
                return self._next_locants()
            case "range":
                return self._range_ends()
            case "count":
                return bits(count for count in self._counts() if count > 1)
        return 0

    def _next_locants(self) -> int:
        begin = self.last + 2 if self.group else 1  # one atom further would make a range
        return bits(
            locant
            for locant in members(self.free >> begin << begin)
            if self._with(1 << locant, locant, "listed")._has_end(locant + 1)
        )

    def _range_ends(self) -> int:
        found, added = 0, 0
        for locant in range(self.last + 1, self.room.num_atoms + 1):
            if not self.free >> locant & 1 or self.room.of[locant] < self.least:
                break
            added |= 1 << locant
            if self._with(added, locant, "ranged")._has_end(locant + 2):
                found |= 1 << locant
        return found

    def _with(self, added: int, last: int, place: str) -> "Hydrogens":
        return Hydrogens(
            self.room, self.left, self.free & ~added, self.least, self.group | added, last, place, self.fixed
        )

    def _has_end(self, begin: int) -> bool:
        """Tell whether the group can be completed, with atoms from `begin` on, and those that follow it."""
        size = self.group.bit_count()
        more = self.free >> begin << begin
        return any(
            self.room.can_take(self.left - size * count, self.free, count + 1, more)
            for count in range(self.least, self.room.least_of(self.group) + 1)
        )

    def _counts(self) -> list[int]:
        """Return how many hydrogens each atom of the group may have."""
        size = self.group.bit_count()
        return [
            count
            for count in range(self.least, self.room.least_of(self.group) + 1)
            if self.room.can_take(self.left - size * count, self.free, count + 1)
        ]

    @cached_property
    def symbols(self) -> frozenset[str]:  # type: ignore[override]
        """Return the punctuation, and H behind locants."""
        match self.place:
            case "item":
                sharing = self.free & self.room.sharing
                may_share = not self.group and self.room.can_take(self.left, sharing, NO_FIXED)
                return frozenset("(") if may_share else NOTHING
            case "listed":
                dash = {"-"} if self._range_ends() else set()
                return frozenset(dash | self._comma() | self._hydrogen())
            case "ranged":
                return frozenset(self._comma() | self._hydrogen())
            case "count":
                more = self.least == 1 and self.left > self.group.bit_count() and 1 in self._counts()
                return frozenset(",") if more else NOTHING
            case "counted":
                return frozenset(",") if self.left else NOTHING
        return NOTHING

    def _comma(self) -> set[str]:
        return {","} if self._next_locants() else set()

    def _hydrogen(self) -> set[str]:
        return {"H"} if self._counts() else set()

    def after(self, lexeme: Lexeme) -> State:
        """Return the state after one lexeme more."""
        if isinstance(lexeme, int):
            return self._after_number(lexeme)
        if lexeme == "(":
            return Mobile(self.room, self.left, self.free & self.room.sharing, fixed=self.fixed)
        own = self._counted(1) if self.place == "count" else self
        return replace(own, place={"-": "range", ",": "item", "H": "count"}[lexeme])

    def _after_number(self, number: int) -> "Hydrogens":
        if self.place == "count":
            return self._counted(number)
        if self.place == "range":
            return self._with(bits(range(self.last + 1, number + 1)), number, "ranged")
        return self._with(1 << number, number, "listed")

    def _counted(self, count: int) -> "Hydrogens":
        return replace(
            self,
            left=self.left - count * self.group.bit_count(),
            least=count + 1,
            group=0,
            last=0,
            place="counted",
            fixed=(*self.fixed, (self.group, count)),
        )

    def shortest(self) -> Lexeme | None:
        """Return what leads on: a mobile group for all that is left, else the longest ranges."""
        if self.is_complete:
            return None
        if "(" in self.symbols:
            return "("
        if self.place == "count":
            return "," if "," in self.symbols else next(members(self.numbers))
        if self.numbers:
            return self.numbers.bit_length() - 1 if self.place == "range" else next(members(self.numbers))
        return next(symbol for symbol in ("H", "-", ",") if symbol in self.symbols)

    def outcome(self) -> "Placed":
        """Return where the hydrogens are."""
        fixed = self.fixed if self.place == "counted" else (*self.fixed, (self.group, 1))
        return Placed(fixed, 0)


@dataclass(frozen=True)
class Placed:
    """The hydrogens of a component."""

    fixed: tuple[tuple[int, int], ...]
    """Atoms, as bits, with the number of each one's."""
    num_mobile: int

    def of(self, locant: int) -> int:
        """Return the fixed hydrogens of an atom."""
        return sum(count for atoms, count in self.fixed if atoms >> locant & 1)


@dataclass(frozen=True, eq=False)
class Mobile(State):
    """Groups of mobile hydrogens on their way, the first behind its parenthesis."""

    room: Room
    left: int
    free: int
    """Atoms that may share, in no group yet, as bits."""
    fixed: tuple[tuple[int, int], ...]
    place: str = "H"
    """What is due or may come: H; count; counted; charged, behind a minus sign; locant; listed, behind one; closed."""
    own: int = 1
    """Hydrogens of the present group."""
    group: int = 0
    num_mobile: int = 0

    @property
    def is_complete(self) -> bool:  # type: ignore[override]
        """Tell whether all hydrogens are placed."""
        return self.place == "closed" and self.left == 0

    @cached_property
    def numbers(self) -> int:  # type: ignore[override]
        """Return the hydrogens of the group, or its locants, which rise."""
        if self.place == "count":
            return bits(own for own in range(2, self.left + 1) if self._may_have(own))
        if self.place != "locant":
            return 0
        last = self.group.bit_length()
        return bits(locant for locant in members(self.free >> last << last) if self._with(locant)._has_end())

    def _may_have(self, own: int) -> bool:
        return replace(self, own=own, left=self.left - own)._has_end()

    def _with(self, locant: int) -> "Mobile":
        return replace(self, group=self.group | 1 << locant, free=self.free & ~(1 << locant), place="listed")

    def _has_end(self) -> bool:
        """Tell whether this group and those that follow can hold their hydrogens."""
        if self.left < 0:
            return False
        last = self.group.bit_length()
        skipped = self.free & ((1 << last) - 1)
        rooms = Counter(self.room.of[locant] for locant in members(self.free & ~skipped))
        return _can_part(
            tuple(sorted(rooms.items())),
            need=(max(0, 2 - self.group.bit_count()), max(0, self.own - self._sum(self.group))),
            rest=(self.left, skipped.bit_count(), self._sum(skipped)),
        )

    def _sum(self, atoms: int) -> int:
        return sum(self.room.of[locant] for locant in members(atoms))

    @cached_property
    def symbols(self) -> frozenset[str]:  # type: ignore[override]
        """Return the punctuation, and H at the begin of a group."""
        found = {"H": "H", "counted": ",-", "charged": ","}.get(self.place, "")
        if self.place == "count" and self._may_have(1):
            found = ",-"
        if self.place == "listed":
            found = ("," if replace(self, place="locant").numbers else "") + (
                ")" if self._may_close() else ""
            )
        if self.place == "closed" and self.left:
            found = "("
        return frozenset(found)

    def _may_close(self) -> bool:
        if self.group.bit_count() < 2 or self._sum(self.group) < self.own:
            return False
        return self.left == 0 or (self.free.bit_count() >= 2 and self._sum(self.free) >= self.left)

    def after(self, lexeme: Lexeme) -> "Mobile":
        """Return the state after one lexeme more."""
        if isinstance(lexeme, int):
            if self.place == "locant":
                return self._with(lexeme)
            return replace(self, own=lexeme, left=self.left - lexeme, place="counted")
        if lexeme == ")":
            return replace(self, group=0, own=1, num_mobile=self.num_mobile + self.own, place="closed")
        left = self.left - 1 if self.place == "count" else self.left
        return replace(self, left=left, place={"H": "count", "(": "H", "-": "charged", ",": "locant"}[lexeme])

    def shortest(self) -> Lexeme | None:
        """Return what leads on: all hydrogens that are left in one group."""
        if self.is_complete:
            return None
        if self.place == "count" and self.left > 1 and self.numbers >> self.left & 1:
            return self.left
        if self.numbers and self.place == "locant":
            return max(members(self.numbers), key=lambda locant: (self.room.of[locant], -locant))
        for symbol in (")", ",", "H", "("):
            if symbol in self.symbols:
                return symbol
        return next(members(self.numbers))

    def outcome(self) -> Placed:
        """Return where the hydrogens are."""
        return Placed(self.fixed, self.num_mobile)


@lru_cache(maxsize=REMEMBERED)
def _can_part(rooms: tuple[tuple[int, int], ...], need: tuple[int, int], rest: tuple[int, int, int]) -> bool:
    """Tell whether atoms of these rooms can be shared out to a group and to those that follow it.

    Args:
        rooms: how many atoms there are of each room.
        need: atoms and room that the group lacks.
        rest: hydrogens of the groups that follow, and the atoms and room that these have anyway.
    """
    left, num_rest, room_rest = rest
    if left == 0:
        return sum(count for _, count in rooms) >= need[0] and sum(r * c for r, c in rooms) >= need[1]
    if not rooms:
        return need[0] <= 0 and need[1] <= 0 and num_rest >= 2 and room_rest >= left
    (room, count), *others = rooms
    return any(
        _can_part(
            tuple(others),
            (max(0, need[0] - taken), max(0, need[1] - room * taken)),
            (left, min(2, num_rest + count - taken), room_rest + room * (count - taken)),
        )
        for taken in range(count + 1)
    )
