"""The grammar of InChI: it accepts what is true, refuses what is not, and never runs into a dead end."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_decoders import SETTINGS

from captioning.chemistry import valid_share
from captioning.decoders.soft_attention import Decoder, Settings
from captioning.generation import PLAIN_BEAM, GenerationSettings, generate, read_settings
from captioning.generation.grammar import GrammarConstraint
from captioning.grammars.inchi import PREFIX, Grammar
from captioning.vocabulary import EOS, MARKERS, Vocabulary

MOLECULES = {
    "methane": "CH4/h1H4",
    "ethanol": "C2H6O/c1-2-3/h3H,2H2,1H3",
    "benzene": "C6H6/c1-2-4-6-5-3-1/h1-6H",
    "cubane": "C8H8/c1-2-5-3(1)7-4(1)6(2)8(5)7/h1-8H",
    "hydrogen": "H2/h1H",
    "oxygen": "O2/c1-2",
    "iron": "Fe",
    "hydrogen chloride": "ClH/h1H",
    "formic acid": "CH2O2/c2-1-3/h1H,(H,2,3)",
    "urea": "CH4N2O/c2-1(3)4/h(H4,2,3,4)",
    "guanidine and a carboxyl": "C4H9N3O2/c5-4(6)7-2-1-3(8)9/h1-2H2,(H,8,9)(H4,5,6,7)",
    "chiral": "C2H4ClF/c1-2(3)4/h2H,1H3/t2-/m0/s1",
    "meso": "C4H6O6/c5-1(3(7)8)2(6)4(9)10/h1-2,5-6H,(H,7,8)(H,9,10)/t1-,2+",
    "trans": "C4H8/c1-3-4-2/h3-4H,1-2H3/b4-3+",
    "allene": "C5H8/c1-3-5-4-2/h3-4H,1-2H3/t5-/m0/s1",
    "quaternary": "C4H12N/c1-5(2,3)4/h1-4H3/q+1",
    "nitrogen oxide": "C3H9NO/c1-4(2,3)5/h1-3H3",
    "acetate": "C2H4O2/c1-2(3)4/h1H3,(H,3,4)/p-1",
    "ammonium": "H3N/h1H3/p+1",
    "sulfate with a mobile charge": "H2O4S/c1-5(2,3)4/h(H2-,1,2,3,4)/p-1",
    "salt": "ClH.Na/h1H;/q;+1/p-1",
    "two salts": "C10H10N2S.2ClH/c11-7-8-4-5-10(13-8)9-3-1-2-6-12-9;;/h1-6H,7,11H2;2*1H",
    "three ions": "C6H6.2K.Mg/c1-2-4-6-5-3-1;;;/h1-6H;;;/q;2*+1;+2",
    "two of a kind": "2C3H7NO2.H3O4P/c2*1-2(4)3(5)6;1-5(2,3)4/h2*2H,4H2,1H3,(H,5,6);(H3,1,2,3,4)/t2*2-;/m10./s1",
    "meso beside chiral": "C3H6O3.C4H6O6/c1-2(4)3(5)6;5-1(3(7)8)2(6)4(9)10/h2,4H,1H3,(H,5,6);1-2,5-6H,(H,7,8)"
    "(H,9,10)/t2-;1-,2+/m0./s1",
    "carbon 13": "CH4/h1H4/i1+1",
    "deuterium": "CH3Cl/c1-2/h1H3/i1D3",
    "tritium and deuterium": "CH3Cl/c1-2/h1H3/i1+1TD",
    "heavy water": "H2O/h1H2/i/hD2",
    "isotopic centre": "C2H6O/c1-2-3/h3H,2H2,1H3/i2D/t2-/m1/s1",
    "hexafluorophosphate": "F6P/c1-7(2,3,4,5)6/q-1",
    "diphenyl sulfoxide": "C12H10OS/c13-14(11-7-3-1-4-8-11)12-9-5-2-6-10-12/h1-10H",
}
"""Worked out, or looked up, one by one."""
UNTRUE = {
    "elements not in Hill order": "H4C",
    "an element twice": "OO",
    "no element": "C2Xx",
    "more hydrogens than there is room for": "C2H7/",
    "a layer before its turn": "C2H6O/h",
    "hydrogens without their layer": "CH4$",
    "a connection missing": "C2H6O/c1-2$",
    "an atom that the formula lacks": "C2H6O/c1-4",
    "an atom bonded to itself": "C2H6O/c1-1",
    "a bond twice": "C6H6/c1-2-1",
    "a fifth bond of carbon": "C6H12/c1-6(2,3,4,5",
    "a second bond of fluorine": "C2H5F/c1-3-2",
    "a parenthesis that nothing follows": "C2H6O/c1-2(3)/h",
    "a parenthesis that stays open": "C3H8O/c1-2(3-4/h",
    "a range downwards": "C2H6/c1-2/h2-1",
    "an atom in two groups": "C2H6O/c1-2-3/h3H,3",
    "groups that fall": "C2H6O/c1-2-3/h1H3,2",
    "too few hydrogens": "C2H6O/c1-2-3/h3H,2H2$",
    "too many hydrogens of an atom": "C2H6O/c1-2-3/h3H2",
    "mobile hydrogens of one atom": "C2H4O2/c1-2(3)4/h1H3,(H,3)",
    "mobile hydrogens of carbon": "C2H4O2/c1-2(3)4/h1H3,(H,1",
    "stereo of no bond": "C4H8/c1-3-4-2/h3-4H,1-2H3/b4-1",
    "a stereo bond upwards": "C4H8/c1-3-4-2/h3-4H,1-2H3/b3-4",
    "a centre with two neighbours": "C3H8/c1-3-2/h3H2,1-2H3/t3",
    "centres that fall": "C4H6O6/c5-1(3(7)8)2(6)4(9)10/h1-2,5-6H,(H,7,8)(H,9,10)/t2+,1",
    "a sign without centres": "CH4/h1H4/m0",
    "a sign without its kind": "C2H4ClF/c1-2(3)4/h2H,1H3/t2-/m0$",
    "a component too few": "ClH.Na/h1H/q",
    "a component too many": "ClH.Na/h1H;;",
    "a multiplier of components that differ": "C2H6O.C3H8O/c2*1",
    "more protons removed than there are": "ClH/h1H/p-2",
    "more deuterium than hydrogen": "CH3Cl/c1-2/h1H3/i1D4",
    "a charge before the hydrogens": "CH4/q",
}
"""Beginnings of which the last character, or the end (`$`), is refused, and all before it is allowed."""


def captions() -> list[str]:
    return [PREFIX + own for own in MOLECULES.values()]


def vocabulary(tokens: str) -> Vocabulary:
    everything = [*captions(), *(PREFIX + str(number) for number in range(100)), PREFIX + "BBrFIPSiSe-?T"]
    return Vocabulary.build(everything, min_word_count=1, tokens=tokens)


@pytest.fixture(scope="module", params=["inchi", "characters"])
def words(request: pytest.FixtureRequest) -> Vocabulary:
    return vocabulary(request.param)


def first_refused(grammar: Grammar, ids: list[int], max_words: int = 2000) -> int | None:
    """Return the place of the first id that the grammar does not allow."""
    state = grammar.start
    for place, word in enumerate(ids):
        if not grammar.allowed(state, max_words - place)[word]:
            return place
        if word != EOS:
            state = grammar.advance(state, word)
    return None


def walks(grammar: Grammar, max_words: int, count: int, seed: int) -> Iterator[list[int]]:
    """Yield captions of words drawn evenly among those allowed."""
    dice = np.random.default_rng(seed)
    for _ in range(count):
        state, ids = grammar.start, []
        while not ids or ids[-1] != EOS:
            is_allowed = grammar.allowed(state, max_words - len(ids))
            assert is_allowed.any(), f"a dead end behind {ids}"
            ids.append(int(dice.choice(np.flatnonzero(is_allowed))))
            if ids[-1] != EOS:
                state = grammar.advance(state, ids[-1])
        assert len(ids) <= max_words
        yield ids[:-1]


# What is true


@pytest.mark.parametrize("name", MOLECULES)
def test_a_true_inchi_is_accepted_word_by_word(name: str, words: Vocabulary):
    ids = words.encode(PREFIX + MOLECULES[name])
    place = first_refused(Grammar(words, max_words=2000), [*ids, EOS])
    assert place is None, f"refused behind {words.decode(ids[:place])}"


def test_true_inchi_of_patents_are_accepted(words: Vocabulary, shared: Path):
    with (shared / "data" / "molecules" / "labels.csv").open() as file:
        texts = [row["InChI"] for row in csv.DictReader(file)][::25]
    found = Vocabulary.build([*texts, *captions()], min_word_count=1, tokens=words.tokens)
    grammar = Grammar(found, max_words=2000)
    assert [text for text in texts if first_refused(grammar, [*found.encode(text), EOS]) is not None] == []


# What is not


@pytest.mark.parametrize("what", UNTRUE)
def test_what_is_untrue_is_refused(what: str):
    characters = vocabulary("characters")
    text = UNTRUE[what]
    ids = characters.encode(PREFIX + text.removesuffix("$")) + ([EOS] if text.endswith("$") else [])
    place = first_refused(Grammar(characters, max_words=2000), ids)
    assert place is not None
    assert place >= len(PREFIX)


def test_of_texts_with_one_character_changed_most_are_refused():
    characters = vocabulary("characters")
    grammar, dice = Grammar(characters, max_words=2000), np.random.default_rng(0)
    num_refused = num_changed = 0
    for text in [PREFIX + own for own in MOLECULES.values() if len(own) > 20] * 4:
        ids = characters.encode(text)
        place = int(dice.integers(len(PREFIX), len(ids)))
        changed = [*ids[:place], int(dice.integers(len(MARKERS), len(characters))), *ids[place + 1 :], EOS]
        num_changed += changed[:-1] != ids
        num_refused += first_refused(grammar, changed) is not None
    assert num_refused > 0.85 * num_changed


# What is never run into


@pytest.mark.parametrize("max_words", [40, 90, 250])
def test_words_drawn_at_random_end_in_time(words: Vocabulary, max_words: int):
    texts = [
        words.decode(ids) for ids in walks(Grammar(words, max_words=max_words), max_words, 40, max_words)
    ]
    assert valid_share(texts) > 0.2  # about a half of many


def test_a_whole_inchi_may_be_all_that_is_left_of_the_words():
    whole = vocabulary("inchi")
    [ids] = walks(Grammar(whole, max_words=3), 3, 1, 0)
    assert len(ids) <= 2


def test_what_the_vocabulary_lacks_is_never_begun():
    poor = Vocabulary.build([PREFIX + "C4H9O2/c1-2(3)4,/hN5678"], min_word_count=1, tokens="inchi")
    for ids in walks(Grammar(poor, max_words=120), 120, 30, 0):
        text = poor.decode(ids)
        assert "." not in text and "/q" not in text and "/t" not in text


def test_other_vocabularies_are_refused():
    with pytest.raises(
        ValueError, match=r"grammar inchi cannot follow preprocess\.tokens: words.*inchi or charac"
    ):
        Grammar(Vocabulary([*MARKERS, "dog"]), max_words=20)
    with pytest.raises(
        ValueError, match=r"lacks .*/h.*1, any element: build it from captions that are InChI"
    ):
        Grammar(Vocabulary([*MARKERS, "d", "o", "g"], tokens="inchi"), max_words=20)


# In a search


SETTINGS_OF = [
    {"method": "beam", "beam_width": 4, "length_normalisation": None},
    {
        "method": "diverse_beam",
        "beam_width": 4,
        "num_groups": 2,
        "diversity_penalty": 0.5,
        "length_normalisation": {"name": "average", "alpha": 1.0},
    },
    {"method": "sample", "num_samples": 4, "temperature": 1.0, "top_k": 5, "top_p": 0.9, "seed": 0},
]


def settings_of(method: dict[str, Any], **changes: Any) -> GenerationSettings:
    shared = PLAIN_BEAM.model_dump(exclude={"method", "beam_width", "length_normalisation"})
    return read_settings(shared | method | {"max_words": 80, "grammar": "inchi"} | changes)


def untaught(num_words: int) -> tuple[Decoder, torch.Tensor]:
    torch.manual_seed(0)
    settings = Settings.model_validate({"name": "soft_attention"} | SETTINGS["soft_attention"])
    decoder = Decoder(settings, feature_dim=8, vocabulary_size=num_words).eval()
    return decoder, torch.rand(3, 4, 8)


@pytest.mark.parametrize("method", SETTINGS_OF, ids=lambda method: method["method"])
def test_every_caption_of_every_method_keeps_to_the_grammar(method: dict[str, Any], words: Vocabulary):
    decoder, features = untaught(len(words))
    grammar = Grammar(words, max_words=80)
    for own in generate(decoder, features, words, settings_of(method)):
        for one in own:
            ids = [words.words.index(token) for token in one.words]
            assert first_refused(grammar, [*ids, EOS], 80) is None
    free = generate(decoder, features, words, settings_of(method, grammar="none"))
    assert any(
        first_refused(grammar, [*words.encode(own[0].text), EOS]) is not None for own in free if own[0].text
    )


def test_the_grammar_forbids_and_changes_no_other_score(words: Vocabulary):
    scores = torch.rand(2, len(words))
    kept = scores.clone()
    GrammarConstraint("inchi", words, max_words=80)(scores, torch.empty(2, 0, dtype=torch.long))
    is_allowed = ~scores.isneginf()
    assert 0 < int(is_allowed.sum()) < scores.numel()
    assert torch.equal(scores[is_allowed], kept[is_allowed])


@pytest.mark.parametrize(
    "changes",
    [{"min_words": 2}, {"no_repeat_ngram": 3}, {"bad_endings": ["H"]}],
    ids=lambda own: next(iter(own)),
)
def test_nothing_else_decides_which_words_may_come(changes: dict[str, Any]):
    with pytest.raises(ValueError, match="grammar: inchi decides alone which words may come"):
        PLAIN_BEAM.replaced(grammar="inchi", **changes)


def test_an_unknown_grammar_is_refused():
    with pytest.raises(ValueError, match="no grammar 'latin'; available: none, inchi, smiles"):
        PLAIN_BEAM.replaced(grammar="latin")


def test_settings_of_models_registered_before_there_were_grammars_are_read():
    old = PLAIN_BEAM.model_dump(exclude={"grammar", "rerank"})
    assert read_settings(old) == PLAIN_BEAM
