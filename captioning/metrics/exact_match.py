"""Exact match: the share of captions that equal a reference, character by character, as of strings such as InChI."""

from captioning.metrics import Statistics, check_pairs, mean

HIGHER_IS_BETTER = True


def score(
    raw_hypotheses: dict[str, str], raw_references: dict[str, list[str]]
) -> dict[str, Statistics | float]:
    """Return `exact_match`, in 0..1, of the text as it is: case, spaces and punctuation count."""
    check_pairs(raw_hypotheses, raw_references)
    return {
        "exact_match": mean(text in raw_references[image_id] for image_id, text in raw_hypotheses.items())
    }
