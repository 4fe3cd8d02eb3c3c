"""What RDKit makes of a text; run in a process of its own, since RDKit can crash on a strange molecule."""

from typing import Literal

from rdkit import Chem, RDLogger

RDLogger.DisableLog("rdApp.*")  # type: ignore[attr-defined]

Operation = Literal["normalise", "smiles", "inchi"]


def answer(question: tuple[Operation, str]) -> str | None:
    """Return what is asked for of a text, None where RDKit cannot read it."""
    operation, text = question
    return _OPERATIONS[operation](text)


def normalised(inchi: str) -> str | None:
    """Return the InChI that RDKit writes for an InChI."""
    return _inchi_of(Chem.MolFromInchi(inchi))


def smiles(inchi: str) -> str | None:
    """Return the SMILES of an InChI that leads back to it, character by character; double bonds as they are drawn."""
    molecule = Chem.MolFromInchi(inchi)
    if molecule is None:
        return None
    Chem.Kekulize(molecule, clearAromaticFlags=True)
    written: str = Chem.MolToSmiles(molecule)
    return written if inchi_of_smiles(written) == inchi else None


def inchi_of_smiles(text: str) -> str | None:
    """Return the InChI of a SMILES."""
    return _inchi_of(Chem.MolFromSmiles(text))


def _inchi_of(molecule: Chem.Mol | None) -> str | None:
    return None if molecule is None else (Chem.MolToInchi(molecule) or None)


_OPERATIONS = {"normalise": normalised, "smiles": smiles, "inchi": inchi_of_smiles}
