"""How sure a score is: percentile bootstrap over images, and the paired bootstrap between two models.

Images are drawn with replacement (Efron, 1979; of machine translation's scores Koehn, 2004). The statistics of the
images drawn are added up, so that nothing is scored again: 1,000 samples of 5,000 images take half a second. What was
counted over all images, such as CIDEr's document frequencies, stays as it was.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from captioning.metrics import Statistics

LEVEL = 0.95
MIN_IMAGES = 2
"""Samples of a single image are all alike, and say nothing of how sure its score is."""
SEED = 0
CELLS_AT_ONCE = 2_000_000
"""Samples x images whose weights are in memory together: 16 MB."""

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One model's score less another's, on the same images."""

    value: float
    of: tuple[float, float]
    """Both scores."""
    interval: Interval
    """95 %, of the paired bootstrap."""
    p_value: float
    """Two-sided: how often so large a difference arises by the choice of images where there is none."""


def intervals(scores: Mapping[str, Statistics | float], *, num_samples: int) -> dict[str, Interval]:
    """Return the 95 % interval of each score that has statistics of two images at least, by score name."""
    of_samples = resample(scores, num_samples=num_samples)
    return {name: _interval(values_R) for name, values_R in of_samples.items()}


def differences(
    first: Mapping[str, Statistics | float], second: Mapping[str, Statistics | float], *, num_samples: int
) -> dict[str, Difference]:
    """Return first less second of each score that both have statistics of; both are of the same images, in one order.

    Of less than two images there is no difference.
    Each sample draws the same images for both. The p-value is that of Riezler and Maxwell (2005): the share of samples
    whose difference lies as far from the mean of all samples as the observed one lies from 0.
    """
    shared = [name for name in first if name in second]
    samples = [
        resample({name: own[name] for name in shared}, num_samples=num_samples) for own in (first, second)
    ]
    found = {}
    for name in samples[0]:
        if name not in samples[1]:
            continue
        one, other = first[name], second[name]
        assert isinstance(one, Statistics) and isinstance(other, Statistics)
        assert len(one.of_images_BS) == len(other.of_images_BS), "both are of the same images"
        difference_R, of = samples[0][name] - samples[1][name], (one.of_set, other.of_set)
        value = of[0] - of[1]
        is_as_far_R = np.abs(difference_R - difference_R.mean()) >= abs(value)
        found[name] = Difference(
            value=value,
            of=of,
            interval=_interval(difference_R),
            p_value=float((is_as_far_R.sum() + 1) / (num_samples + 1)),
        )
    return found


def resample(scores: Mapping[str, Statistics | float], *, num_samples: int) -> dict[str, np.ndarray]:
    """Return the score of R bootstrap samples of the images, by score name, of each score that has statistics.

    Scores of equally many images are of the same samples; those of less than two images are left out.
    """
    with_statistics = {
        name: own
        for name, own in scores.items()
        if isinstance(own, Statistics) and len(own.of_images_BS) >= MIN_IMAGES
    }
    tables = {id(own.of_images_BS): own.of_images_BS for own in with_statistics.values()}
    sums = {
        key: np.concatenate([weights_RB @ table_BS for weights_RB in _weights(num_samples, len(table_BS))])
        for key, table_BS in tables.items()
    }
    return {name: own.formula(sums[id(own.of_images_BS)]) for name, own in with_statistics.items()}


def _weights(num_samples: int, num_images: int) -> Iterator[np.ndarray]:
    """Yield how often each image is in each sample, some samples at a time, float64."""
    dice = np.random.default_rng(SEED)
    at_once = max(1, CELLS_AT_ONCE // num_images)
    for start in range(0, num_samples, at_once):
        num_rows = min(at_once, num_samples - start)
        drawn_RB = dice.integers(num_images, size=(num_rows, num_images))
        drawn_RB += np.arange(num_rows)[:, np.newaxis] * num_images
        counts = np.bincount(drawn_RB.ravel(), minlength=num_rows * num_images)
        yield counts.reshape(num_rows, num_images).astype(np.float64)


def _interval(values_R: np.ndarray) -> Interval:
    low, high = np.quantile(values_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
