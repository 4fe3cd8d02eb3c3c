"""Token accuracy: the share of the references' words, `<eos>` included, that the model would have said next.

By teacher forcing: each word is guessed from the image and the true words before it, so the score says nothing of what
the model makes of its own words. The reference captions are those that training reads, cut to `preprocess.max_words`.
"""

import numpy as np

from captioning.metrics import Statistics, ratio
from captioning.records import Likelihood

HIGHER_IS_BETTER = True


def score(likelihoods: dict[str, Likelihood]) -> dict[str, Statistics | float]:
    """Return `token_accuracy` and `token_accuracy_top_5`, in 0..1; of the set they are those of all words together."""
    right = {
        "token_accuracy": [(own.num_right, own.num_words) for own in likelihoods.values()],
        "token_accuracy_top_5": [(own.num_in_top_5, own.num_words) for own in likelihoods.values()],
    }
    return {
        name: Statistics(of_images_BS=np.array(own, np.float64), formula=ratio) for name, own in right.items()
    }
