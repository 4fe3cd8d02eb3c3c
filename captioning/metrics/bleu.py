"""BLEU-1 to BLEU-4 (Papineni et al., 2002): clipped n-gram precision times a brevity penalty.

The score of the set counts n-grams over all images before it divides; it is not the mean of the image scores.
An image's BLEU-n is near 0 where its caption shares no n-gram with a reference or is shorter than n words.
"""

from functools import partial

import numpy as np
from pycocoevalcap.bleu.bleu_scorer import cook_refs, cook_test

from captioning.metrics import Statistics, check_pairs

HIGHER_IS_BETTER = True
LONGEST_NGRAM = 4
TINY, SMALL = 1e-15, 1e-9
"""coco-caption's: added to dividends and divisors."""


def score(hypotheses: dict[str, str], references: dict[str, list[str]]) -> dict[str, Statistics | float]:
    """Return `bleu_1` to `bleu_4`, in 0..1, from coco-caption's counters with the closest reference length."""
    check_pairs(hypotheses, references)
    counters_BS = np.array(
        [_counters(hypothesis, references[image_id]) for image_id, hypothesis in hypotheses.items()]
    )
    return {
        f"bleu_{n}": Statistics(of_images_BS=counters_BS, formula=partial(_bleu, n))
        for n in range(1, LONGEST_NGRAM + 1)
    }


def _counters(hypothesis: str, references: list[str]) -> list[float]:
    """Return the lengths of hypothesis and closest reference, then n-grams guessed and correct, by n."""
    counted = cook_test(hypothesis, cook_refs(references, n=LONGEST_NGRAM), eff="closest", n=LONGEST_NGRAM)
    return [counted["testlen"], counted["reflen"], *counted["guess"], *counted["correct"]]


def _bleu(n: int, counters_S: np.ndarray) -> np.ndarray:
    length, reference_length = counters_S[..., 0], counters_S[..., 1]
    guessed, correct = counters_S[..., 2 : 2 + n], counters_S[..., 2 + LONGEST_NGRAM : 2 + LONGEST_NGRAM + n]
    precision = np.prod((correct + TINY) / (guessed + SMALL), axis=-1) ** (1 / n)
    length_ratio = (length + TINY) / (reference_length + SMALL)
    return precision * np.exp(np.minimum(0.0, 1 - 1 / length_ratio))
