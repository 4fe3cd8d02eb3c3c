"""CIDEr-D (Vedantam et al., 2015): likeness of tf-idf weighted n-grams, idf taken from the references scored.

It therefore depends on the whole set: the fewer images, the lower, down to 0 for one image.
"""

from math import fsum

from pycocoevalcap.cider.cider import Cider

from captioning.metrics import check_pairs

HIGHER_IS_BETTER = True


def score(
    hypotheses: dict[str, str], references: dict[str, list[str]]
) -> dict[str, tuple[float, list[float]]]:
    """Return `cider`, in 0..10, by coco-caption's scorer; the score of the set is the mean over images."""
    check_pairs(hypotheses, references)
    if not any(reference for texts in references.values() for reference in texts):
        return {"cider": (0.0, [0.0] * len(hypotheses))}  # the scorer fails where no reference has a word
    _, image_scores = Cider().compute_score(
        # The scorer goes by the order of the references.
        {image_id: references[image_id] for image_id in hypotheses},
        {image_id: [hypothesis] for image_id, hypothesis in hypotheses.items()},
    )
    return {"cider": (fsum(image_scores) / len(image_scores), [float(value) for value in image_scores])}
