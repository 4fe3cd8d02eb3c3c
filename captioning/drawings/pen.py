"""A molecule and a style -> its places in the plane -> gray pixels, by RDKit."""

import io
import math
from random import Random
from typing import Any

import numpy as np
from PIL import Image
from rdkit import Chem, RDLogger
from rdkit.Chem import rdDepictor
from rdkit.Chem.Draw import rdMolDraw2D

from captioning.drawings.styles import Style, font_file

RDLogger.DisableLog("rdApp.*")  # type: ignore[attr-defined]

BOND_UNITS = 1.5
"""Length of a bond in RDKit's plane."""
ROOM_UNITS = 2.0
"""Beside the outermost atoms, for their letters."""
POLAR = (7, 8, 16)
"""Nitrogen, oxygen, sulphur."""
INK = 250
"""Darker pixels are not paper."""


def lay_out(smiles: str, style: Style, random: Random) -> Chem.Mol:
    """Return the molecule with its places in the plane, its double bonds and its wedges, ready to be drawn."""
    molecule = Chem.MolFromSmiles(smiles)
    if style.has_hydrogens:
        polar = [atom.GetIdx() for atom in molecule.GetAtoms() if atom.GetAtomicNum() in POLAR]
        molecule = Chem.AddHs(molecule, onlyOnAtoms=polar)
    order = [*range(molecule.GetNumAtoms())]
    random.shuffle(order)  # which decides what is laid where, and which double bonds a ring gets
    molecule = Chem.RenumberAtoms(molecule, order)
    rdDepictor.SetPreferCoordGen(style.is_by_coordgen)
    rdDepictor.Compute2DCoords(molecule)
    _turn(molecule.GetConformer(), style)
    prepared = rdMolDraw2D.PrepareMolForDrawing(
        molecule, kekulize=True, addChiralHs=style.has_chiral_hydrogens, wedgeBonds=False, forceCoords=False
    )
    if style.has_crossed_bonds:
        _cross(prepared)
    wedging: Any = Chem.BondWedgingParameters()
    wedging.wedgeTwoBondsIfPossible = style.has_double_wedges
    Chem.WedgeMolBonds(prepared, prepared.GetConformer(), wedging)
    return prepared


def _cross(molecule: Chem.Mol) -> None:
    """Mark the double bonds that could have a known arrangement and have none."""
    for found in Chem.FindPotentialStereo(molecule):
        is_unknown = found.specified == Chem.StereoSpecified.Unspecified
        if is_unknown and found.type == Chem.StereoType.Bond_Double:
            molecule.GetBondWithIdx(found.centeredOn).SetStereo(Chem.BondStereo.STEREOANY)


def _turn(conformer: Chem.Conformer, style: Style) -> None:
    positions = conformer.GetPositions()
    if style.is_mirrored:
        positions[:, 0] *= -1
    sine, cosine = math.sin(style.radians), math.cos(style.radians)
    positions[:, :2] = positions[:, :2] @ np.array([[cosine, sine], [-sine, cosine]])
    conformer.SetPositions(positions)


def draw(molecule: Chem.Mol, style: Style) -> np.ndarray:
    """Return the drawing of what `lay_out` gave, uint8 H x W, smooth black lines on white (255), with its margins."""
    extent = float(np.ptp(molecule.GetConformer().GetPositions()[:, :2], axis=0).max())
    scale = min(style.bond_pixels / BOND_UNITS, style.max_side_pixels / (extent + ROOM_UNITS))
    pen = rdMolDraw2D.MolDraw2DCairo(-1, -1)
    _set(pen.drawOptions(), style, scale)
    pen.DrawMolecule(molecule)
    pen.FinishDrawing()
    image: Image.Image = Image.open(io.BytesIO(pen.GetDrawingText())).convert("L")
    return _with_margins(np.asarray(image), style.margins)


def _set(options: Any, style: Style, scale: float) -> None:
    bond_pixels = scale * BOND_UNITS
    options.useBWAtomPalette()
    options.prepareMolsBeforeDrawing = False
    options.includeMetadata = False  # would double the time to encode
    options.scalingFactor = scale
    options.bondLineWidth = max(style.line * bond_pixels, 1.0)
    options.multipleBondOffset = style.gap
    options.fontFile = font_file(style.font)
    options.baseFontSize = style.letter * BOND_UNITS
    options.minFontSize, options.maxFontSize = round(style.min_letter_pixels), -1
    options.explicitMethyl = style.has_methyl


def _with_margins(gray: np.ndarray, margins: tuple[int, int, int, int]) -> np.ndarray:
    rows, columns = (np.flatnonzero((gray < INK).any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        raise ValueError("the drawing is blank")
    left, top, right, bottom = margins
    ink = gray[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.pad(ink, ((top, bottom), (left, right)), constant_values=255)
