"""Molecules compared and drawn for reports."""

import numpy as np

from captioning.chemistry.identities import DRAWING_SIZE, drawings, identities


def test_inchi_and_smiles_of_one_molecule_are_one_identity() -> None:
    inchi, smiles = identities(["InChI=1S/C6H6/c1-2-4-6-5-3-1/h1-6H", "c1ccccc1"])
    assert inchi == smiles
    assert inchi is not None
    assert inchi.skeleton == "UHOVQNZJYSORNB"


def test_what_is_no_molecule_has_no_identity() -> None:
    assert identities(["", "C dog", "a dog", "InChI=1S/", "C(C"]) == [None] * 5


def test_a_molecule_is_drawn_and_what_is_none_is_not() -> None:
    drawn, nothing = drawings(["InChI=1S/C6H6/c1-2-4-6-5-3-1/h1-6H", "InChI=1S/C6H6/c1-2"])
    assert nothing is None
    assert drawn is not None
    assert drawn.shape == (DRAWING_SIZE[1], DRAWING_SIZE[0], 3)
    assert drawn.dtype == np.uint8
    assert 0 < (drawn < 128).mean() < 0.2, "black lines on white"
