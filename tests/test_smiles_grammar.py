"""The grammar of SMILES: it accepts what RDKit writes, refuses what it cannot read, and never runs into a dead end."""

import csv
from pathlib import Path

import pytest
from test_grammars import first_refused, settings_of, untaught, walks

from captioning.chemistry import valid_share
from captioning.generation import generate
from captioning.grammars.smiles import Grammar
from captioning.tokens.smiles import _TOKEN
from captioning.vocabulary import EOS, MARKERS, Vocabulary

WORDS = [*"CNOPSFIBH()[]=#123456789+-./\\", "Cl", "Br", "Si", "Na", "%10", "@", "@@"]

TRUE = {
    "methane": "C",
    "benzene": "C1=CC=CC=C1",
    "naphthalene": "C1=CC=C2C=CC=CC2=C1",
    "cubane": "C12C3C4C1C1C2C3C41",
    "a spiro atom closes one ring and opens another": "C1CCC2(C1)CCCC2",
    "a number that an atom closes is not given anew by it": "CC12CC1CCCC2",
    "branches after each other": "CC(C)(C)O",
    "a branch within a branch": "CC(C(C)O)N",
    "nitro": "CC[N+](=O)[O-]",
    "sulfonamide": "CS(=O)(=O)N",
    "a nitrile": "CC#N",
    "a salt": "CC(=O)[O-].[Na+]",
    "quaternary": "C[N+](C)(C)C",
    "chiral": "C[C@@H](N)O",
    "an isotope": "[13CH3]C",
    "trans": "C/C=C/C",
    "hexafluorophosphate": "F[P-](F)(F)(F)(F)F",
    "perchlorate": "[O-][Cl+3]([O-])([O-])[O-]",
    "a proton": "[H+]",
}
UNTRUE = {
    "a fifth bond of carbon": "CC(C)(C)(",
    "a second bond of fluorine": "CFC",
    "a third bond of oxygen": "CO(",
    "a double bond to fluorine": "C=F",
    "a ring of two atoms": "C1C1",
    "an atom bound to itself": "C11",
    "the same two atoms bound twice": "C12CC12",
    "a triple bond that closes a ring": "C1CC#1",
    "two bonds in a row": "C==",
    "a parenthesis that nothing opens": "C)",
    "an empty parenthesis": "C()",
    "an end within a parenthesis": "CC(C$",
    "a branch that nothing follows": "CC(C)$",
    "an end within brackets": "C[N+$",
    "a bond that leads nowhere": "CC=$",
    "a ring that stays open": "C1CC$",
    "the last way to an open ring": "C1CCF",
    "the last way to two open rings": "C12CCCO1",
    "a number that is not the lowest": "C2",
    "a number behind a branch": "CC(C)1",
    "a charge without room for the bond": "C[H+",
    "more hydrogens than there is room for": "C[NH3]",
    "an element without brackets": "H",
    "an aromatic atom": "c",
}
"""Beginnings of which the last word, or the end (`$`), is refused, and all before it is allowed."""


def vocabulary() -> Vocabulary:
    return Vocabulary([*MARKERS, *WORDS, "c"], tokens="smiles")


def ids_of(text: str) -> list[int]:
    """Return the words of a SMILES, and the end where it is written."""
    words = vocabulary().words
    ids = [words.index(token) for token in _TOKEN.findall(text.removesuffix("$"))]
    return [*ids, EOS] if text.endswith("$") else ids


@pytest.mark.parametrize("name", TRUE)
def test_true_smiles_are_accepted_word_by_word(name: str):
    ids = ids_of(TRUE[name] + "$")
    place = first_refused(Grammar(vocabulary(), max_words=200), ids)
    assert place is None, f"refused behind {TRUE[name]!r}, word {place}"


def test_molecules_of_patents_are_accepted(shared: Path):
    with (shared / "data" / "molecules" / "labels.csv").open() as file:
        texts = [row["InChI"] for row in csv.DictReader(file)][::10]
    found = Vocabulary.build(texts, min_word_count=1, tokens="smiles")
    grammar = Grammar(found, max_words=400)
    spelled = [
        text for text in texts if "I" not in "".join(map(found.words.__getitem__, found.encode(text)[:1]))
    ]
    assert len(spelled) > 0.95 * len(texts)
    assert [text for text in spelled if first_refused(grammar, [*found.encode(text), EOS]) is not None] == []


@pytest.mark.parametrize("what", UNTRUE)
def test_what_is_no_smiles_is_refused(what: str):
    ids = ids_of(UNTRUE[what])
    assert first_refused(Grammar(vocabulary(), max_words=200), ids) == len(ids) - 1


@pytest.mark.parametrize("max_words", [2, 12, 30, 90])
def test_words_drawn_at_random_end_in_time_and_are_read(max_words: int):
    words = vocabulary()
    texts = [
        words.decode(ids) for ids in walks(Grammar(words, max_words=max_words), max_words, 60, max_words)
    ]
    assert valid_share(texts) > 0.85


def test_every_caption_of_a_search_keeps_to_the_grammar():
    words = vocabulary()
    decoder, features = untaught(len(words))
    method = {"method": "beam", "beam_width": 4, "length_normalisation": None}
    grammar = Grammar(words, max_words=40)
    for own in generate(decoder, features, words, settings_of(method, grammar="smiles", max_words=40)):
        for one in own:
            ids = [words.words.index(token) for token in one.words]
            assert first_refused(grammar, [*ids, EOS], 40) is None


def test_what_the_vocabulary_lacks_is_never_begun():
    poor = Vocabulary([*MARKERS, *"CNO1="], tokens="smiles")
    for ids in walks(Grammar(poor, max_words=30), 30, 20, 0):
        assert not {"(", "[", "."} & {poor.words[own] for own in ids}


def test_other_vocabularies_are_refused():
    with pytest.raises(
        ValueError, match=r"grammar smiles cannot follow preprocess\.tokens: inchi; it takes smiles"
    ):
        Grammar(Vocabulary([*MARKERS, "C"], tokens="inchi"), max_words=20)
    with pytest.raises(
        ValueError, match="cannot write SMILES, as it lacks C, or one of two parentheses: build"
    ):
        Grammar(Vocabulary([*MARKERS, "N", "O"], tokens="smiles"), max_words=20)
