"""The n-gram model of captions: worked out by hand, and a probability whatever it is asked."""

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from captioning.language_model import FILE, LanguageModel, LanguageModelSettings
from captioning.vocabulary import MARKERS

A, B, C = range(len(MARKERS), len(MARKERS) + 3)
NUM_WORDS = len(MARKERS) + 3
CAPTIONS = [[A, B], [A, B], [A, C], [B], [A, B, C, C]]


def learned(order: int, min_count: int = 1) -> LanguageModel:
    return LanguageModel.learn(CAPTIONS, NUM_WORDS, LanguageModelSettings(order=order, min_count=min_count))


def test_words_alone_are_counted_and_discounted():
    # A 4, B 4, C 3, <eos> 5: no count of 1, so the discount is 1/2, and 4 x 1/2 of 16 go evenly to four words.
    expected = [(count - 0.5) / 16 + (2 / 16) / 4 for count in (4, 5)]
    [score] = learned(1).log_probabilities([[A]])
    assert score == pytest.approx(sum(map(math.log, expected)))


def test_a_longer_model_falls_back_on_how_many_words_a_word_follows():
    # Behind <bos>: A 4 times and B once, of 5. Pairs: counts 1 three times, 2 once; discount 3 / (3 + 2) = 0.6.
    # Of the 9 different pairs 2 end in A or B each, 2 in C and 3 in <eos>: the order below counts these.
    pairs = {(1, A), (1, B), (A, B), (A, C), (B, 2), (B, C), (C, C), (C, 2)}
    different = {word: sum(last == word for _, last in pairs) for word in (A, B, C, 2)}
    below_discount = sum(own == 1 for own in different.values()) / (
        sum(own == 1 for own in different.values()) + 2 * sum(own == 2 for own in different.values())
    )
    below = (different[A] - below_discount) / 8 + (4 * below_discount / 8) / 4
    counts = [4, 1, 3, 1, 3, 1, 1, 2]  # of the pairs, in their order
    discount = counts.count(1) / (counts.count(1) + 2 * counts.count(2))
    expected = (4 - discount) / 5 + (2 * discount / 5) * below
    model = learned(2)
    assert math.exp(_after(model, [], A)) == pytest.approx(expected)


def _after(model: LanguageModel, before: list[int], word: int) -> float:
    """Return the log-probability of a word, as the difference of two captions' beginnings."""
    words = np.array([1, *before, word])
    return float(model._of_words(words, np.arange(len(words)))[-1])


@pytest.mark.parametrize(("order", "min_count"), [(1, 1), (2, 1), (3, 1), (3, 2), (5, 2)])
def test_after_any_words_the_probabilities_sum_to_one(order: int, min_count: int):
    model = learned(order, min_count)
    for length in range(4):
        for before in product((A, B, C), repeat=length):
            total = sum(math.exp(_after(model, [*before], word)) for word in (A, B, C, 2))
            assert total == pytest.approx(1)


def test_captions_like_those_learned_are_more_probable():
    usual, odd = learned(3).log_probabilities([[A, B], [C, A]])
    assert usual > odd


def test_captions_are_scored_each_by_itself():
    model, captions = learned(3), [[A], [], [B, C, A, A], [C]]
    assert model.log_probabilities(captions) == [model.log_probabilities([own])[0] for own in captions]
    assert model.log_probabilities([]) == []


def test_a_saved_model_gives_the_same_and_equal_models_are_equal_bytes(tmp_path: Path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        learned(3, 2).save(tmp_path / name)
    assert (tmp_path / "one" / FILE).read_bytes() == (tmp_path / "other" / FILE).read_bytes()
    loaded = LanguageModel.load(tmp_path / "one")
    assert loaded.log_probabilities(CAPTIONS) == learned(3, 2).log_probabilities(CAPTIONS)
    assert LanguageModel.load(tmp_path) is None


def test_a_damaged_file_is_refused(tmp_path: Path):
    (tmp_path / FILE).write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"language_model\.safetensors is no language model"):
        LanguageModel.load(tmp_path)


def test_what_cannot_be_learned_is_refused():
    with pytest.raises(ValueError, match=r"order: 12 is too long for a vocabulary of 1000 words; at most 6"):
        LanguageModel.learn(CAPTIONS, 1000, LanguageModelSettings(order=12, min_count=1))
    with pytest.raises(ValueError, match="learns from train captions, and there are none"):
        LanguageModel.learn([], NUM_WORDS, LanguageModelSettings(order=2, min_count=1))
