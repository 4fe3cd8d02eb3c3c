"""SMILES by its parts (atoms, bonds, ring closures, brackets) for captions that are InChI; no atom is aromatic.

RDKit writes the SMILES of each InChI before it is cut, and the InChI of each SMILES that a model has written, in a
child process. An InChI whose SMILES does not lead back to it, character by character (1 of 650 in the data at hand:
their mobile hydrogens are counted in another way), is cut into its characters instead. What a model writes and RDKit
cannot read stays the SMILES that it is.
"""

import re
from collections.abc import Iterable

from captioning.chemistry import inchi_of_smiles, smiles_of_inchi
from captioning.chemistry.identities import drawings

__all__ = ["EXAMPLES", "IS_EXACT", "IS_SPELLED", "UNIT", "drawings", "join", "split"]

INCHI = "InChI="
UNIT = "token"
IS_EXACT = True
IS_SPELLED = False
EXAMPLES = (
    "InChI=1S/CH4/h1H4",
    "InChI=1S/C7H9NO/c1-5-3-6(2)8-7(5)4-9/h3-4,8H,1-2H3",
    "InChI=1S/C2H4ClF/c1-2(3)4/h2H,1H3/t2-/m0/s1",
    "InChI=1S/ClH.Na/h1H;/q;+1/p-1",
    "InChI=1S/C4H8/c1-3-4-2/h3-4H,1-2H3/b4-3+",
)

_TOKEN = re.compile(r"Br|Cl|%[0-9]{2}|@@|[A-Z][a-z]?(?=[^\[]*\])|.", re.DOTALL)
"""Outside of brackets two letters are one atom only for bromine and chlorine; those of others stand in brackets."""


def split(caption: str) -> list[str]:
    """Return the parts of the SMILES of an InChI; the characters of what is neither InChI nor SMILES.

    Raises:
        ValueError: it is SMILES, which `join` would not give back.
    """
    if caption.startswith(INCHI):
        smiles = smiles_of_inchi(caption)
    elif inchi_of_smiles(caption) is None:
        smiles = None
    else:
        raise ValueError(
            f"{caption[:60]!r} is SMILES, and these tokens are for captions that are InChI, which begins with "
            f"{INCHI!r}: take preprocess.tokens: characters, or give the data set's captions as InChI"
        )
    return [*caption] if smiles is None else _TOKEN.findall(smiles)


def join(tokens: Iterable[str]) -> str:
    """Return the InChI of the SMILES that the parts make, or that SMILES where RDKit cannot read it."""
    text = "".join(tokens)
    if text.startswith(INCHI):
        return text
    return inchi_of_smiles(text) or text
