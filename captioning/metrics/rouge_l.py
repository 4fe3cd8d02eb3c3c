"""ROUGE-L (Lin, 2004): F-measure of the longest common subsequence with the references, beta 1.2."""

from math import fsum

from pycocoevalcap.rouge.rouge import Rouge

from captioning.metrics import check_pairs

HIGHER_IS_BETTER = True


def score(
    hypotheses: dict[str, str], references: dict[str, list[str]]
) -> dict[str, tuple[float, list[float]]]:
    """Return `rouge_l`, in 0..1, by coco-caption's scorer; the score of the set is the mean over images."""
    check_pairs(hypotheses, references)
    scorer = Rouge()
    # Without the condition an empty hypothesis would equal a reference of punctuation only, and score 1.
    image_scores = [
        scorer.calc_score([hypothesis], references[image_id]) if hypothesis else 0.0
        for image_id, hypothesis in hypotheses.items()
    ]
    return {"rouge_l": (fsum(image_scores) / len(image_scores), image_scores)}
