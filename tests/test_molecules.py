"""Drawn molecules: drawings show what captions say, nothing leaks between splits, a crash costs one molecule."""

import io
import re
import zipfile
from collections import Counter, defaultdict
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import pytest
from crashing import hostile_draw
from dataset_samples import (
    COMMON,
    MOLECULE_SCAN,
    MOLECULE_STYLE,
    molecules_settings,
    own_keys,
    prepared,
)
from PIL import Image
from pydantic import ValidationError
from rdkit import Chem
from rdkit.Chem import inchi

from captioning.datasets import joined, molecules
from captioning.downloads.raw import download
from captioning.drawings import making, pen
from captioning.drawings.fragments import BEGINNINGS, FRAGMENTS, Slot, join, make_up
from captioning.drawings.making import DrawingSettings, Order, draw
from captioning.drawings.molecules import BadMolecule, identify
from captioning.drawings.scans import ScanSettings, scan
from captioning.drawings.styles import StyleSettings, choose
from captioning.images import PixelTransform, decode
from captioning.records import SPLITS, Pair

CAFFEINE = "Cn1cnc2c1c(=O)n(C)c(=O)n2C"


def made_up(number: int, least: int = 4, most: int = 25) -> list[str]:
    return [make_up(0, index, min_heavy_atoms=least, max_heavy_atoms=most) for index in range(number)]


def skeletons(pairs: list[Pair]) -> dict[str, set[str]]:
    """Return skeleton -> splits, of pairs whose caption is SMILES."""
    found = defaultdict(set)
    for pair in pairs:
        found[identify(pair.captions[0]).skeleton].add(pair.split)
    return found


def read_all(folder: Path, pairs: list[Pair]) -> dict[str, bytes]:
    found = {}
    for pair in pairs:
        with zipfile.ZipFile(folder / pair.archive) as archive:
            found[pair.image_id] = archive.read(pair.member)
    return found


# --- molecules


def test_every_fragment_can_carry_something_at_each_of_its_places() -> None:
    carbon = next(own for own in FRAGMENTS["group"] if own.text == "C{}")
    for fragment in {own for kind in (*FRAGMENTS.values(), *BEGINNINGS.values()) for own in kind}:
        for position, is_carbon in enumerate(fragment.slots):
            links = [(Slot(0, 0, True), 1)] + [(Slot(0, position, is_carbon), 2)] * bool(position)
            molecule = Chem.MolFromSmiles(join([fragment, *[carbon] * len(links)], links))
            assert molecule is not None, fragment.text
            assert molecule.GetNumHeavyAtoms() == fragment.num_heavy_atoms + len(links), fragment.text
            assert not any(atom.GetNumRadicalElectrons() for atom in molecule.GetAtoms()), fragment.text


def test_made_up_molecules_are_sound_of_the_size_asked_for_and_of_every_kind() -> None:
    found = [identify(smiles) for smiles in made_up(300, 8, 20)]
    layers = Counter(layer for own in found for layer in "tbi" if f"/{layer}" in own.inchi)
    assert sum(8 <= own.num_heavy_atoms <= 20 for own in found) > 290
    assert min(layers[layer] for layer in "tbi") >= 3, layers  # centres, double bonds, isotopes
    assert len({own.inchi for own in found}) > 280


def test_inchi_tells_isotopes_and_stereo() -> None:
    names = {
        smiles: identify(smiles).inchi for smiles in ("C[C@H](N)C(=O)O", "F/C=C/F", "[13CH3]O", "[2H]O[2H]")
    }
    assert [name.split("/", 2)[2] for name in names.values()] == [
        "c1-2(4)3(5)6/h2H,4H2,1H3,(H,5,6)/t2-/m0/s1",
        "c3-1-2-4/h1-2H/b2-1+",
        "c1-2/h2H,1H3/i1+1",
        "h1H2/i/hD2",
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("CC(=O)CC(C)=O", "CC(O)=CC(C)=O"),  # keto, enol
        ("O=c1cccc[nH]1", "Oc1ccccn1"),
        ("C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"),
        ("CC(=O)O", "CC(=O)[O-].[Na+]"),
        ("CCO", "[13CH3]CO"),
    ],
)
def test_tautomers_stereoisomers_salts_and_isotopes_have_one_skeleton(one: str, other: str) -> None:
    assert identify(one).skeleton == identify(other).skeleton


@pytest.mark.parametrize(
    ("smiles", "message"),
    [
        ("C1CC", "RDKit reads no molecule from 'C1CC'"),
        ("CN(C)(C)(C)C", "RDKit reads no molecule"),
        ("*CC", "has a placeholder instead of an atom"),
        ("", "reads no molecule"),
    ],
)
def test_what_is_no_molecule_is_named(smiles: str, message: str) -> None:
    with pytest.raises(BadMolecule, match=re.escape(message)):
        identify(smiles)


# --- drawings


def drawing_settings(*, scan_changes: dict[str, Any] | None = None, **style: Any) -> DrawingSettings:
    return DrawingSettings(
        seed=0,
        style=StyleSettings.model_validate(MOLECULE_STYLE | style),
        scan=ScanSettings.model_validate(MOLECULE_SCAN | (scan_changes or {})),
    )


def read_back(laid_out: Chem.Mol) -> Chem.Mol:
    """Forget all stereo and see it again in wedges and angles."""
    seen = Chem.Mol(laid_out)
    for atom in seen.GetAtoms():
        atom.SetChiralTag(Chem.ChiralType.CHI_UNSPECIFIED)
    for bond in seen.GetBonds():
        if bond.GetStereo() == Chem.BondStereo.STEREOANY:
            bond.SetBondDir(Chem.BondDir.EITHERDOUBLE)  # crossed
        bond.SetStereo(Chem.BondStereo.STEREONONE)
    Chem.AssignChiralTypesFromBondDirs(seen)
    Chem.DetectBondStereochemistry(seen)
    Chem.AssignStereochemistry(seen, cleanIt=True, force=True)
    return seen


def test_what_is_drawn_is_the_molecule_of_the_caption() -> None:
    """Read back from atoms, bonds and wedges as they are laid out, whichever way."""
    settings = drawing_settings(hydrogen_share=0.3, coordgen_share=0.3, double_wedge_share=0.5).style
    for number, smiles in enumerate(made_up(120)):
        known, random = identify(smiles), Random(number)
        laid_out = pen.lay_out(known.smiles, choose(settings, random), random)
        assert inchi.MolToInchi(read_back(laid_out)) == known.inchi, smiles


def test_a_drawing_depends_on_settings_molecule_and_copy_alone() -> None:
    orders = [
        Order(smiles=CAFFEINE, copy=0, settings=drawing_settings()),
        Order(smiles=CAFFEINE, copy=1, settings=drawing_settings()),
        Order(smiles=CAFFEINE, copy=0, settings=drawing_settings(line_bonds={"min": 0.2, "max": 0.2})),
        Order(smiles="CCO", copy=0, settings=drawing_settings()),
    ]
    pictures = [draw(order) for order in orders]
    assert len(set(pictures)) == len(orders)
    assert [draw(order) for order in reversed(orders)] == pictures[::-1]


def test_settings_of_style_are_kept_to() -> None:
    fixed = {
        "bond_pixels": {"min": 40, "max": 40},
        "margin_pixels": {"min": 7, "max": 7},
        "turned_degrees": 0.0,
    }

    def gray(smiles: str = "CCCCCC", **changes: Any) -> np.ndarray:
        settings, random = drawing_settings(**(fixed | changes)).style, Random(0)
        style = choose(settings, random)
        return pen.draw(pen.lay_out(smiles, style, random), style)

    usual = gray()
    is_ink = usual < pen.INK
    assert not is_ink[:7].any() and not is_ink[-7:].any()
    assert is_ink[7].any() and is_ink[:, 7].any()
    assert (gray(line_bonds={"min": 0.25, "max": 0.25}) < 128).sum() > 2 * (usual < 128).sum()
    assert max(gray(bond_pixels={"min": 20, "max": 20}).shape) < 0.7 * max(usual.shape)
    assert max(gray(max_side_pixels=64).shape) <= 64 + 14
    assert (gray(methyl_share=1.0) < 128).sum() > (usual < 128).sum()  # CH3 is written


def test_fonts_are_different_ones() -> None:
    letters = {
        draw(Order(smiles="NC(=O)CO", copy=0, settings=drawing_settings(fonts=[font])))
        for font in ("telex", "comic", "freesans", "dejavu-sans", "dejavu-serif", "dejavu-mono", "stix")
    }
    assert len(letters) == 7


# --- scans


def scanned(**changes: Any) -> Image.Image:
    settings = ScanSettings.model_validate(MOLECULE_SCAN | changes)
    return scan(page(), settings, Random(0), num_bonds=20, bond_pixels=20)


def page() -> np.ndarray:
    """A thick frame, wider than high."""
    gray = np.full((200, 300), 255, np.uint8)
    gray[40:160, 40:260] = 0
    gray[60:140, 60:240] = 255
    return gray


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L"))


def always(most: float) -> dict[str, float]:
    return {"share": 1.0, "most": most}


def test_a_scan_without_defects_is_the_drawing_in_black_and_white() -> None:
    assert np.array_equal(pixels(scanned()), page())
    assert (scanned().mode, scanned(smooth_share=1.0).mode) == ("1", "L")


def test_salt_is_missing_ink_and_pepper_black_paper() -> None:
    is_ink = page() == 0
    salted, peppered = pixels(scanned(salt=always(0.5))), pixels(scanned(pepper=always(0.1)))
    assert (salted[~is_ink] == 255).all() and 0.02 < (salted[is_ink] == 255).mean() < 0.5
    assert (peppered[is_ink] == 0).all() and 0.002 < (peppered[~is_ink] == 0).mean() < 0.1


def test_breaks_are_holes_in_the_ink_and_few() -> None:
    broken, is_ink = pixels(scanned(breaks=always(1.0))), page() == 0
    assert (broken[~is_ink] == 255).all()
    assert 0 < (broken[is_ink] == 255).mean() < 0.1


def test_coarse_tilted_and_turned_pages_have_other_shapes() -> None:
    coarse, tilted = scanned(coarse=always(0.5)), scanned(tilt=always(10.0))
    assert 0.5 <= coarse.width / 300 < 1 and coarse.width / coarse.height == pytest.approx(1.5, rel=0.02)
    assert tilted.width > 300 and tilted.height > 200
    assert scanned(quarter_turn_share=1.0).size == (200, 300)


def test_a_share_is_that_of_the_drawings() -> None:
    settings = ScanSettings.model_validate(MOLECULE_SCAN | {"quarter_turn_share": 0.3})
    turned = [scan(page(), settings, Random(n), num_bonds=1, bond_pixels=20).width == 200 for n in range(200)]
    assert 40 <= sum(turned) <= 80


# --- the data set


def test_no_molecule_tautomer_or_stereoisomer_is_in_two_splits(tmp_path: Path) -> None:
    texts = [*made_up(60, 4, 9), "C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O", "CC(=O)CC(C)=O", "CC(O)=CC(C)=O"]
    shares = {"train": 0.4, "val": 0.3, "test": 0.3}
    settings = molecules_settings(tmp_path, "\n".join(texts), caption="smiles", shares=shares)
    pairs = prepared(molecules, tmp_path / "raw", settings)
    assert {pair.split for pair in pairs} == set(SPLITS)
    assert all(len(splits) == 1 for splits in skeletons(pairs).values())


def test_more_molecules_move_no_molecule_and_change_no_picture(tmp_path: Path) -> None:
    few, many = made_up(12, 4, 9), made_up(20, 4, 9)[::-1]
    found = []
    for name, texts in (("few", few), ("many", many)):
        pairs = prepared(molecules, tmp_path / name, molecules_settings(tmp_path, "\n".join(texts)))
        pictures = read_all(tmp_path / name, pairs)
        found.append({pair.image_id: (pair.split, pair.captions, pictures[pair.image_id]) for pair in pairs})
    assert found[0].items() <= found[1].items()
    assert len(found[0]) < len(found[1])


def test_splits_have_about_their_shares() -> None:
    shares = molecules.Shares(train=0.7, val=0.2, test=0.1)
    counts = Counter(molecules.find_split(f"skeleton {number}", shares) for number in range(2000))
    assert 1330 < counts["train"] < 1470 and 340 < counts["val"] < 460 and 150 < counts["test"] < 250


def test_train_molecules_have_several_pictures_all_of_them_different(tmp_path: Path) -> None:
    settings = molecules_settings(tmp_path, copies={"train": 3, "val": 1, "test": 2})
    pairs = prepared(molecules, tmp_path / "raw", settings)
    copies = Counter((pair.split, pair.captions) for pair in pairs)
    assert all(count == {"train": 3, "val": 1, "test": 2}[split] for (split, _), count in copies.items())
    assert len(set(read_all(tmp_path / "raw", pairs).values())) == len(pairs)


def test_made_up_molecules_are_as_many_as_asked_for_and_each_once(tmp_path: Path) -> None:
    pairs = prepared(molecules, tmp_path / "raw", molecules_settings(tmp_path, num_molecules=25))
    assert len({pair.captions for pair in pairs}) == 25
    assert {pair.license for pair in pairs} == {"CC0-1.0"}


def test_more_made_up_molecules_than_there_are_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(molecules, "MOST_IN_VAIN", 2)
    settings = molecules_settings(tmp_path, num_molecules=400, heavy_atoms={"min": 1, "max": 3})
    with pytest.raises(
        ValueError, match=r"only \d+ of 400 molecules of 1 to 3 heavy atoms could be made up: lower"
    ):
        prepared(molecules, tmp_path / "raw", settings)


@pytest.mark.parametrize(
    ("name", "column", "text"),
    [
        ("m.smi", None, "CCO ethanol\n\nc1ccccc1\tbenzene\n"),
        ("m.csv", "smiles", "id,smiles\n1,CCO\n2,c1ccccc1\n"),
        ("m.tsv", "SMILES", "SMILES\tname\nCCO\tethanol\nc1ccccc1\tbenzene\n"),
    ],
)
def test_a_file_of_smiles_is_read(name: str, column: str | None, text: str, tmp_path: Path) -> None:
    settings = molecules_settings(
        tmp_path, text, name=name, smiles_column=column, heavy_atoms={"min": 1, "max": 9}, caption="smiles"
    )
    pairs = prepared(molecules, tmp_path / "raw", settings)
    assert list(dict.fromkeys(pair.captions for pair in pairs)) == [("CCO",), ("c1ccccc1",)]
    assert not (tmp_path / "raw" / f"smiles{Path(name).suffix}").exists()


def test_molecules_of_other_sizes_and_those_seen_before_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = molecules_settings(tmp_path, "CCCCCC\nC\nCCCCCCCCCCCCCCC\nC(C)CCCC\nCCCCCN")
    pairs = prepared(molecules, tmp_path / "raw", settings)
    assert len({pair.captions for pair in pairs}) == 2
    said = capsys.readouterr().err
    assert "molecules: 1 left out: there already" in said
    assert "molecules: 2 left out: not of 4 to 9 heavy atoms" in said


def test_at_most_so_many_pictures_are_drawn(tmp_path: Path) -> None:
    pairs = prepared(molecules, tmp_path / "raw", molecules_settings(tmp_path, limit=3))
    assert len(pairs) == 3


# --- crashes


def test_a_molecule_that_crashes_or_hangs_is_a_failed_row_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTIONING_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(making, "draw", hostile_draw)
    texts = ["CCCCCC", "CCCCCO", "CCCCCN", "CCCCCS", "CCCCCF", "C1CC", "CCCCCCl"]
    settings = molecules_settings(
        tmp_path,
        "\n".join(texts),
        copies={"train": 1, "val": 1, "test": 1},
        images_per_archive=100,
        max_image_seconds=5.0,
        max_failed_share=0.6,
    )
    counts = download(settings, tmp_path / "raw")
    rows = pd.read_parquet(tmp_path / "raw" / "rows.parquet")
    assert counts.reasons == {"crashed": 1, "too-slow": 1, "undrawable": 1, "no-molecule": 1}
    assert rows["status"].tolist() == ["ok", "failed", "ok", "failed", "failed", "failed", "ok"]
    assert rows["error"].tolist()[1] == "crashed: RDKit its process was ended by SIGABRT"
    assert rows["error"].tolist()[5] == "no-molecule: RDKit reads no molecule from 'C1CC'"
    assert rows["archive"].tolist()[1] == ""
    Image.open(
        io.BytesIO(
            read_all(tmp_path / "raw", list(molecules.read_pairs(tmp_path / "raw", settings))[:1]).popitem()[
                1
            ]
        )
    )


# --- an interrupted run


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "made").iterdir())}


def test_an_interrupted_run_goes_on_at_the_next_archive_with_the_same_bytes(tmp_path: Path) -> None:
    settings, raw = molecules_settings(tmp_path, images_per_archive=4), tmp_path / "raw"
    prepared(molecules, raw, settings)
    whole = files(raw)
    kept = (raw / "made" / "drawings-00000.zip").stat().st_mtime_ns
    for path in (raw / "made").glob("drawings-00001.*"):
        path.unlink()
    molecules.prepare(raw, settings, lambda url, path, sha256: None)
    assert files(raw) == whole
    assert (raw / "made" / "drawings-00000.zip").stat().st_mtime_ns == kept


def test_what_was_made_with_other_settings_is_made_anew(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    prepared(molecules, raw, molecules_settings(tmp_path))
    before = files(raw)["drawings-00000.zip"]
    other = molecules_settings(tmp_path, seed=1)
    molecules.prepare(raw, other, lambda url, path, sha256: None)
    assert files(raw)["drawings-00000.zip"] != before


# --- settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"source": "molecules.sdf"},
            "'molecules.sdf' is no file of SMILES: expected a name that ends with .csv",
        ),
        ({"source": "a.csv"}, "smiles_column is None for source 'a.csv'; expected the name of a column"),
        ({"smiles_column": "x"}, "smiles_column is 'x' for source None; expected null: there are no columns"),
        ({"num_molecules": None}, "num_molecules is null, and without a source there is no end of molecules"),
        ({"heavy_atoms": {"min": 9, "max": 4}}, "heavy_atoms: min 9 is above max 4"),
        (
            {"shares": {"train": 0.5, "val": 0.2, "test": 0.2}},
            "train, val and test add up to 0.9, expected 1",
        ),
        ({"style": {**MOLECULE_STYLE, "fonts": ["arial"]}}, "fonts"),
        ({"style": {**MOLECULE_STYLE, "line_bonds": {"min": 1.0, "max": 0.5}}}, "min 1 is above max 0.5"),
        ({"scan": {**MOLECULE_SCAN, "salt": {"share": 2.0, "most": 0.5}}}, "salt.share"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        molecules_settings(tmp_path, **changes)


# --- real scans


def test_real_scans_beside_drawn_molecules_are_for_testing_alone(shared: Path, tmp_path: Path) -> None:
    scans = {
        "dataset": "folder",
        "split": "test",
        "images": str(shared / "data" / "molecules" / "images"),
        "captions": str(shared / "data" / "molecules" / "labels.csv"),
        "image_column": "file",
        "caption_column": "InChI",
        "split_column": None,
        "license_column": None,
        "uncaptioned": "leave_out",
        "limit": 20,
    }
    parts = {"drawn": own_keys(molecules_settings(tmp_path)), "scans": scans}
    section = {"dataset": "joined", "parts": parts, "images_per_archive": 100}
    settings = joined.Settings.model_validate(COMMON | section)
    assert download(settings, tmp_path / "raw").num_failed == 0
    rows = pd.read_parquet(tmp_path / "raw" / "rows.parquet").groupby("source")
    assert set(rows.get_group("scans")["split"]) == {"test"}
    assert "train" in set(rows.get_group("drawn")["split"])
    transform = PixelTransform(
        height=128, width=224, channels=1, max_speck_pixels=1, crop="content", fit="pad"
    )
    for row in rows.get_group("scans").head(5).itertuples():
        with zipfile.ZipFile(tmp_path / "raw" / str(row.archive)) as archive:
            pixels = transform(decode(archive.read(str(row.member))))
        assert pixels.shape == (1, 128, 224) and 150 < pixels.mean() < 252


def test_labels_of_real_scans_are_what_this_rdkit_calls_their_molecules(shared: Path) -> None:
    labels = pd.read_csv(shared / "data" / "molecules" / "labels.csv").head(200)
    same = [identify(row.SMILES).inchi == row.InChI for row in labels.itertuples()]
    assert np.mean(same) > 0.99
