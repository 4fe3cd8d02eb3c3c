"""Scores of captions; one module a metric, chosen by `evaluate.metrics`.

Each module has

- `HIGHER_IS_BETTER: bool`;
- `score(hypotheses, references) -> dict[str, tuple[float, list[float]]]`: per score name (`bleu_4`, `cider`, ...) the
  score of the whole set as a fraction (CIDEr 1.31 is the papers' 131) and the score of each image, in the order of
  `hypotheses`. `hypotheses: dict[image_id, str]`, `references: dict[image_id, list[str]]`, both already tokenized:
  words joined by single spaces. The ids of both are equal; the order of the images does not change a score of the set.
"""


def check_pairs(hypotheses: dict[str, str], references: dict[str, list[str]]) -> None:
    """Assert that there is an image, and that every image has both a hypothesis and references."""
    unpaired = sorted(hypotheses.keys() ^ references.keys())
    assert hypotheses and not unpaired, f"expected the same images, one at least; not in both: {unpaired[:5]}"
