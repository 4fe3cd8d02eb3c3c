"""Each way of cutting captions into tokens: it finds its captions again, and what it cannot cut it says."""

from types import ModuleType

import pytest

from captioning import lookup
from captioning.chemistry import smiles_of_inchi
from captioning.cleaning.captions import CaptionLimits, judge
from captioning.tokens import module_of
from captioning.vocabulary import EOS, MARKERS, UNK, Vocabulary

INCHI = [own for name in ("inchi", "smiles") for own in module_of(name).EXAMPLES]
ODD = "InChI=1S/C7H6ClN3O4S2/c8-4-1-5-7(2-6(4)16(9,12)13)17(14,15)11-3-10-5/h1-3H,(H2,9,12,13)(H,10,11,14,15)"
"""RDKit reads it and writes another one: its mobile hydrogens are fewer."""


@pytest.fixture(params=lookup.names("tokens"))
def tokens(request: pytest.FixtureRequest) -> ModuleType:
    return lookup.find("tokens", request.param)


def test_tokens_make_their_caption_again(tokens: ModuleType):
    for caption in tokens.EXAMPLES:
        written = tokens.join(tokens.split(caption))
        assert tokens.split(written) == tokens.split(caption)
        assert written == caption or not tokens.IS_EXACT


def test_tokens_have_a_place_in_a_vocabulary(tokens: ModuleType):
    every = [token for caption in tokens.EXAMPLES for token in tokens.split(caption)]
    assert every
    assert all(token and len(token.splitlines()) == 1 for token in every)
    assert not {*every} & {*MARKERS}


def test_spelled_tokens_follow_each_other(tokens: ModuleType):
    for caption in tokens.EXAMPLES:
        spelled = tokens.join([]) + "".join(tokens.split(caption))
        assert not tokens.IS_SPELLED or spelled == caption


def test_what_is_written_of_any_tokens_can_be_cut(tokens: ModuleType):
    for caption in tokens.EXAMPLES:
        words = tokens.split(caption)
        for some in ([], words[:1], words[1:], words[::-1]):
            tokens.split(tokens.join(some))


def test_a_vocabulary_finds_captions_again_after_it_was_saved(tokens: ModuleType, tmp_path):
    name = tokens.__name__.rpartition(".")[2]
    vocabulary = Vocabulary.build(tokens.EXAMPLES, min_word_count=1, tokens=name)
    vocabulary.save(tmp_path / "vocabulary.json")
    loaded = Vocabulary.load(tmp_path / "vocabulary.json")
    assert (loaded.words, loaded.tokens, loaded.digest) == (vocabulary.words, name, vocabulary.digest)
    for caption in tokens.EXAMPLES:
        assert UNK not in loaded.encode(caption)
        assert loaded.decode([*loaded.encode(caption), EOS]) == tokens.join(tokens.split(caption))


def test_equal_words_of_other_tokens_are_another_vocabulary():
    words = [*MARKERS, "C"]
    assert len({Vocabulary(words, tokens=name).digest for name in lookup.names("tokens")}) == len(
        lookup.names("tokens")
    )


def test_a_file_without_a_name_is_of_words(tmp_path):
    path = tmp_path / "vocabulary.json"
    path.write_text('{"words": ["<pad>", "<bos>", "<eos>", "<unk>", "dog"]}')
    assert Vocabulary.load(path).tokens == "words"
    Vocabulary.load(path).save(path)
    assert "tokens" not in path.read_text(), "files of words are what they were"


def test_unknown_tokens_in_a_file_are_refused(tmp_path):
    path = tmp_path / "vocabulary.json"
    path.write_text('{"tokens": "syllables", "words": ["<pad>", "<bos>", "<eos>", "<unk>"]}')
    with pytest.raises(
        ValueError, match=r"vocabulary\.json names the tokens 'syllables', expected one of charac"
    ):
        Vocabulary.load(path)


def test_inchi_is_cut_into_elements_numbers_layers_and_punctuation():
    assert module_of("inchi").split("InChI=1S/C10H9Cl/c1-2(3)4/t10-;12+/m10./s1/i2D") == [
        *(
            "C",
            "10",
            "H",
            "9",
            "Cl",
            "/c",
            "1",
            "-",
            "2",
            "(",
            "3",
            ")",
            "4",
            "/t",
            "10",
            "-",
            ";",
            "12",
            "+",
        ),
        *("/m", "1", "0", ".", "/s", "1", "/i", "2", "D"),
    ]


@pytest.mark.parametrize("caption", ["ethanol", "InChI=1/CH4/h1H4", "InChI=1S/CH4 /h1H4"])
def test_other_text_is_no_inchi(caption: str):
    with pytest.raises(ValueError, match=r"is no standard InChI, which begins with 'InChI=1S/'.*characters"):
        module_of("inchi").split(caption)


def test_smiles_are_cut_into_atoms_bonds_rings_and_brackets():
    assert module_of("smiles").split("InChI=1S/C2H4ClF/c1-2(3)4/h2H,1H3/t2-/m0/s1") == [
        *("C", "[", "C", "@", "H", "]", "(", "F", ")", "Cl")
    ]
    assert module_of("smiles").split("InChI=1S/ClH.Na/h1H;/q;+1/p-1") == [
        "[",
        "Cl",
        "-",
        "]",
        ".",
        "[",
        "Na",
        "+",
        "]",
    ]


def test_a_caption_that_smiles_do_not_lead_back_to_is_cut_into_characters():
    assert smiles_of_inchi(ODD) is None
    assert module_of("smiles").join(module_of("smiles").split(ODD)) == ODD


def test_smiles_that_cannot_be_read_stay_what_they_are():
    assert module_of("smiles").join(["C", "(", "C"]) == "C(C"


def test_captions_that_are_smiles_are_refused():
    with pytest.raises(
        ValueError, match=r"'CCO' is SMILES, and these tokens are for captions that are InChI"
    ):
        module_of("smiles").split("CCO")


def test_a_caption_of_two_lines_has_no_characters():
    with pytest.raises(ValueError, match="has a line break, and a caption is one line"):
        module_of("characters").split("a\nb")


@pytest.mark.parametrize("caption", INCHI)
def test_cleaning_leaves_inchi_as_it_is(caption: str):
    for script in (None, "LATIN"):
        limits = CaptionLimits(max_caption_words=1, script=script)
        assert judge(caption, limits) == (caption, "", "", "")
