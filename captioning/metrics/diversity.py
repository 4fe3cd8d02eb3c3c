"""How varied a model's captions are, whatever they say of the images.

Distinct n-grams (Li et al., 2016) and the vocabulary in use grow with the number of captions, more slowly than it: they
are compared between models on the same images only, and bootstrap samples, which repeat captions, would understate
them, so they have no interval.
"""

from collections.abc import Mapping, Sequence
from itertools import chain, pairwise

from captioning.metrics import Statistics, mean
from captioning.vocabulary import MARKERS, Vocabulary

HIGHER_IS_BETTER = True
WITHOUT_DIRECTION = frozenset({"diversity_novel", "diversity_words"})


def score(
    raw_hypotheses: Mapping[str, str], train_references: Mapping[str, Sequence[str]], vocabulary: Vocabulary
) -> dict[str, Statistics | float]:
    """Return how varied the captions are, by the words that the vocabulary knows.

    `diversity_novel` is the share of captions that are no train caption, word by word, and `diversity_words` the mean
    length, of both of which more is not always better; `diversity_distinct_1` and `diversity_distinct_2` are different
    words and pairs of words over all of them; `diversity_vocabulary` is the share of the vocabulary's words that are
    used.
    """
    captions = [tuple(vocabulary.split(text)) for text in raw_hypotheses.values()]
    pairs = [pair for words in captions for pair in pairwise(words)]
    all_words = [*chain.from_iterable(captions)]
    used = {*all_words} & {*vocabulary.words[len(MARKERS) :]}
    heard = {*captions}.intersection(
        tuple(vocabulary.split(text)) for text in chain.from_iterable(train_references.values())
    )
    return {
        "diversity_novel": mean(words not in heard for words in captions),
        "diversity_words": mean(map(len, captions)),
        "diversity_distinct_1": len({*all_words}) / max(1, len(all_words)),
        "diversity_distinct_2": len({*pairs}) / max(1, len(pairs)),
        "diversity_vocabulary": len(used) / max(1, len(vocabulary) - len(MARKERS)),
    }
