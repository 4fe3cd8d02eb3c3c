"""Scores of captions; one module a metric, chosen by `evaluate.metrics`.

Each module has

- `HIGHER_IS_BETTER: bool`;
- `score(...) -> dict[str, Statistics | float]`, by score name (`bleu_4`, `cider`, ...), a fraction where papers print
  percents (CIDEr 1.31 is the papers' 131). Names begin with the module's.

`score` takes what it reads, by name, out of `READABLE`. Most metrics compare a caption with its references and average
over images, which is all that a new one needs to say:

    def score(hypotheses: dict[str, str], references: dict[str, list[str]]) -> dict[str, Statistics | float]:
        return {"same_start": mean(any(map(text.startswith, references[i])) for i, text in hypotheses.items())}

`mean` makes `Statistics`: numbers of each image whose sums give the score, so that the score of any part of the images,
or of a bootstrap sample of them, is had without scoring again. A score that is no function of such sums is a plain
number: it is of the whole set, and neither images nor slices have one.

A module may also have

- `check()`, which raises an error where something is missing, before any image is decoded;
- `WITHOUT_DIRECTION`, the names of its scores of which neither more nor less is better.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from math import fsum
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

from captioning import lookup

READABLE = {
    "hypotheses": "dict[image_id, str]: tokenized, words joined by single spaces",
    "references": "dict[image_id, list[str]]: tokenized",
    "raw_hypotheses": "dict[image_id, str]: as the model wrote them",
    "raw_references": "dict[image_id, list[str]]: as the data set has them",
    "train_references": "dict[image_id, list[str]]: raw, of the images that the model was trained on",
    "vocabulary": "captioning.vocabulary.Vocabulary: of the model",
    "likelihoods": "dict[image_id, captioning.records.Likelihood]: of the references, given the image",
}
"""What `score` may ask for, by the name of its parameter. All are of the same images, and all but `references` and
`train_references` in the order of the hypotheses; the order does not change a score of the set."""
TOKENIZED = frozenset({"hypotheses", "references"})


def _known(names: list[str]) -> list[str]:
    for name in names:
        lookup.find("metrics", name)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{', '.join(twice)} is named more than once in {names}; name each metric once")
    return names


MetricNames = Annotated[list[str], Field(min_length=1), AfterValidator(_known)]
"""Names of modules in captioning/metrics, in settings."""


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """A score of B images as S numbers of each, whose sums over any images give the score of those images."""

    of_images_BS: np.ndarray
    formula: Callable[[np.ndarray], np.ndarray]
    """Sums ...S -> scores ...; of an image's own numbers it gives the image's score."""

    @property
    def of_set(self) -> float:
        """Return the score of all images; their order does not change a bit of it."""
        return float(self.formula(np.array([fsum(column) for column in self.of_images_BS.T])))

    @property
    def of_images(self) -> np.ndarray:
        """Return the score of each image, B."""
        return self.formula(self.of_images_BS)


def mean(of_images: Iterable[float]) -> Statistics:
    """Return the statistics of a score that is the mean of the images' scores."""
    values_B = np.fromiter(of_images, np.float64)
    return Statistics(of_images_BS=np.stack([values_B, np.ones(len(values_B))], axis=1), formula=ratio)


def ratio(sums_S: np.ndarray) -> np.ndarray:
    """Return the first of two sums over the second, 0 where both are 0."""
    return divide(sums_S[..., 0], sums_S[..., 1])


def divide(dividend: np.ndarray, divisor: np.ndarray) -> np.ndarray:
    """Return the quotient, 0 where the divisor is 0."""
    return np.divide(
        dividend, divisor, out=np.zeros(np.broadcast(dividend, divisor).shape), where=divisor != 0
    )


def check_pairs(hypotheses: Collection[str], references: Collection[str]) -> None:
    """Assert that there is an image, and that every image has both a hypothesis and references."""
    unpaired = sorted({*hypotheses} ^ {*references})
    assert hypotheses and not unpaired, f"expected the same images, one at least; not in both: {unpaired[:5]}"


def metric_of(name: str) -> str | None:
    """Return the module of captioning/metrics that a score is of: `bleu_4` is of `bleu`; None where there is none."""
    for metric in sorted(lookup.names("metrics"), key=len, reverse=True):
        if name == metric or name.startswith(f"{metric}_"):
            return metric
    return None


def higher_is_better(name: str) -> bool:
    """Tell whether more is better of a score, as the module of its metric states; of an unknown score more is."""
    metric = metric_of(name)
    return metric is None or bool(lookup.find("metrics", metric).HIGHER_IS_BETTER)


def has_direction(name: str) -> bool:
    """Tell whether more, or less, is better of a score; not so of the mean length of captions, for one."""
    metric = metric_of(name)
    return metric is None or name not in getattr(lookup.find("metrics", metric), "WITHOUT_DIRECTION", ())
