"""BLEU-1 to BLEU-4 (Papineni et al., 2002): clipped n-gram precision times a brevity penalty.

The score of the set counts n-grams over all images before it divides; it is not the mean of the image scores.
An image's BLEU-n is near 0 where its caption shares no n-gram with a reference or is shorter than n words.
"""

from pycocoevalcap.bleu.bleu import Bleu

from captioning.metrics import check_pairs

HIGHER_IS_BETTER = True
LONGEST_NGRAM = 4


def score(
    hypotheses: dict[str, str], references: dict[str, list[str]]
) -> dict[str, tuple[float, list[float]]]:
    """Return `bleu_1` to `bleu_4`, in 0..1, by coco-caption's scorer with the closest reference length."""
    check_pairs(hypotheses, references)
    set_scores, image_scores = Bleu(LONGEST_NGRAM).compute_score(
        # The scorer goes by the order of the references.
        {image_id: references[image_id] for image_id in hypotheses},
        {image_id: [hypothesis] for image_id, hypothesis in hypotheses.items()},
        verbose=0,
    )
    return {f"bleu_{n + 1}": (set_scores[n], image_scores[n]) for n in range(LONGEST_NGRAM)}
