"""How many neighbours an atom may have in a connection table, and how many hydrogens besides.

As InChI sees molecules: metals are disconnected, protons of charged groups are counted apart, and bond orders are
not stated. So nitrogen has four neighbours in nitrogen oxides and quaternary salts, and three with hydrogen.
"""

from functools import lru_cache
from itertools import pairwise

from captioning.inchi.states import REMEMBERED

HYDROGENS: dict[str, tuple[int, ...]] = {
    "C": (4, 3, 2, 1, 0),
    "N": (3, 2, 1, 0, 0),
    "O": (2, 1, 1, 0),  # 1 of 2: an oxygen that a boron takes an electron pair of
    "F": (1, 1),  # 1 of 1: a fluorine with a proton, as InChI writes some of boron
    "Cl": (1, 0, 0, 0, 0),
    "Br": (1, 0, 0, 0, 0),
    "I": (1, 1, 1, 0, 0, 0, 0, 0),
    "S": (2, 1, 1, 1, 1, 0, 0),
    "Se": (2, 1, 1, 1, 1, 0, 0),
    "Te": (2, 1, 1, 1, 1, 0, 0),
    "P": (5, 4, 3, 2, 1, 0, 0),
    "As": (5, 4, 3, 2, 1, 0, 0),
    "B": (4, 3, 2, 1, 0),
    "Si": (4, 3, 2, 1, 0, 0, 0),
    "Ge": (4, 3, 2, 1, 0, 0, 0),
    "H": (1, 0),
    "At": (1, 0),
    "Xe": (0,) * 9,
    "Kr": (0,) * 5,
}
"""Element -> the most hydrogens at 0, 1, 2, ... neighbours; never rising, falling by 1 at most."""

_METALS_AND_OTHERS = """
He Li Be Ne Na Mg Al Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Cs Ba La Ce
Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es
Fm Md No Lr
"""
HYDROGENS |= dict.fromkeys(_METALS_AND_OTHERS.split(), (4,))
"""Metals stand alone; as hydrides they may have hydrogens."""
HYDROGENS |= dict.fromkeys(("He", "Ne", "Ar", "Rn"), (0,))

ELEMENTS = frozenset(HYDROGENS) - {"H"}
SHARES_HYDROGENS = frozenset({"N", "O", "S", "Se", "Te"})
"""Whose hydrogens may be mobile."""


def most_neighbours(element: str) -> int:
    """Return the most neighbours of an atom."""
    return len(HYDROGENS[element]) - 1


Profile = tuple[int, ...]
"""The most hydrogens of an atom as it has now, after one more bond, after two, ..."""
Count = tuple[tuple[Profile, int], ...]
"""How many atoms there are of each profile; sorted, so that the same is not asked twice."""


@lru_cache(maxsize=REMEMBERED)
def profile(element: str, num_neighbours: int) -> Profile:
    """Return the most hydrogens of an atom with so many neighbours, and after each further bond."""
    return HYDROGENS[element][num_neighbours:]


@lru_cache(maxsize=REMEMBERED)
def has_room(atoms: Count, num_bonds: int, num_hydrogens: int) -> bool:
    """Tell whether atoms can have exactly so many bonds more, one end of each counted, and so many hydrogens besides.

    A bond costs a hydrogen or nothing.
    """
    if sum((len(own) - 1) * count for own, count in atoms) < num_bonds:
        return False
    cost = (
        num_hydrogens - sum(own[0] * count for own, count in atoms) + num_bonds
    )  # bonds that must cost nothing
    return cost <= 0 or _most_free(atoms, num_bonds) >= cost


@lru_cache(maxsize=REMEMBERED)
def _most_free(atoms: Count, num_bonds: int) -> int:
    """Return how many of so many bonds can cost nothing."""
    steps = [(paid, free, count) for own, count in atoms for paid, free in _steps(own)]
    found = min(num_bonds, sum(free * count for paid, free, count in steps if paid == 0))
    behind = sorted(step for step in steps if step[0])
    left = num_bonds - found
    if all(free == 1 for _, free, _ in behind):
        for paid, _, count in behind:  # each gains one, so the lightest first
            taken = min(count, left // (paid + 1))
            found, left = found + taken, left - taken * (paid + 1)
        return found
    best = [0] * (left + 1)
    for paid, free, count in behind:
        for _ in range(count):
            for used in range(left, paid, -1):
                most = min(free, used - paid)
                best[used] = max(best[used], *(best[used - paid - own] + own for own in range(1, most + 1)))
    return found + best[left]


@lru_cache(maxsize=REMEMBERED)
def _steps(own: Profile) -> tuple[tuple[int, int], ...]:
    """Return how many bonds cost a hydrogen, and how many behind them cost nothing, from the first bond on."""
    found, paid, free = [], 0, 0
    for before, after in pairwise(own):
        if before == after:
            free += 1
        else:
            if free:
                found.append((paid, free))
                paid, free = 0, 0
            paid += 1
    return (*found, (paid, free)) if free else tuple(found)


@lru_cache(maxsize=REMEMBERED)
def is_molecule(elements: tuple[tuple[str, int], ...], num_hydrogens: int) -> bool:
    """Tell whether heavy atoms, by element, can be one connected piece and carry so many hydrogens."""
    num_atoms = sum(count for _, count in elements)
    if num_atoms == 0:
        return num_hydrogens == 2
    if num_atoms == 1:
        return num_hydrogens <= HYDROGENS[elements[0][0]][0]
    if any(most_neighbours(element) == 0 for element, _ in elements):
        return False
    bonded = tuple(sorted((profile(element, 1), count) for element, count in elements))
    return has_room(bonded, num_atoms - 2, num_hydrogens)
