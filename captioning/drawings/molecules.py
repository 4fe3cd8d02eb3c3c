"""A SMILES string -> the molecule that it means, under the names that chemists compare molecules by."""

from typing import NamedTuple

from rdkit import Chem, RDLogger
from rdkit.Chem import inchi as inchi_names
from rdkit.Chem import rdMolHash

RDLogger.DisableLog("rdApp.*")  # type: ignore[attr-defined]

SHOWN_CHARACTERS = 80
"""Of a SMILES string in a message."""


class BadMolecule(ValueError):
    """What a SMILES string says is no molecule that can be drawn and named."""


class Molecule(NamedTuple):
    """What is known of a molecule before it is drawn."""

    smiles: str
    """RDKit's canonical form."""
    inchi: str
    """Standard InChI."""
    inchikey: str
    skeleton: str
    """What is left of the largest component without hydrogens, charges, isotopes, stereo and bond orders: equal for
    tautomers, stereoisomers, salts and states of oxidation."""
    num_heavy_atoms: int


def identify(smiles: str) -> Molecule:
    """Return the molecule of a SMILES string.

    Raises:
        BadMolecule: RDKit cannot read it, it stands for several molecules, or it has no InChI.
    """
    molecule = Chem.MolFromSmiles(smiles)
    shown = smiles if len(smiles) <= SHOWN_CHARACTERS else f"{smiles[:SHOWN_CHARACTERS]}..."
    if molecule is None or not molecule.GetNumAtoms():
        raise BadMolecule(f"RDKit reads no molecule from {shown!r}")
    if any(atom.GetAtomicNum() == 0 for atom in molecule.GetAtoms()):
        raise BadMolecule(f"{shown!r} has a placeholder instead of an atom")
    inchi = inchi_names.MolToInchi(molecule)
    if not inchi:
        raise BadMolecule(f"{shown!r} has no InChI")
    return Molecule(
        smiles=Chem.MolToSmiles(molecule),
        inchi=inchi,
        inchikey=inchi_names.InchiToInchiKey(inchi),
        skeleton=_skeleton(molecule),
        num_heavy_atoms=molecule.GetNumHeavyAtoms(),
    )


def _skeleton(molecule: Chem.Mol) -> str:
    bare = Chem.RemoveAllHs(molecule)
    Chem.RemoveStereochemistry(bare)
    for atom in bare.GetAtoms():
        atom.SetIsotope(0)
    graph = rdMolHash.MolHash(bare, rdMolHash.HashFunction.ElementGraph)
    return max(graph.split("."), key=lambda component: (len(component), component))
