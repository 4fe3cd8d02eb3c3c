"""ROUGE-L (Lin, 2004): F-measure of the longest common subsequence with the references, beta 1.2.

As coco-caption takes it: the best recall and the best precision, each over all references. But a caption without words
scores 0 also against a reference without words, where coco-caption gives 1.
"""

from rapidfuzz.distance import LCSseq

from captioning.metrics import Statistics, check_pairs, mean

HIGHER_IS_BETTER = True
BETA = 1.2


def score(hypotheses: dict[str, str], references: dict[str, list[str]]) -> dict[str, Statistics | float]:
    """Return `rouge_l`, in 0..1; the score of the set is the mean over images."""
    check_pairs(hypotheses, references)
    return {"rouge_l": mean(_rouge_l(text, references[image_id]) for image_id, text in hypotheses.items())}


def _rouge_l(hypothesis: str, references: list[str]) -> float:
    words = hypothesis.split()
    pairs = [(own, LCSseq.similarity(words, own)) for text in references if (own := text.split())]
    longest = max((common for _, common in pairs), default=0)
    if not longest:
        return 0.0
    precision, recall = longest / len(words), max(common / len(own) for own, common in pairs)
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)
