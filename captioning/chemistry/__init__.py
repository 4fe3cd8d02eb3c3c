"""Molecules as text, by RDKit, which runs in child processes: it can crash on a strange molecule.

What RDKit cannot read, crashes on or takes too long for is None; the reason is in what `answers` returns.
"""

from captioning.chemistry.children import Answer, Children
from captioning.chemistry.molecules import answers, inchi_of_smiles, normalise, smiles_of_inchi, valid_share

__all__ = [
    "Answer",
    "Children",
    "answers",
    "inchi_of_smiles",
    "normalise",
    "smiles_of_inchi",
    "valid_share",
]
