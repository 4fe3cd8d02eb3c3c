"""A standard InChI behind its prefix: formula, connections, hydrogens, charge, protons, stereo, isotopes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from captioning.inchi.connections import Atoms, Bonds, Walk
from captioning.inchi.formula import Component, Formula, Limits
from captioning.inchi.further import (
    Charge,
    HeavyMobile,
    Isotopes,
    Protons,
    Signs,
    StereoBonds,
    StereoCentres,
)
from captioning.inchi.hydrogens import Hydrogens, Placed
from captioning.inchi.series import Parts, Series
from captioning.inchi.states import Lexeme, State, bits
from captioning.inchi.valences import HYDROGENS

ORDER = ("", "c", "h", "q", "p", "b", "t", "m", "s", "i", "ih", "ib", "it", "im", "is")
"""Layers; those behind `i` are of the isotopes and are written without their first letter."""
_FACTS = {"c": "bonds", "h": "placed", "t": "is_definite", "it": "is_definite"}
LAYERS = frozenset(f"/{name}" for name in ORDER if len(name) == 1)
PUNCTUATION = frozenset("-(),;*.+?")


@dataclass(frozen=True)
class Kind(State):
    """The layer `/s`: 1, absolute."""

    is_complete: bool = False

    @property
    def numbers(self) -> int:  # type: ignore[override]
        """Return 1."""
        return 0 if self.is_complete else bits([1])

    def after(self, lexeme: Lexeme) -> "Kind":
        """Return the end."""
        return Kind(True)

    def shortest(self) -> Lexeme | None:
        """Return 1."""
        return None if self.is_complete else 1


class Nothing(State):
    """The layer `/i` where only mobile hydrogens are heavy."""

    is_complete = True

    def after(self, lexeme: Lexeme) -> State:
        """Nothing follows."""
        raise AssertionError(lexeme)

    def shortest(self) -> None:
        """Return that it is complete."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the layers that are closed say, by component."""

    components: tuple[Component, ...] = ()
    bonds: tuple[Bonds, ...] = ()
    placed: tuple[Placed, ...] = ()
    is_definite: tuple[bool, ...] = ()
    """Whether there are centres of definite parity."""

    @classmethod
    def of(cls, components: tuple[Component, ...]) -> "Facts":
        """Return what a formula says."""
        num = len(components)
        return cls(
            components=components,
            bonds=tuple(Bonds(Atoms(own), (0,) * (own.num_atoms + 1)) for own in components),
            placed=(Placed((), 0),) * num,
            is_definite=(False,) * num,
        )

    @property
    def num_hydrogens(self) -> int:
        """Return all hydrogens."""
        return sum(own.num_hydrogens for own in self.components)


@dataclass(frozen=True, eq=False)
class Molecule(State):
    """Such an InChI on its way."""

    limits: Limits
    layer: str
    inner: State
    facts: Facts

    @classmethod
    def begin(cls, limits: Limits) -> "Molecule":
        """Return the begin, behind the prefix."""
        return cls(limits, "", Formula(limits), Facts())

    @property
    def numbers(self) -> int:  # type: ignore[override]
        """Return those of the layer."""
        return self.inner.numbers

    @cached_property
    def symbols(self) -> frozenset[str]:  # type: ignore[override]
        """Return those of the layer, and the names of layers that may follow."""
        found = self.inner.symbols & self.limits.symbols
        if self.inner.is_complete:
            found |= {f"/{name[-1]}" for name in self._next_layers()} & self.limits.symbols
        elif self._may_skip_isotopes():
            found |= {"/h"}
        return found

    def _may_skip_isotopes(self) -> bool:
        """Tell whether only mobile hydrogens are heavy: `/i/hD2`."""
        at_begin = isinstance(self.inner, Series) and self.inner.component == 0 and self.inner.part is None
        return self.layer == "i" and at_begin and not self.inner.number and self._has_heavy_mobile()  # type: ignore[attr-defined]

    def _has_heavy_mobile(self) -> bool:
        return self.facts.num_hydrogens > 0 and {"D", "/h"} <= self.limits.symbols

    @cached_property
    def is_complete(self) -> bool:  # type: ignore[override]
        """Tell whether the InChI may end here."""
        return self.inner.is_complete and not self._is_layer_due()

    def _is_layer_due(self) -> bool:
        facts = self._closed()
        if self.layer == "":
            return any(own.num_atoms > 1 or own.num_hydrogens for own in facts.components)
        return (self.layer == "c" and facts.num_hydrogens > 0) or self.layer == "m"

    def _next_layers(self) -> list[str]:
        facts = self._closed()
        if self.layer == "" and any(own.num_atoms > 1 for own in facts.components):
            return ["c"]
        if self.layer in ("", "c") and facts.num_hydrogens:
            return ["h"]
        if self.layer == "m":
            return ["s"]
        later = ORDER[ORDER.index(self.layer) + 1 :]
        return [name for name in later if _MAY_BEGIN[name](self, facts)]

    def after(self, lexeme: Lexeme) -> "Molecule":
        """Return the InChI with one lexeme more."""
        if lexeme not in LAYERS:
            return Molecule(self.limits, self.layer, self.inner.after(lexeme), self.facts)
        assert isinstance(lexeme, str)
        if not self.inner.is_complete:
            return replace(self, layer="ih", inner=HeavyMobile(self.facts.num_hydrogens))
        name = next(own for own in self._next_layers() if own[-1] == lexeme[1])
        facts = self._closed()
        return Molecule(self.limits, name, _BEGIN[name](facts), facts)

    def _closed(self) -> Facts:
        """Return the facts with those of this layer."""
        facts, inner = self.facts, self.inner
        if isinstance(inner, Formula):
            return Facts.of(inner.components)
        if not isinstance(inner, Series) or self.layer not in _FACTS:
            return facts
        found = inner.results()
        if self.layer == "it":
            found = tuple(a or b for a, b in zip(facts.is_definite, found, strict=True))
        return replace(facts, **{_FACTS[self.layer]: found})

    def shortest(self) -> Lexeme | None:
        """Return what ends the layer, then the layers that are due."""
        if self.is_complete:
            return None
        if self.inner.is_complete:
            return f"/{self._next_layers()[0][-1]}"
        return self.inner.shortest()

    @cached_property
    def most_lexemes(self) -> int:
        """Return a number of lexemes in which the shortest way is sure to end."""
        num_components = len(self.facts.components)
        match self.layer:
            case "":
                assert isinstance(self.inner, Formula)
                return lexemes_of_formula(self.inner)
            case "c" | "h":
                return self._lexemes_of_series()
        return 12 + 2 * num_components

    def _lexemes_of_series(self) -> int:
        series, components = self.inner, self.facts.components
        assert isinstance(series, Series)
        own, rest = components[series.component], components[series.component + series.count :]
        behind = 16 + 2 * len(components)
        if self.layer == "c":
            walk = series.part
            left, due = own.num_atoms, 1
            if isinstance(walk, Walk):
                left -= walk.used.bit_count()
                due = len(walk.open) + 1
            now = 3 * left + 3 * due + 4 + sum(3 * each.num_atoms + 4 for each in rest)
            return behind + now + sum(map(lexemes_of_hydrogens, components))
        return behind + sum(map(lexemes_of_hydrogens, (own, *rest)))


def lexemes_of_hydrogens(component: Component) -> int:
    """Return a number of lexemes that is enough for a component's hydrogens."""
    able = min(component.num_atoms, component.num_hydrogens)
    return 2 + (2 * able + 12 if able else 0)


def lexemes_of_formula(formula: Formula) -> int:
    """Return a number of lexemes that is enough for the rest of a formula and what it asks for."""
    components = [*formula.done, *formula.with_supply()]
    each = sum(3 * own.num_atoms + 8 + lexemes_of_hydrogens(own) for own in components)
    return 24 + 2 * len(components) + each


def _series(begins: Sequence[State | None], kinds: Sequence[Any], **further: Any) -> Series:
    """Return a layer whose parts may all be empty, but one; `kinds` say whose parts could read alike."""
    return Series(Parts([*begins], [*kinds], is_due=lambda _: False, **further))


def _connections(facts: Facts) -> Series:
    return Series(
        Parts(
            [Walk(own) if own.atoms.num_atoms > 1 else None for own in facts.bonds],
            [
                (tuple(HYDROGENS[element] for element in own.atoms.elements[1:]), own.atoms.num_hydrogens)
                for own in facts.bonds
            ],
            is_due=lambda _: True,
            outcome=lambda component, walk: facts.bonds[component].like(walk and walk.bonds),
        )
    )


def _hydrogens(facts: Facts) -> Series:
    begins = [Hydrogens.begin(own) if own.atoms.num_hydrogens else None for own in facts.bonds]
    return Series(
        Parts(
            [*begins],
            [begin and begin.room.kind for begin in begins],
            is_due=lambda _: True,
            outcome=lambda _, part: Placed((), 0) if part is None else part.outcome(),
        )
    )


def _charges(facts: Facts) -> Series:
    num_components = len(facts.components)
    return _series([Charge()] * num_components, [None] * num_components)


def _centres(facts: Facts, *, is_isotopic: bool) -> Series:
    begins = [
        StereoCentres.begin(own, placed, is_isotopic=is_isotopic)
        for own, placed in zip(facts.bonds, facts.placed, strict=True)
    ]
    kinds = [begin and begin.able for begin in begins]
    return _series(begins, kinds, outcome=lambda _, part: part is not None and part.is_definite)


def _stereo_bonds(facts: Facts) -> Series:
    begins = [StereoBonds.begin(own) for own in facts.bonds]
    return _series(begins, [begin and begin.pairs for begin in begins])


def _isotopes(facts: Facts) -> Series:
    pairs = [*zip(facts.bonds, facts.placed, strict=True)]
    return _series(
        [Isotopes(own, placed) for own, placed in pairs],
        [(own.atoms.num_atoms, placed.fixed) for own, placed in pairs],
    )


_BEGIN: dict[str, Callable[[Facts], State]] = {
    "c": _connections,
    "h": _hydrogens,
    "q": _charges,
    "p": lambda facts: Protons(most_removed=facts.num_hydrogens),
    "b": _stereo_bonds,
    "t": lambda facts: _centres(facts, is_isotopic=False),
    "m": lambda facts: Signs(facts.is_definite),
    "s": lambda _: Kind(),
    "i": _isotopes,
    "ih": lambda facts: HeavyMobile(facts.num_hydrogens),
    "ib": _stereo_bonds,
    "it": lambda facts: _centres(facts, is_isotopic=True),
    "im": lambda facts: Signs(facts.is_definite),
    "is": lambda _: Kind(),
}


def _has_bonds(_: Molecule, facts: Facts) -> bool:
    return any(StereoBonds.begin(own) for own in facts.bonds)


def _has_centres(facts: Facts, *, is_isotopic: bool) -> bool:
    return any(
        StereoCentres.begin(own, placed, is_isotopic=is_isotopic)
        for own, placed in zip(facts.bonds, facts.placed, strict=True)
    )


def _is_isotopic(molecule: Molecule) -> bool:
    return molecule.layer.startswith("i")


_MAY_BEGIN: dict[str, Callable[[Molecule, Facts], bool]] = {
    "c": lambda *_: False,
    "h": lambda *_: False,
    "q": lambda *_: True,
    "p": lambda *_: True,
    "b": _has_bonds,
    "t": lambda _, facts: _has_centres(facts, is_isotopic=False),
    "m": lambda molecule, facts: (
        molecule.layer == "t" and any(facts.is_definite) and {"0", "1", "/s"} <= molecule.limits.symbols
    ),
    "s": lambda *_: False,
    "i": lambda molecule, _: {"+", "1"} <= molecule.limits.symbols,
    "ih": lambda molecule, _: molecule.layer == "i" and molecule._has_heavy_mobile(),
    "ib": lambda molecule, facts: _is_isotopic(molecule) and _has_bonds(molecule, facts),
    "it": lambda molecule, facts: _is_isotopic(molecule) and _has_centres(facts, is_isotopic=True),
    "im": lambda molecule, facts: (
        molecule.layer == "it" and any(facts.is_definite) and {"0", "1"} <= molecule.limits.symbols
    ),
    "is": lambda molecule, _: molecule.layer == "im" and "/s" in molecule.limits.symbols,
}
"""Whether a layer may follow a complete one before it; those that must follow are elsewhere."""
