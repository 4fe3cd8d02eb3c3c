"""What a text says as a molecule: its skeleton and fingerprint, to compare by, and a drawing of it for people."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from captioning.chemistry.children import Children

SECONDS = 10.0
"""For one text; most take a few milliseconds."""
INCHI = "InChI="
RADIUS, NUM_BITS = 2, 2048
"""Of Morgan's fingerprint (Rogers and Hahn, 2010: ECFP4)."""
DRAWING_SIZE = 336, 192
"""Width and height, in pixels."""


class Identity(NamedTuple):
    """A molecule, as far as two of them are compared."""

    skeleton: str
    """First block of the InChIKey: which atoms are bound to which, without stereo, isotopes and charges."""
    bits: frozenset[int]
    """Of the fingerprint, those that are set."""

    def similarity(self, other: "Identity") -> float:
        """Return Tanimoto's similarity of two fingerprints, in 0..1; 1 where neither has a bit."""
        return len(self.bits & other.bits) / len(self.bits | other.bits) if self.bits | other.bits else 1.0


def identities(texts: Sequence[str]) -> list[Identity | None]:
    """Return the molecule that each text, an InChI or a SMILES, stands for; None where RDKit reads none."""
    return [answer.value for answer in _identifying().ask(texts)]


def drawings(texts: Sequence[str]) -> list[np.ndarray | None]:
    """Return a drawing of each molecule, uint8, height x width x 3, black on white; None where RDKit reads none."""
    return [answer.value for answer in _drawing().ask(texts)]


@functools.cache
def _identifying() -> Children[str, Identity]:
    return Children(_identify, seconds=SECONDS)


@functools.cache
def _drawing() -> Children[str, np.ndarray]:
    return Children(_draw, seconds=SECONDS)


def _read(text: str) -> Any:
    from rdkit import Chem

    if " " in text:  # RDKit takes what follows a space for a name
        return None
    molecule = Chem.MolFromInchi(text) if text.startswith(INCHI) else Chem.MolFromSmiles(text)
    return molecule if molecule is not None and molecule.GetNumAtoms() else None  # it reads "", too


def _identify(text: str) -> Identity | None:
    from rdkit import Chem
    from rdkit.Chem import rdFingerprintGenerator

    molecule = _read(text)
    if molecule is None or not (key := Chem.MolToInchiKey(molecule)):
        return None
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=NUM_BITS)
    return Identity(
        skeleton=key.partition("-")[0], bits=frozenset(generator.GetFingerprint(molecule).GetOnBits())
    )


def _draw(text: str) -> np.ndarray | None:
    import io

    from PIL import Image
    from rdkit.Chem.Draw import rdMolDraw2D

    if (molecule := _read(text)) is None:
        return None
    canvas = rdMolDraw2D.MolDraw2DCairo(*DRAWING_SIZE)
    canvas.drawOptions().useBWAtomPalette()
    rdMolDraw2D.PrepareAndDrawMolecule(canvas, molecule)
    canvas.FinishDrawing()
    return np.array(Image.open(io.BytesIO(canvas.GetDrawingText())).convert("RGB"))
