from pathlib import Path

import pytest

from captioning.tokens.words import split as split_words
from captioning.vocabulary import BOS, EOS, MARKERS, PAD, UNK, Vocabulary


def test_words_are_lower_case_and_without_punctuation():
    assert split_words("A man's T-shirt, red (and 2 dogs)!") == [
        "a",
        "man's",
        "t-shirt",
        "red",
        "and",
        "2",
        "dogs",
    ]


def test_markers_come_first_then_words_by_count_then_alphabetically():
    vocabulary = Vocabulary.build(["b a c", "b c a", "b"], min_word_count=1)
    assert vocabulary.words == (*MARKERS, "b", "a", "c")
    assert (PAD, BOS, EOS, UNK) == (0, 1, 2, 3)


def test_rare_words_become_unk_and_markers_are_never_decoded():
    vocabulary = Vocabulary.build(["a dog", "a dog", "a cat"], min_word_count=2)
    ids = vocabulary.encode("A cat, a dog.")
    assert ids == [4, UNK, 4, 5]
    assert vocabulary.decode([BOS, *ids, EOS, PAD]) == "a a dog"


def test_saved_vocabulary_is_the_same_when_loaded(tmp_path: Path):
    vocabulary = Vocabulary.build(["ein Mädchen läuft"], min_word_count=1)
    vocabulary.save(tmp_path / "vocabulary.json")
    assert Vocabulary.load(tmp_path / "vocabulary.json").digest == vocabulary.digest


def test_no_frequent_word_is_refused_with_the_setting_to_change():
    with pytest.raises(ValueError, match=r"occurs 3 times or more; lower preprocess\.min_word_count"):
        Vocabulary.build(["a dog"], min_word_count=3)


@pytest.mark.parametrize("written", ["{}", "[]", '{"words": "abc"}', '{"words": [1]}', "null"])
def test_what_is_no_vocabulary_is_refused(written: str, tmp_path: Path):
    (tmp_path / "vocabulary.json").write_text(written)
    with pytest.raises(
        ValueError, match=r"vocabulary.json is no vocabulary, .*; restore it with `dvc checkout`"
    ):
        Vocabulary.load(tmp_path / "vocabulary.json")


def test_repeated_word_is_refused():
    with pytest.raises(ValueError, match="has each word once"):
        Vocabulary([*MARKERS, "a", "a"])
