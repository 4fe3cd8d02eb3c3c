"""CIDEr-D (Vedantam et al., 2015), which the field reports as CIDEr: likeness of tf-idf weighted n-grams.

Document frequencies are those of the references scored. A score therefore depends on the whole set: the fewer images,
the lower, down to 0 for one image. Of a slice and of a bootstrap sample it is the mean of the image scores, whose
document frequencies remain those of the whole set.
"""

from collections import defaultdict
from itertools import chain, count

from pycocoevalcap.cider.cider import Cider as CocoCider

from captioning.cider import IMAGES_AT_ONCE, MAX_WORD, Cider
from captioning.metrics import Statistics, check_pairs, mean

HIGHER_IS_BETTER = True


def score(hypotheses: dict[str, str], references: dict[str, list[str]]) -> dict[str, Statistics | float]:
    """Return `cider`, in 0..10, as coco-caption has it; the score of the set is the mean over images."""
    check_pairs(hypotheses, references)
    texts = chain(hypotheses.values(), chain.from_iterable(references.values()))
    num_words = len({word for text in texts for word in text.split()})
    of_images = _fast if num_words <= MAX_WORD else _slow
    return {"cider": mean(of_images(hypotheses, references))}


def _fast(hypotheses: dict[str, str], references: dict[str, list[str]]) -> list[float]:
    numbers: defaultdict[str, int] = defaultdict(count(1).__next__)

    def encode(text: str) -> list[int]:
        return [numbers[word] for word in text.split()]

    scorer, image_ids, scores = Cider(references, encode), [*hypotheses], []
    for start in range(0, len(image_ids), IMAGES_AT_ONCE):
        own = image_ids[start : start + IMAGES_AT_ONCE]
        scores += scorer(own, [[encode(hypotheses[image_id])] for image_id in own])[:, 0].tolist()
    return scores


def _slow(hypotheses: dict[str, str], references: dict[str, list[str]]) -> list[float]:
    """Score by coco-caption's own program, which takes any number of words."""
    _, scores = CocoCider().compute_score(
        # The scorer goes by the order of the references.
        {image_id: references[image_id] for image_id in hypotheses},
        {image_id: [hypothesis] for image_id, hypothesis in hypotheses.items()},
    )
    return [float(own) for own in scores]
