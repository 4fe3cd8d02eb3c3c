"""The layers behind the hydrogens: charges, stereo bonds and centres, isotopes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from captioning.inchi.connections import Bonds
from captioning.inchi.hydrogens import Placed
from captioning.inchi.states import NOTHING, Lexeme, State, bits, members

MOST_CHARGES = 9
MOST_NEUTRONS = 30
PARITIES = frozenset("+-?")
HAS_STEREO_BONDS = frozenset({"C", "N", "Si", "Ge", "P", "S", "Se", "B", "As"})
HAS_STEREO_CENTRES = frozenset({"C", "N", "Si", "Ge", "P", "S", "Se", "Te", "B", "As"})


@dataclass(frozen=True)
class Charge(State):
    """A sign and a number."""

    sign: str = ""
    number: int = 0

    @property
    def numbers(self) -> int:  # type: ignore[override]
        """Return how many charges there may be behind the sign."""
        return bits(range(1, MOST_CHARGES + 1)) if self.sign and not self.number else 0

    @property
    def symbols(self) -> frozenset[str]:  # type: ignore[override]
        """Return the signs."""
        return NOTHING if self.sign else frozenset("+-")

    @property
    def is_complete(self) -> bool:  # type: ignore[override]
        """Tell whether the number is there."""
        return self.number > 0

    def after(self, lexeme: Lexeme) -> "Charge":
        """Return the charge with one lexeme more."""
        return replace(self, sign=lexeme) if isinstance(lexeme, str) else replace(self, number=lexeme)

    def shortest(self) -> Lexeme | None:
        """Return a sign, then 1."""
        return None if self.number else (1 if self.sign else "+")


@dataclass(frozen=True)
class Protons(Charge):
    """Protons that were added or removed: not more than there are hydrogens."""

    most_removed: int = 0

    @property
    def numbers(self) -> int:  # type: ignore[override]
        """Return how many there may be."""
        most = self.most_removed if self.sign == "-" else MOST_CHARGES
        return bits(range(1, min(most, MOST_CHARGES) + 1)) if self.sign and not self.number else 0

    @property
    def symbols(self) -> frozenset[str]:  # type: ignore[override]
        """Return the signs that make sense."""
        return NOTHING if self.sign else frozenset("+-" if self.most_removed else "+")


@dataclass(frozen=True, eq=False)
class StereoBonds(State):
    """Double bonds with their parity, `10-8+,11-7-`: the greater locant first, rising."""

    bonds: Bonds
    pairs: tuple[tuple[int, int], ...]
    """Bonds that can have one, greater locant first, sorted; those behind the last one written."""
    first: int = 0
    place: str = "first"
    """What is due: first, dash, second, parity, or end, behind a parity."""

    @classmethod
    def begin(cls, bonds: Bonds) -> "StereoBonds | None":
        """Return the begin, or None where no bond can have a parity."""
        able = [
            locant
            for locant in range(1, bonds.atoms.num_atoms + 1)
            if bonds.atoms.elements[locant] in HAS_STEREO_BONDS and 1 <= bonds.degree(locant) <= 3
        ]
        pairs = tuple(
            (locant, other)
            for locant in able
            for other in able
            if bonds.neighbours[locant] >> other & 1 and other < locant
        )
        return cls(bonds, pairs) if pairs else None

    @property
    def numbers(self) -> int:  # type: ignore[override]
        """Return the locants of bonds."""
        if self.place == "first":
            return bits(first for first, _ in self.pairs)
        if self.place == "second":
            return bits(second for first, second in self.pairs if first == self.first)
        return 0

    @property
    def symbols(self) -> frozenset[str]:  # type: ignore[override]
        """Return dash, parities or comma."""
        match self.place:
            case "dash":
                return frozenset("-")
            case "parity":
                return PARITIES
            case "end":
                return frozenset(",") if self.pairs else NOTHING
        return NOTHING

    @property
    def is_complete(self) -> bool:  # type: ignore[override]
        """Tell whether a bond has its parity."""
        return self.place == "end"

    def after(self, lexeme: Lexeme) -> "StereoBonds":
        """Return the state after one lexeme more."""
        match self.place, lexeme:
            case "first", int(first):
                return replace(self, first=first, place="dash")
            case "second", int(second):
                rest = tuple(pair for pair in self.pairs if pair > (self.first, second))
                return replace(self, pairs=rest, place="parity")
            case "dash", _:
                return replace(self, place="second")
            case "parity", _:
                return replace(self, place="end")
        return replace(self, place="first")

    def shortest(self) -> Lexeme | None:
        """Return what ends one bond."""
        if self.place == "end":
            return None
        return next(members(self.numbers)) if self.numbers else min(self.symbols)


@dataclass(frozen=True, eq=False)
class StereoCentres(State):
    """Atoms with their parity, `2-,3+,7?`, rising."""

    able: int
    """Atoms that can have one, behind the last one written, as bits."""
    place: str = "locant"
    """What is due: locant, parity, or end, behind a parity."""
    is_definite: bool = False

    @classmethod
    def begin(cls, bonds: Bonds, placed: Placed, *, is_isotopic: bool = False) -> "StereoCentres | None":
        """Return the begin, or None where no atom can have a parity."""
        able = bits(
            locant
            for locant in range(1, bonds.atoms.num_atoms + 1)
            if _may_be_centre(bonds, placed, locant, is_isotopic)
        )
        return cls(able) if able else None

    @property
    def numbers(self) -> int:  # type: ignore[override]
        """Return the locants."""
        return self.able if self.place == "locant" else 0

    @property
    def symbols(self) -> frozenset[str]:  # type: ignore[override]
        """Return parities or comma."""
        if self.place == "parity":
            return PARITIES
        return frozenset(",") if self.place == "end" and self.able else NOTHING

    @property
    def is_complete(self) -> bool:  # type: ignore[override]
        """Tell whether an atom has its parity."""
        return self.place == "end"

    def after(self, lexeme: Lexeme) -> "StereoCentres":
        """Return the state after one lexeme more."""
        if isinstance(lexeme, int):
            return replace(self, able=self.able >> lexeme + 1 << lexeme + 1, place="parity")
        if self.place == "parity":
            return replace(self, place="end", is_definite=self.is_definite or lexeme != "?")
        return replace(self, place="locant")

    def shortest(self) -> Lexeme | None:
        """Return what ends one atom."""
        if self.place == "end":
            return None
        return next(members(self.able)) if self.place == "locant" else "-"


def _may_be_centre(bonds: Bonds, placed: Placed, locant: int, is_isotopic: bool) -> bool:
    element, degree = bonds.atoms.elements[locant], bonds.degree(locant)
    if element not in HAS_STEREO_CENTRES:
        return False
    is_allene = element == "C" and degree == 2 and placed.of(locant) == 0
    return degree >= (1 if is_isotopic else 3) or is_allene


@dataclass(frozen=True)
class Signs(State):
    """The layer `/m`: for each component 0, 1 or a dot; one 0 or 1 at least."""

    is_able: tuple[bool, ...]
    """Which components have centres of definite parity."""
    written: str = ""

    @property
    def symbols(self) -> frozenset[str]:  # type: ignore[override]
        """Return the signs of the next component."""
        place = len(self.written)
        if place == len(self.is_able):
            return NOTHING
        is_last_chance = not any(self.is_able[place + 1 :]) and not self.written.strip(".")
        signs = "01" if self.is_able[place] else ""
        return frozenset(signs if is_last_chance and signs else signs + ".")

    @property
    def is_complete(self) -> bool:  # type: ignore[override]
        """Tell whether each component has its sign."""
        return len(self.written) == len(self.is_able)

    def after(self, lexeme: Lexeme) -> "Signs":
        """Return the layer with one sign more."""
        return replace(self, written=f"{self.written}{lexeme}")

    def shortest(self) -> Lexeme | None:
        """Return a sign."""
        return None if self.is_complete else min(self.symbols, key="01.".index)


@dataclass(frozen=True, eq=False)
class Isotopes(State):
    """Atoms with isotopes, `2+1,3D2,5+1TD`: neutrons more or less, then tritium and deuterium of its hydrogens."""

    bonds: Bonds
    placed: Placed
    last: int = 0
    place: str = "locant"
    """What is due or may come: locant; atom, behind it; shift; shifted; T or D, behind one; end, behind a count."""
    left: int = 0
    """Hydrogens of the atom that are none of these yet."""

    @property
    def numbers(self) -> int:  # type: ignore[override]
        """Return locants, shifts, or how many hydrogens are heavy."""
        match self.place:
            case "locant":
                return bits(range(self.last + 1, self.bonds.atoms.num_atoms + 1))
            case "shift":
                return bits(range(0, MOST_NEUTRONS + 1))
            case "T" | "D":
                return bits(range(2, self.left + 2))
        return 0

    @property
    def symbols(self) -> frozenset[str]:  # type: ignore[override]
        """Return signs, heavy hydrogens, comma."""
        found: set[str] = set()
        if self.place == "atom":
            found |= {"+", "-"}
        if self.left and self.place in ("atom", "shifted"):
            found |= {"T", "D"}
        if self.left and self.place in ("T", "T-counted"):
            found |= {"D"}
        if self.is_complete and self.last < self.bonds.atoms.num_atoms:
            found |= {","}
        return frozenset(found)

    @property
    def is_complete(self) -> bool:  # type: ignore[override]
        """Tell whether the last atom has an isotope."""
        return self.place in ("shifted", "T", "D", "T-counted", "end")

    def after(self, lexeme: Lexeme) -> "Isotopes":
        """Return the state after one lexeme more."""
        match self.place, lexeme:
            case "locant", int(locant):
                return replace(self, last=locant, left=self.placed.of(locant), place="atom")
            case "shift", _:
                return replace(self, place="shifted")
            case ("T" | "D") as heavy, int(count):
                place = "T-counted" if heavy == "T" else "end"
                return replace(self, left=self.left - count + 1, place=place)
            case _, ("T" | "D") as heavy:
                return replace(self, left=self.left - 1, place=heavy)
            case _, ",":
                return replace(self, place="locant")
        return replace(self, place="shift")

    def shortest(self) -> Lexeme | None:
        """Return what ends one atom."""
        if self.is_complete:
            return None
        ways: dict[str, Lexeme] = {"locant": self.last + 1, "atom": "+", "shift": 1}
        return ways[self.place]


@dataclass(frozen=True)
class HeavyMobile(State):
    """Mobile hydrogens that are heavy, `D2`, `TD`, of the whole molecule."""

    left: int
    place: str = ""

    @property
    def numbers(self) -> int:  # type: ignore[override]
        """Return how many."""
        return bits(range(2, self.left + 2)) if self.place in ("T", "D") else 0

    @property
    def symbols(self) -> frozenset[str]:  # type: ignore[override]
        """Return heavy hydrogens."""
        if not self.left:
            return NOTHING
        return {"": frozenset("TD"), "T": frozenset("D"), "T-counted": frozenset("D")}.get(
            self.place, NOTHING
        )

    @property
    def is_complete(self) -> bool:  # type: ignore[override]
        """Tell whether there is one."""
        return self.place != ""

    def after(self, lexeme: Lexeme) -> "HeavyMobile":
        """Return the state after one lexeme more."""
        if isinstance(lexeme, int):
            return HeavyMobile(self.left - lexeme + 1, "T-counted" if self.place == "T" else "end")
        return HeavyMobile(self.left - 1, lexeme)

    def shortest(self) -> Lexeme | None:
        """Return one deuterium."""
        return None if self.place else "D"


def sum_of_mobile(placed: Sequence[Placed]) -> int:
    """Return all mobile hydrogens."""
    return sum(own.num_mobile for own in placed)
