"""Plausible molecules put together from rings, linkers and functional groups: a source that needs no download.

Molecule `i` depends on the seed, the number of atoms asked for and `i` alone. The fragments are textbook chemistry,
written for this file (CC0-1.0). `{}` stands behind an atom that can carry something in place of a hydrogen; a fragment
is joined to the rest at its first one. In the SMILES string a join is a ring bond between components (`C%10.O%10` is
methanol), so that fragments can be written one after the other as they are.
"""

import re
from random import Random
from typing import NamedTuple

RINGS = """
    c{}1c{}c{}c{}c{}c{}1  c{}1c{}c{}c{}c{}c{}1  c{}1c{}c{}c{}c{}c{}1  c{}1c{}c{}c{}cc1  c{}1cc{}c{}cc1
    c{}1nc{}c{}c{}c{}1  c{}1c{}nc{}c{}c{}1  c{}1c{}c{}nc{}c{}1  c{}1nc{}c{}c{}n1  c{}1nc{}nc{}c{}1  c{}1nc{}c{}nc{}1
    c{}1nnc{}c{}c{}1  c{}1nc{}nc{}n1  c{}1oc{}c{}c{}1  c{}1sc{}c{}c{}1  c{}1[nH]c{}c{}c{}1  n{}1c{}c{}c{}c{}1
    c{}1nc{}[nH]c{}1  n{}1c{}nc{}c{}1  c{}1n[nH]c{}c{}1  n{}1nc{}c{}c{}1  c{}1nc{}c{}s1  c{}1nc{}c{}o1
    c{}1noc{}c{}1  c{}1nnc{}o1  c{}1nnc{}s1  c{}1noc{}n1  c{}1nnc{}[nH]1  n{}1nnc{}c{}1  c{}1nnn[nH]1
    c{}1nc{}n[nH]1  c{}1c{}c{}c{}c2c{}c{}c{}c{}c12  c{}1c{}c2c{}c{}c{}c{}c2[nH]1  n{}1c{}c{}c2c{}c{}c{}c{}c12
    c{}1c{}c2c{}c{}c{}c{}c2o1  c{}1c{}c2c{}c{}c{}c{}c2s1  c{}1nc2c{}c{}c{}c{}c2[nH]1  c{}1nc2c{}c{}c{}c{}c2s1
    c{}1nc2c{}c{}c{}c{}c2o1  c{}1c{}c{}c2c{}c{}c{}c{}c2n1  c{}1c{}nc2c{}c{}c{}c{}c2c{}1
    c{}1nc{}c{}c2c{}c{}c{}c{}c12  c{}1nc{}nc2c{}c{}c{}c{}c12  c{}1nc2c{}c{}c{}c{}c2nc{}1
    c{}1c{}c2c{}c{}c{}c{}c2oc1=O  c{}1c{}c2OCOc2c{}c{}1  c{}1c{}c2OCCOc2c{}c{}1  c{}1nc{}nc2[nH]cnc12
    n{}1cnc2c{}nc{}nc12  n{}1c2c{}c{}c{}c{}c2c2c{}c{}c{}c{}c12  N{}1c2ccc{}cc2Sc2c{}cccc12
    C{}1c2ccc{}cc2-c2ccc{}cc12  C{}1CC1  C{}1CC{}C1  C{}1CC{}CC1  C{}1CCC{}C1  C{}1CC{}C{}CC1  C{}1CCC{}CC1
    C{}1CCCCCC1  C{}1=CCCCC1  C{}1CCC=CC1  N{}1CCC1  N{}1CC{}CC1  N{}1C{}CCC1  N{}1CCC{}CC1  N{}1CC{}CCC1
    N{}1CCN{}CC1  N{}1CCOCC1  N{}1CC{}OCC1  N{}1CCSCC1  N{}1CCCN{}CC1  C{}1CCN{}CC1  C{}1CCCN{}C1  C{}1CCN{}C1
    C{}1CCOC1  C{}1CCOCC1  C{}1CCCO1  C{}1OCCO1  C{}1CO1  C{}1CCSC1  N{}1C(=O)CCC1  N{}1C(=O)CC{}C1=O
    N{}1C(=O)c2c{}cccc2C1=O  C{}1NC(=O)N{}C1=O  C{}1SC(=O)NC1=O  C{}1CCCC(=O)C1  C{}1CCC(=O)O1  C{}1=CC(=O)CCC1
    C{}1=CC(=O)OC1  N{}1CCc2c{}c{}ccc2C1  C{}1CCc2c{}c{}ccc2C1  C{}1Oc2c{}cccc2CC1  C{}1c2ccccc2CCC1
    C{}12CC3CC(C1)CC(C3)C2  C{}1CC2CC1CC2  C{}1CC2CCC(C1)N2C  [C@@H]{}1CCCN1  [C@H]{}1CCCN{}1
    [C@H]{}1CC[C@@H](O)CC1  [C@@H]{}1C[C@H]1C  [C@H]{}1CCC[C@H](C)C1  [C@@H]{}1CCCO1
    [C@H]{}1O[C@H](CO)[C@@H](O)[C@H](O)[C@H]1O  [C@@H]{}1O[C@H](CO)C[C@H]1O  [C@H]{}1CNC[C@H]1F
"""
LINKERS = """
    C{}{}  C{}{}  C{}C{}  C{}C{}  C{}CC{}  C{}CCC{}  O{}{}  O{}{}  O{}C{}  O{}CC{}  O{}CCC{}  N{}{}  N{}C{}  N{}CC{}
    S{}{}  S{}C{}  C{}O{}  C{}N{}  C{}N{}  C{}S{}  C{}CN{}  C{}CO{}  C{}{}=O  C{}{}=O  C{}(=O)N{}  C{}(=O)N{}
    C{}(=O)N{}  N{}C{}=O  N{}C{}=O  N{}C{}=O  C{}(=O)O{}  O{}C{}=O  C{}C(=O)N{}  C{}C(=O)O{}  C{}NC{}=O  C{}OC{}=O
    N{}C(=O)N{}  N{}C(=O)O{}  O{}C(=O)N{}  N{}C(=S)N{}  S{}{}(=O)=O  S{}(=O)(=O)N{}  N{}S{}(=O)=O  C{}S{}(=O)=O
    C{}=NN{}  C{}=NO{}  C{}#C{}  C{}/C=C/C{}  C/{}=C/C{}  C/{}=C\\C{}  C/{}=C/C(=O)N{}  C/{}=C/C{}=O  C/{}=N/N{}
    C{}(C){}  C{}(C)C{}  C{}(O)C{}  C{}(C)(C){}  C{}{}{}  N{}(C)C{}  C{}(C#N){}  C{}(=O)C{}  C{}(=O)NN{}  C{}C(O)C{}
    [C@H]{}(C)N{}  [C@@H]{}(C)C{}  [C@@H]{}(O)C{}  [C@H]{}(N)C{}  C{}[C@H](O)C{}  C{}[C@@H](N)C(=O)O{}
    [C@@H]{}(C)O{}  [C@H]{}(C(=O)O)N{}  C{}[C@H](C)C{}  [C@@H]{}(C(C)C)N{}  N{}[C@@H](C)C{}=O  N{}[C@@H](CO)C{}=O
"""
GROUPS = """
    F{}  F{}  F{}  Cl{}  Cl{}  Cl{}  Cl{}  Br{}  Br{}  I{}  O{}  O{}  O{}  O{}  N{}  N{}  N{}  S{}  C{}  C{}  C{}
    C{}  C{}  C{}  C{}C  C{}C  C{}CC  C{}(C)C  C{}(C)(C)C  C{}CCC  C{}C(C)C  C{}=C  C{}C=C  C{}#C  C{}CCCC  C{}CCCCC
    O{}C  O{}C  O{}C  O{}CC  O{}CCC  O{}C(C)C  O{}CC=C  O{}CC#C  O{}C(F)(F)F  O{}C(F)F  O{}C(C)=O  O{}CCO  N{}C
    N{}(C)C  N{}(C)C  N{}CC  N{}(CC)CC  N{}C(C)=O  N{}C(=O)OC  N{}S(C)(=O)=O  N{}C(N)=N  N{}C(N)=S
    N{}C(=O)OC(C)(C)C  C{}#N  C{}#N  C{}(F)(F)F  C{}(F)(F)F  C{}(F)F  [N+]{}(=O)[O-]  [N+]{}(=O)[O-]  C{}=O
    C{}(C)=O  C{}(=O)O  C{}(=O)O  C{}(=O)OC  C{}(=O)OCC  C{}(=O)N  C{}(=O)NC  C{}(=O)N(C)C  C{}(=O)Cl
    C{}(=O)C(F)(F)F  C{}(=S)N  C{}(=N)N  C{}=NO  C{}O  C{}CO  C{}N  C{}CN  C{}OC  C{}C(=O)O  C{}CC(=O)O  C{}Cl
    C{}Br  C{}C#N  C{}N(C)C  C{}S  C{}NC  C{}(O)CO  S{}C  S{}(C)(=O)=O  S{}(N)(=O)=O  S{}(=O)(=O)O  S{}(C)=O  S{}C#N
    S{}C(F)(F)F  S{}(=O)(=O)Cl  N{}=C=O  N{}=C=S  N{}=[N+]=[N-]  B{}(O)O  [Si]{}(C)(C)C  P{}(=O)(O)O  P{}(=O)(OC)OC
    C{}(=O)[O-]  [N+]{}(C)(C)C  C/{}=C/C  C/{}=C\\C  C/{}=C/C(=O)O  C/{}=C/C#N  C/{}=N/O  C/{}=N\\O  C{}/C=C/C
    C{}/C=C\\C  C/{}=C/[N+](=O)[O-]  [C@H]{}(C)O  [C@@H]{}(C)O  [C@H]{}(C)N  [C@@H]{}(N)C(=O)O  [C@H]{}(N)C(=O)O
    C{}[C@H](N)C(=O)O  C{}[C@@H](C)O  [C@@H]{}(C)CC  C{}[C@H](O)CO  [C@H]{}(F)C  [C@@H]{}(C)C(=O)O
    [C@H]{}(O)C(F)(F)F  O{}[C@@H](C)C(=O)O
"""
ISOTOPES = """
    [2H]{}  C{}([2H])([2H])[2H]  O{}C([2H])([2H])[2H]  [13CH3]{}  [13C]{}(=O)O  [13C]{}#N  [15NH2]{}  [18OH]{}
    [125I]{}  [11CH3]{}  O{}[11CH3]  [18F]{}  [14CH2]{}O  [15N+]{}(=O)[O-]  [13CH]{}=O
"""
CHAINS = """
    C{}C{}  C{}CC{}  C{}CCC{}  C{}CCCC{}  C{}C(C)C{}  C{}C{}C{}  C{}=C  C{}C=C{}  C{}OC{}  C{}OCCO{}  C{}N{}C{}
    C{}C{}=O  C{}C(=O)C{}  C{}C(=O)O{}  C{}C(=O)N{}  C{}SC{}  C{}S(=O)C{}  C{}C(C){}C{}  C{}CCCCCC{}  C{}[C@H](C)C{}
    C{}[C@@H](O)C{}  C{}[C@H](N)C(=O)O{}  C{}/C=C/C{}  C{}/C=C\\C{}  C{}NC(=O)N{}
"""
"""What a molecule may begin with if not with a ring."""

ATOM = r"\[[^\]]*\]|Br|Cl|[A-Za-z]"
SLOT = re.compile(rf"({ATOM})(?=[\\/]?\{{)|\{{\}}")
LINK = "{}"
MOST_LINKS = 89
"""Ring bonds of two digits, from %10 on."""
CHAIN_SHARE = 0.15
"""Of the molecules, that begin with a chain."""
KINDS = {"ring": 0.25, "linker": 0.3, "group": 0.43, "isotope": 0.02}
"""Shares of what is joined."""
OPEN_KINDS = {"ring": 0.3, "linker": 0.7}
"""The same where nothing could be joined after a group."""


class Fragment(NamedTuple):
    """A fragment as written, with what the joining needs to know of it."""

    text: str
    num_heavy_atoms: int
    slots: tuple[bool, ...]
    """Of each `{}` whether its atom is a carbon."""


class Slot(NamedTuple):
    """A place where something can be joined."""

    fragment: int
    position: int
    is_carbon: bool


def _read(texts: str) -> list[Fragment]:
    return [_fragment(text) for text in texts.split()]


def _fragment(text: str) -> Fragment:
    text = text.replace("\\\\", "\\")
    atoms = re.findall(ATOM, text)
    slots, is_carbon = [], False
    for match in SLOT.finditer(text):
        if match[0] == LINK:
            slots.append(is_carbon)
        else:
            is_carbon = match[1].strip("[]0123456789@H") in {"C", "c"}
    return Fragment(text, sum(not re.fullmatch(r"\[\d*H\]", atom) for atom in atoms), tuple(slots))


FRAGMENTS = {
    "ring": _read(RINGS),
    "linker": _read(LINKERS),
    "group": _read(GROUPS),
    "isotope": _read(ISOTOPES),
}
BEGINNINGS = {"ring": _read(RINGS), "chain": _read(CHAINS)}
CARBON = _fragment("C{}{}")
"""Fits everywhere: methyl, or a link of a chain."""


def make_up(seed: int, index: int, *, min_heavy_atoms: int, max_heavy_atoms: int) -> str:
    """Return molecule `index` as SMILES; now and then it has fewer atoms than asked for."""
    random = Random(f"molecule/{seed}/{min_heavy_atoms}/{max_heavy_atoms}/{index}")
    num_wanted = random.randint(min_heavy_atoms, max_heavy_atoms)
    kind = "chain" if random.random() < CHAIN_SHARE else "ring"
    parts = [_choose(BEGINNINGS[kind], num_wanted - 1, random) or CARBON]
    links: list[tuple[Slot, int]] = []
    free = [Slot(0, 0, parts[0].slots[0])]  # used first: a hydrogen there may not be written
    num_missing = num_wanted - parts[0].num_heavy_atoms
    while free and num_missing > 0 and len(links) < MOST_LINKS:
        slot = free.pop(random.randrange(len(free)))
        added = _choose_beside(slot, KINDS if free else OPEN_KINDS, num_missing, random)
        if not links:
            free += _slots_behind(parts[0], 0)
        links.append((slot, len(parts)))
        free += _slots_behind(added, len(parts))
        parts.append(added)
        num_missing -= added.num_heavy_atoms
    return join(parts, links)


def _slots_behind(fragment: Fragment, number: int) -> list[Slot]:
    return [
        Slot(number, position, is_carbon) for position, is_carbon in enumerate(fragment.slots) if position
    ]


def _choose_beside(slot: Slot, kinds: dict[str, float], most: int, random: Random) -> Fragment:
    """Return a fragment of at most so many heavy atoms; beside another element it begins with carbon."""
    (kind,) = random.choices([*kinds], [*kinds.values()])
    suited = [own for own in FRAGMENTS[kind] if slot.is_carbon or own.slots[0]]
    return _choose(suited, most, random) or CARBON


def _choose(fragments: list[Fragment], most: int, random: Random) -> Fragment | None:
    fitting = [own for own in fragments if own.num_heavy_atoms <= most]
    return random.choice(fitting) if fitting else None


def join(parts: list[Fragment], links: list[tuple[Slot, int]]) -> str:
    """Write the fragments with a ring bond for each link."""
    marks = [[""] * len(part.slots) for part in parts]
    for number, (slot, added) in enumerate(links):
        marks[slot.fragment][slot.position] = marks[added][0] = f"%{10 + number}"
    written = []
    for part, own in zip(parts, marks, strict=True):
        pieces = part.text.split(LINK)
        written.append("".join(piece + mark for piece, mark in zip(pieces, [*own, ""], strict=True)))
    return ".".join(written)
