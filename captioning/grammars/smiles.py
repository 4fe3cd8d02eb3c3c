"""SMILES as `preprocess.tokens: smiles` writes it: double bonds where they are drawn, no aromatic atoms.

Allowed are the ways in which RDKit writes a molecule: rings take the lowest number that is free, at their atom and not
behind a branch; no branch is the last of its atom. What comes out is read: each atom has room for its bonds, each ring
is closed by another atom that is no neighbour yet, each parenthesis and bracket too. Valences are RDKit's, of a charged
atom those of the element with as many electrons.

A branch holds back one valence of its atom for what follows it, and at the top an atom may use up its last one only
where no ring is open: so there is always a way to the end, if need be by more carbon.
"""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np

from captioning.inchi.valences import ELEMENTS
from captioning.vocabulary import EOS, MARKERS, Vocabulary

TOKENS = "smiles"
ORGANIC = ("B", "C", "N", "O", "P", "S", "F", "Cl", "Br", "I")
"""Elements that are written without brackets."""
GROUPS: tuple[dict[str, int], ...] = (
    {"B": 3, "C": 4, "N": 3, "O": 2, "F": 1, "Ne": 0},
    {"Al": 6, "Si": 4, "P": 5, "S": 6, "Cl": 1, "Ar": 0},
    {"Ga": 3, "Ge": 4, "As": 5, "Se": 6, "Br": 1, "Kr": 0},
    {"In": 3, "Sn": 4, "Sb": 5, "Te": 6, "I": 5, "Xe": 8},
)
"""Rows of the periodic table: element -> the most bonds."""
ANY_BONDS = 8
"""Of metals, for which RDKit knows no limit."""
BONDS = {"=": 2, "#": 3, "/": 1, "\\": 1}
MOST_ISOTOPE_DIGITS, MOST_HYDROGENS, MOST_CHARGE = 3, 4, 4
SPARE_WORDS = 6
"""By so many words the way to the end can grow with one word."""


@cache
def most_bonds(element: str, charge: int) -> int:
    """Return the most bonds of an atom, those to hydrogens included."""
    if element == "H":
        return int(charge == 0)
    for row in GROUPS:
        if element in row:
            alike = [*row].index(element) - charge
            return [*row.values()][alike] if 0 <= alike < len(row) else 0
    return ANY_BONDS


class Bracket(NamedTuple):
    """An atom in brackets, as far as it is written."""

    part: str = "["
    """The last part that is there: [, isotope, element, @, H, count, sign or charge."""
    isotope: str = ""
    element: str = ""
    hydrogens: int = 0
    charge: int = 0

    def after(self, text: str) -> "Bracket | None":
        """Return it with one word more, None where that may not come next."""
        if text in {"@", "@@"}:
            return self._replace(part="@") if self.part == "element" else None
        if text in {"+", "-"}:
            is_next = self.part in {"element", "@", "H", "count"}
            return self._replace(part="sign", charge=1 if text == "+" else -1) if is_next else None
        if text.isdecimal():
            return self._with_number(text)
        if text == "H" and self.part in {"element", "@"} and self.element != "H":
            return self._replace(part="H", hydrogens=1)
        if self.part in {"[", "isotope"} and (text in ELEMENTS or text == "H"):
            return self._replace(part="element", element=text)
        return None

    def _with_number(self, text: str) -> "Bracket | None":
        if self.part in {"[", "isotope"} and len(self.isotope) < MOST_ISOTOPE_DIGITS:
            isotope = self.isotope + text
            return None if isotope == "0" else self._replace(part="isotope", isotope=isotope)
        if self.part == "H" and 2 <= int(text) <= MOST_HYDROGENS:
            return self._replace(part="count", hydrogens=int(text))
        if self.part == "sign" and 2 <= int(text) <= MOST_CHARGE:
            return self._replace(part="charge", charge=self.charge * int(text))
        return None

    @property
    def num_bonds(self) -> int:
        """The most bonds of the atom as it stands, hydrogens aside; below 0 where it is none."""
        return most_bonds(self.element, self.charge) - self.hydrogens if self.element else -1


@cache
def best(bracket: Bracket, texts: frozenset[str]) -> tuple[int, str]:
    """Return the most bonds of the atom that can become of a bracket, and the next word on the shortest way to it."""
    found = (bracket.num_bonds, "]")
    for text in sorted(texts):
        if (longer := bracket.after(text)) is not None and longer.part != "isotope":
            num_bonds, _ = best(longer, texts)
            if num_bonds > found[0]:
                found = num_bonds, text
    return found


class Ring(NamedTuple):
    """A ring that is open."""

    number: int
    atom: int
    order: int
    """Of its bond; 0 where it is not stated."""


class Place(NamedTuple):
    """A molecule as far as it is written; atoms are numbered as they come."""

    free: tuple[int, ...] = ()
    """Bonds that each atom may still have, without those that are held back for open rings and behind branches."""
    atom: int = -1
    """To which the next is bound; -1 at the beginning of a component."""
    neighbours: tuple[int, ...] = ()
    """Of this atom, until its first branch."""
    closed: tuple[int, ...] = ()
    """Numbers of the rings that this atom closes, which it does not give anew."""
    branches: tuple[int, ...] = ()
    """Atoms whose branches are open."""
    rings: tuple[Ring, ...] = ()
    bond: int = 0
    """Order of the bond that was written last; 0 where none was."""
    last: str = "start"
    """What was written before that bond: start, atom, (, ) or ring."""
    bracket: Bracket | None = None

    @property
    def is_complete(self) -> bool:
        """Tell whether the SMILES, or a component, may end here."""
        is_open = self.branches or self.rings or self.bond or self.bracket
        return not is_open and self.last in {"atom", "ring"}

    @property
    def must_go_on(self) -> bool:
        """Tell whether rings are open that only what follows this atom can close."""
        return bool(self.rings) and not self.branches

    @property
    def most_words(self) -> int:
        """The most words to the end, on the shortest way, `<eos>` included."""
        return 4 + 4 * (self.bracket is not None) + 2 * len(self.branches) + 3 * len(self.rings)

    def after(self, text: str, texts: frozenset[str]) -> "Place | None":
        """Return the place after one word more, None where that may not come next.

        Args:
            text: the word.
            texts: all words that there are.
        """
        place: Place | None = None
        if self.bracket is not None:
            place = self._in_bracket(self.bracket, text, texts)
        elif text == "[":
            if self._has_room_for(best(Bracket(), texts)[0]):
                place = self._replace(bracket=Bracket())
        elif text in ORGANIC:
            place = self._with_atom(most_bonds(text, 0))
        elif text in BONDS:
            place = self._with_bond(BONDS[text])
        elif text == "(":
            place = self._with_branch()
        elif text == ")":
            place = self._behind_branch()
        elif text == ".":
            place = Place(free=self.free) if self.is_complete else None
        elif text.removeprefix("%").isdecimal():
            place = self._with_ring(int(text.removeprefix("%")))
        return place

    def _has_room_for(self, num_bonds: int) -> bool:
        """Tell whether an atom of so many bonds may come next."""
        if self.atom < 0:
            return num_bonds >= 0
        order = self.bond or 1
        return self.free[self.atom] >= order and num_bonds >= order + self.must_go_on

    def _with_atom(self, num_bonds: int) -> "Place | None":
        if not self._has_room_for(num_bonds):
            return None
        if self.atom < 0:
            return Place(free=(*self.free, num_bonds), atom=len(self.free), last="atom")
        order = self.bond or 1
        free = (*self._less(self.atom, order), num_bonds - order)
        return self._replace(
            free=free, atom=len(self.free), neighbours=(self.atom,), closed=(), bond=0, last="atom"
        )

    def _with_bond(self, order: int) -> "Place | None":
        if self.bond or self.atom < 0 or self.free[self.atom] < order:
            return None
        return self._replace(bond=order)

    def _with_branch(self) -> "Place | None":
        if self.bond or self.last not in {"atom", "ring", ")"} or self.free[self.atom] < 2:
            return None
        return self._replace(free=self._less(self.atom, 1), branches=(*self.branches, self.atom), last="(")

    def _behind_branch(self) -> "Place | None":
        if self.bond or self.last not in {"atom", "ring"} or not self.branches:
            return None
        *others, atom = self.branches
        return self._replace(
            free=self._less(atom, -1), atom=atom, neighbours=(), branches=tuple(others), last=")"
        )

    def _with_ring(self, number: int) -> "Place | None":
        if self.last not in {"atom", "ring"} or self.bond == BONDS["#"]:
            return None
        numbers = [ring.number for ring in self.rings]
        if number in numbers:
            place = self._closed(self.rings[numbers.index(number)])
        else:
            used = {*numbers, *self.closed}
            lowest = next(free for free in range(1, len(used) + 2) if free not in used)
            opened = (*self.rings, Ring(number, self.atom, self.bond))
            free = self._less(self.atom, self.bond or 1)
            place = self._replace(free=free, rings=opened) if number == lowest else None
        if place is None or min(place.free) < 0:
            return None
        return place._replace(bond=0, last="ring") if place.free[self.atom] >= place.must_go_on else None

    def _closed(self, ring: Ring) -> "Place | None":
        order = self.bond or ring.order or 1
        is_bound = ring.atom == self.atom or ring.atom in self.neighbours
        if is_bound or (ring.order and order != ring.order):
            return None
        more = order - (ring.order or 1)
        place = self._replace(free=self._less(ring.atom, more))
        return place._replace(
            free=place._less(self.atom, order),
            neighbours=(*self.neighbours, ring.atom),
            closed=(*self.closed, ring.number),
            rings=tuple(own for own in self.rings if own != ring),
        )

    def _less(self, atom: int, num_bonds: int) -> tuple[int, ...]:
        return (*self.free[:atom], self.free[atom] - num_bonds, *self.free[atom + 1 :])

    def _in_bracket(self, bracket: Bracket, text: str, texts: frozenset[str]) -> "Place | None":
        if text == "]":
            return self._replace(bracket=None)._with_atom(bracket.num_bonds)
        longer = bracket.after(text)
        if longer is None or not self._has_room_for(best(longer, texts)[0]):
            return None
        return self._replace(bracket=longer)

    def shortest(self, texts: frozenset[str]) -> Iterator[str]:
        """Yield words, of which the first that may come next leads to the end; none where this is the end."""
        if self.bracket is not None:
            yield "]"
            yield best(self.bracket, texts)[1]
            return
        if self.is_complete:
            return
        if not self.bond and self.last in {"atom", "ring"}:
            if self.branches:
                yield ")"
            for ring in self.rings:
                yield _written(ring.number)
        yield "C"


def _written(number: int) -> str:
    return str(number) if number < 10 else f"%{number}"


class Grammar:
    """See `captioning.grammars`.

    Raises:
        ValueError: the words are not those of `preprocess.tokens: smiles`, or carbon is not among them.
    """

    def __init__(self, vocabulary: Vocabulary, *, max_words: int) -> None:
        if vocabulary.tokens != TOKENS:
            raise ValueError(
                f"the grammar smiles cannot follow preprocess.tokens: {vocabulary.tokens}; it takes {TOKENS}, or set "
                "generation.grammar: none"
            )
        self._words = vocabulary.words
        self._ids = {text: number for number, text in enumerate(self._words) if number >= len(MARKERS)}
        self._texts = frozenset(self._ids)
        if "C" not in self._texts or ("(" in self._texts) != (")" in self._texts):
            raise ValueError(
                f"the vocabulary of {len(self._ids)} words cannot write SMILES, as it lacks C, or one of two "
                "parentheses: build it from captions that are InChI, or set generation.grammar: none"
            )
        if not {"[", "]"} <= self._texts:
            self._texts -= {"[", "]"}
        self.start = Place()

    def advance(self, state: Place, word: int) -> Place:
        """Return the place after one word more."""
        place = state.after(self._words[word], self._texts)
        assert place is not None, f"{self._words[word]!r} was not allowed"
        return place

    def allowed(self, state: Place, num_words_left: int) -> np.ndarray:
        """Return which words may come next."""
        mask = np.zeros(len(self._words), dtype=bool)
        if num_words_left < state.most_words + SPARE_WORDS:
            ways = (
                text for text in state.shortest(self._texts) if state.after(text, self._texts) is not None
            )
            way = next(ways, None)
            mask[EOS if way is None else self._ids[way]] = True
            return mask
        for text in self._texts:
            mask[self._ids[text]] = state.after(text, self._texts) is not None
        mask[EOS] = state.is_complete
        return mask
