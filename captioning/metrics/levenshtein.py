"""Levenshtein distance (1966) to the nearest reference: insertions, deletions and substitutions of characters.

Of the text as it is: a tokenizer would lower the case, drop brackets and split at slashes, and make different InChI
strings equal.
"""

from rapidfuzz.distance import Levenshtein

from captioning.metrics import Statistics, check_pairs, mean

HIGHER_IS_BETTER = False


def score(
    raw_hypotheses: dict[str, str], raw_references: dict[str, list[str]]
) -> dict[str, Statistics | float]:
    """Return `levenshtein`, characters, and `levenshtein_normalised`, over the longer text's length, in 0..1.

    The scores of the set are means over images.
    """
    check_pairs(raw_hypotheses, raw_references)
    pairs = [(text, raw_references[image_id]) for image_id, text in raw_hypotheses.items()]
    return {
        "levenshtein": mean(
            min(Levenshtein.distance(text, own) for own in references) for text, references in pairs
        ),
        "levenshtein_normalised": mean(
            min(Levenshtein.normalized_distance(text, own) for own in references)
            for text, references in pairs
        ),
    }
