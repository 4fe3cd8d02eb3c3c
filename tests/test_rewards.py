"""The reward against coco-caption's scorer, and against values worked out by hand."""

import math
import random

import numpy as np
import pytest
from pycocoevalcap.cider.cider import Cider

from captioning.rewards import CiderReward
from captioning.vocabulary import EOS, MARKERS, UNK, Vocabulary

WORDS = ("a", "dog", "runs", "on", "the", "beach", "cat", "sits")
VOCABULARY = Vocabulary([*MARKERS, *WORDS])


def _ended(caption: str) -> list[int]:
    return [*VOCABULARY.encode(caption), EOS]


def _random_caption(dice: random.Random, words: tuple[str, ...], longest: int) -> str:
    return " ".join(dice.choices(words, k=dice.randint(0, longest)))


def test_rewards_equal_coco_captions_scorer_on_the_whole_train_split():
    dice = random.Random(0)
    references = {
        f"{number}": [_random_caption(dice, (*WORDS, "unheard"), 14) for _ in range(dice.randint(1, 7))]
        for number in range(600)  # more than are counted at once
    }
    words_BK = [[_ended(_random_caption(dice, WORDS, 9)) for _ in range(3)] for _ in references]
    for number, own in enumerate(words_BK):
        own[0] = own[0][:-1]  # cut, some to nothing
        own[1] = _ended(references[str(number)][0].replace("unheard", "a"))  # near
    rewards_BK = CiderReward(references, VOCABULARY)([*references], words_BK)

    def text(words: list[int]) -> str:
        return " ".join(map(str, words))

    truth = {image_id: [text(_ended(own)) for own in captions] for image_id, captions in references.items()}
    for column in range(3):
        hypotheses = {image_id: [text(own[column])] for image_id, own in zip(truth, words_BK, strict=True)}
        _, expected = Cider().compute_score(truth, hypotheses)
        np.testing.assert_allclose(rewards_BK[:, column], expected, atol=1e-9)
    assert rewards_BK.max() > 5


def test_a_small_reward_is_as_worked_out_by_hand():
    reward = CiderReward({"left": ["dog runs"], "right": ["cat sits"]}, VOCABULARY)
    ended, broken_off = reward(["left"], [[_ended("dog runs"), VOCABULARY.encode("dog runs")]])[0]
    # idf is log 2 but for <eos>, which both images have; there are no four words, so one cosine of four is 0.
    assert ended == pytest.approx(10 * (1 + 1 + 1 + 0) / 4)
    # Of the reference's bigrams only one, of its trigrams none; one word shorter.
    assert broken_off == pytest.approx(10 * (1 + 1 / math.sqrt(2) + 0 + 0) / 4 * math.exp(-1 / (2 * 36)))


def test_a_reference_itself_is_worth_most():
    dice, caption = random.Random(1), "a dog runs on the beach"
    reward = CiderReward({"dog": [caption], "cat": ["the cat sits"]}, VOCABULARY)
    others = [_ended(_random_caption(dice, WORDS, 8)) for _ in range(200)]
    rewards = reward(["dog"], [[_ended(caption), *(own for own in others if own != _ended(caption))]])[0]
    assert rewards[0] == pytest.approx(10)
    assert rewards[1:].max() < 10


def test_document_frequencies_are_those_of_all_train_images_whatever_is_in_the_batch():
    dice = random.Random(2)
    references = {f"{number}": [_random_caption(dice, WORDS, 8) for _ in range(2)] for number in range(20)}
    words_BK = [[_ended(captions[0]), _ended("a cat")] for captions in references.values()]
    reward = CiderReward(references, VOCABULARY)
    together = reward([*references], words_BK)
    for position, image_id in enumerate(references):
        alone = reward([image_id], words_BK[position : position + 1])
        np.testing.assert_allclose(alone[0], together[position], rtol=1e-12)
    assert together.max() > 1  # coco-caption's scorer gives one image alone 0


def test_a_reference_longer_than_training_reads_is_matched_to_its_end():
    caption = " ".join(random.Random(3).choices(WORDS, k=40))
    reward = CiderReward({"long": [caption], "short": ["the cat sits"]}, VOCABULARY)
    whole, cut = reward(["long"], [[_ended(caption), [*_ended(caption)[:24], EOS]]])[0]
    assert whole == pytest.approx(10) and cut < 0.5 * whole


def test_a_word_that_the_vocabulary_lacks_is_out_of_reach():
    reward = CiderReward({"dog": ["a zebra runs on the beach"], "cat": ["the cat sits"]}, VOCABULARY)
    without, other = reward(["dog"], [[_ended("a runs on the beach"), _ended("a dog runs on the beach")]])[0]
    with_unk = reward(["dog"], [[[UNK if word == 5 else word for word in _ended("a dog runs on the beach")]]])
    assert with_unk == pytest.approx(10)  # so it counts; but no model says it
    assert without < 8 and other < 8


def test_images_without_captions_and_vocabularies_beyond_16_bits_are_refused():
    with pytest.raises(ValueError, match=r"1 train images have no reference caption, such as \['b'\]"):
        CiderReward({"a": ["a dog"], "b": []}, VOCABULARY)
    large = Vocabulary([*MARKERS, *map(str, range(65_532))])
    with pytest.raises(ValueError, match=r"fewer than 65,536 words, this one has 65,536: raise preprocess"):
        CiderReward({"a": ["a dog"]}, large)
