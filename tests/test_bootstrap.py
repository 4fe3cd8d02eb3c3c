import math

import numpy as np
import pytest

from captioning import bootstrap
from captioning.metrics import Statistics, bleu, mean


def noisy(seed: int, num_images: int = 400, *, about: float = 0.5) -> np.ndarray:
    """Return scores of images that spread by 0.1."""
    return np.random.default_rng(seed).normal(about, 0.1, num_images)


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    values_B = noisy(0)
    low, high = bootstrap.intervals({"score": mean(values_B)}, num_samples=2000)["score"]
    error = values_B.std() / math.sqrt(len(values_B))
    assert low == pytest.approx(values_B.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values_B.mean() + 1.96 * error, abs=0.1 * error)


def test_nineteen_of_twenty_intervals_hold_the_truth():
    held = 0
    for seed in range(200):
        low, high = bootstrap.intervals({"score": mean(noisy(seed, 100))}, num_samples=300)["score"]
        held += low <= 0.5 <= high
    assert 0.90 <= held / 200 <= 0.99


def test_a_sample_scores_as_its_images_scored_together():
    """Also BLEU, which is no mean; drawn again here, by the same dice."""
    hypotheses = {"1": "a dog runs fast", "2": "a cat", "3": "two men on a bench"}
    references = {"1": ["a dog runs on grass"], "2": ["the cat sleeps"], "3": ["men sit on a bench"]}
    scores = bleu.score(hypotheses, references)
    samples = bootstrap.resample(scores, num_samples=20)
    drawn_RB = np.random.default_rng(bootstrap.SEED).integers(3, size=(20, 3))
    ids = [*hypotheses]
    for number, drawn in enumerate(drawn_RB):
        chosen = {f"{place}": ids[image] for place, image in enumerate(drawn)}
        again = bleu.score(
            {place: hypotheses[image_id] for place, image_id in chosen.items()},
            {place: references[image_id] for place, image_id in chosen.items()},
        )
        for name, own in again.items():
            assert samples[name][number] == pytest.approx(own.of_set)


def test_intervals_do_not_depend_on_how_many_samples_are_in_memory(monkeypatch: pytest.MonkeyPatch):
    whole = bootstrap.intervals({"score": mean(noisy(1))}, num_samples=250)
    monkeypatch.setattr(bootstrap, "CELLS_AT_ONCE", 4000)
    assert bootstrap.intervals({"score": mean(noisy(1))}, num_samples=250) == whole


def test_a_score_of_the_set_alone_has_no_interval():
    assert [*bootstrap.intervals({"distinct": 0.5, "score": mean([1.0, 2.0])}, num_samples=100)] == ["score"]


def test_a_constant_difference_is_sure_and_none_is_not():
    values_B = noisy(2)
    better, worse = {"score": mean(values_B + 0.01)}, {"score": mean(values_B)}
    sure = bootstrap.differences(better, worse, num_samples=1000)["score"]
    assert sure.value == pytest.approx(0.01)
    assert sure.interval == pytest.approx((0.01, 0.01))
    assert sure.p_value == pytest.approx(1 / 1001)
    none = bootstrap.differences(worse, worse, num_samples=1000)["score"]
    assert (none.value, none.interval, none.p_value) == (0, (0, 0), 1)


def test_a_difference_is_surer_when_both_models_find_the_same_images_hard():
    """The reason for drawing the same images for both: apart, the intervals of the two overlap."""
    hard_B = noisy(3) * 5
    first, second = (
        {"score": mean(hard_B + noisy(4, about=0.05))},
        {"score": mean(hard_B + noisy(5, about=0.0))},
    )
    own = [bootstrap.intervals(scores, num_samples=1000)["score"] for scores in (first, second)]
    assert own[0][0] < own[1][1]
    paired = bootstrap.differences(first, second, num_samples=1000)["score"]
    assert paired.interval[0] > 0
    assert paired.p_value < 0.001


def test_models_that_are_equally_good_differ_surely_once_in_twenty():
    p_values = [
        bootstrap.differences(
            {"score": mean(noisy(2 * seed, 100))}, {"score": mean(noisy(2 * seed + 1, 100))}, num_samples=300
        )["score"].p_value
        for seed in range(200)
    ]
    assert 0.01 <= np.mean(np.array(p_values) < 0.05) <= 0.10


def test_different_numbers_of_images_are_no_pair():
    with pytest.raises(AssertionError, match="both are of the same images"):
        bootstrap.differences({"score": mean([1.0, 2.0, 3.0])}, {"score": mean([1.0, 2.0])}, num_samples=10)


def test_one_image_has_no_interval_and_makes_no_difference():
    one, other = {"score": mean([1.0])}, {"score": mean([0.5])}
    assert bootstrap.intervals(one, num_samples=100) == {}
    assert bootstrap.differences(one, other, num_samples=100) == {}


def test_a_formula_is_given_all_samples_at_once():
    shapes = []

    def formula(sums_S: np.ndarray) -> np.ndarray:
        shapes.append(sums_S.shape)
        return sums_S[..., 0]

    bootstrap.intervals({"score": Statistics(of_images_BS=np.ones((7, 3)), formula=formula)}, num_samples=100)
    assert shapes == [(100, 3)]
