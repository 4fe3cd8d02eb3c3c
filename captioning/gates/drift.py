"""How far the training data have moved from those of the champion: the population stability index.

The PSI of a distribution in bins with the shares e (the champion's training data) and o (these)

    PSI = sum over bins of (o - e) * ln(o / e)

is the divergence of Kullback and Leibler in both directions. Below 0.1 little has changed, from 0.1 to 0.25
something has, above 0.25 much has, and a model is looked at anew (N. Siddiqi, Credit Risk Scorecards, Wiley 2006,
p. 136; E. M. Lewis, An Introduction to Credit Scoring, 1994). The bins are made from the champion's data: each
holds about a tenth of them, and what lies outside their range has bins of its own. A share of 0 counts as
`LEAST_SHARE`, for the logarithm of 0 is no number.

Without any drift the PSI of two samples of N and M rows is (bins - 1) * (1/N + 1/M) on average (B. Yurdakul and
J. Naranjo, Statistical properties of the population stability index, Journal of Risk Model Validation 14(4), 2020):
fewer than `FEWEST_ROWS` rows would look like drift by chance, and are not compared.

The champion is no input that DVC knows. Drift therefore only warns, in report.json and on the pages, which no stage
depends on. Where params.yaml says `validate.severity.max_drift: refuse` the verdict depends on the champion of the
moment when the stage runs, and `dvc repro --force --single-item validate` judges the same data against a new one.
"""

import json
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import log
from pathlib import Path
from typing import Any

from captioning.gates.rules import TOTALS, Rule, Rules
from captioning.gates.values import ValueTables, total

SHARE_PER_BIN = 0.1
LEAST_SHARE = 1e-4
FEWEST_ROWS = 200
NO_CHAMPION = "no champion yet, nothing to compare the training data with"

NAMES = {
    "caption_words": "caption lengths",
    "image_size": "image sizes",
    "brightness": "brightnesses of images",
}
"""Distributions over numbers, in words."""


@dataclass(frozen=True, kw_only=True)
class Drift:
    """What is judged of the drift, and what cannot be."""

    quantities: ValueTables
    rules: list[Rule]
    notes: tuple[str, ...]


def compare(profile: Mapping[str, Any], champion: Path | str, max_drift: float) -> Drift:
    """Return the drift from the profile in the file `champion` to `profile`, one PSI a distribution.

    `champion` may also say in a sentence why there is no such file.

    Raises:
        ValueError: the champion's profile cannot be read.
    """
    if isinstance(champion, str):
        return _not_judged(champion)
    if not champion.exists():
        return _not_judged(
            "the champion carries no profile of its training data, nothing to compare these with"
        )
    before = _read(champion)
    fewest = min(side["num_images"] for side in (before, profile))
    if fewest < FEWEST_ROWS:
        return _not_judged(
            f"drift is not judged: {fewest:,} training images, of these data or of the champion's, differ "
            f"by chance; {FEWEST_ROWS} are needed"
        )
    return _judged(before, profile, champion, max_drift)


def _not_judged(note: str) -> Drift:
    return Drift(quantities={}, rules=[], notes=(note,))


def _judged(before: Mapping[str, Any], profile: Mapping[str, Any], champion: Path, max_drift: float) -> Drift:
    indices = {
        f"{name}_psi": psi(*binned(_numbers(before[name]), _numbers(profile[name]))) for name in NAMES
    } | {"vocabulary_psi": psi(*binned_by_rank(before, profile))}
    words = {f"{name}_psi": text for name, text in NAMES.items()} | {"vocabulary_psi": "words of captions"}
    totals = Rules(TOTALS, f"the training data, and {champion} of the champion's")
    return Drift(
        quantities={
            key: table for name, value in indices.items() for key, table in total(name, value).items()
        },
        rules=[
            totals.between(
                f"the {words[name]} are distributed as in the champion's training data (PSI)",
                name,
                high=max_drift,
                key="validate.max_drift",
            )
            for name in indices
        ],
        notes=(),
    )


def psi(expected: Sequence[int], observed: Sequence[int]) -> float:
    """Return the population stability index of the counts in each bin."""
    index = 0.0
    for before, now in zip(_shares(expected), _shares(observed), strict=True):
        index += (now - before) * log(now / before)
    return index


def _shares(counts: Sequence[int]) -> list[float]:
    every = max(sum(counts), 1)
    return [max(count / every, LEAST_SHARE) for count in counts]


def binned(expected: Mapping[int, int], observed: Mapping[int, int]) -> tuple[list[int], list[int]]:
    """Return both counts in bins of about a tenth of `expected` each, between one below its range and one above."""
    lowest = min(expected) - 1 if expected else 0
    ends = [lowest, *_ends(sorted(expected.items()))]

    def fill(counts: Mapping[int, int]) -> list[int]:
        bins = [0] * (len(ends) + 1)
        for value, count in counts.items():
            bins[bisect_left(ends, value)] += count
        return bins

    return fill(expected), fill(observed)


def binned_by_rank(before: Mapping[str, Any], profile: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """Return the counts of words in bins by their rank in the champion's captions, the last of words without one.

    The bins hold about a tenth of the champion's words each, the most frequent words first.
    """
    ranks = {word: rank for rank, word in enumerate(before["words"])}
    ends = _ends(list(enumerate(before["words"].values())))

    def fill(side: Mapping[str, Any]) -> list[int]:
        bins = [0] * len(ends)
        for word, count in side["words"].items():
            if word in ranks:
                bins[bisect_left(ends, ranks[word])] += count
        return [*bins, side["num_words"] - sum(bins)]

    return fill(before), fill(profile)


def _ends(counts: Sequence[tuple[int, int]]) -> list[int]:
    """Return the last value of each bin of about a tenth of the rows, of ordered (value, number of rows)."""
    every, ends, filled = sum(count for _, count in counts), [], 0
    for (value, count), so_far in zip(counts, accumulate(count for _, count in counts), strict=True):
        filled += count
        if filled >= SHARE_PER_BIN * every or so_far == every:
            ends.append(value)
            filled = 0
    return ends


def _numbers(counts: Mapping[str, int]) -> dict[int, int]:
    return {int(value): count for value, count in counts.items()}


def _read(path: Path) -> Mapping[str, Any]:
    try:
        profile: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        missing: Iterable[str] = {"num_images", "num_words", "words", *NAMES} - set(profile)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is not a readable profile ({error}); register the champion again from its data, "
            "or delete the file to go on without a comparison"
        ) from None
    if missing:
        raise ValueError(
            f"{path} lacks {', '.join(sorted(missing))}; register the champion again from its data, "
            "or delete the file to go on without a comparison"
        )
    return profile
