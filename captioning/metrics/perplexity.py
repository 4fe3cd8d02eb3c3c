"""Perplexity of the references, given the image: e to the mean negative log-likelihood of a word, `<eos>` included.

By teacher forcing, of the reference captions as training reads them: rare words are `<unk>`, long captions are cut.
Perplexities of different vocabularies cannot be compared.
"""

import numpy as np

from captioning.metrics import Statistics, divide
from captioning.records import Likelihood

HIGHER_IS_BETTER = False


def score(likelihoods: dict[str, Likelihood]) -> dict[str, Statistics | float]:
    """Return `perplexity`, from 1; of the set it is that of all words together."""
    sums_BS = np.array([(-own.log_likelihood, own.num_words) for own in likelihoods.values()])
    return {"perplexity": Statistics(of_images_BS=sums_BS, formula=_perplexity)}


def _perplexity(sums_S: np.ndarray) -> np.ndarray:
    return np.exp(divide(sums_S[..., 0], sums_S[..., 1]))
