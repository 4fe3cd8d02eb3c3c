"""What scores are called in figures and reports."""

LABELS = {
    "cider": "CIDEr",
    "cider_d": "CIDEr-D",
    "meteor": "METEOR",
    "spice": "SPICE",
    "rouge_l": "ROUGE-L",
    "diversity_novel": "Novel captions",
    "diversity_words": "Words a caption",
    "diversity_distinct_1": "Distinct words",
    "diversity_distinct_2": "Distinct pairs of words",
    "diversity_vocabulary": "Vocabulary used",
    "token_accuracy_top_5": "Token among the top 5",
    "molecule_valid": "Valid molecules",
    "molecule_skeleton": "Same skeleton",
    "molecule_tanimoto": "Tanimoto similarity",
    **{f"bleu_{order}": f"BLEU-{order}" for order in range(1, 5)},
}
"""Names that are written otherwise than with a capital and spaces."""


def label(name: str) -> str:
    """Return a score's name as papers print it: `bleu_4` is BLEU-4, `exact_match` is Exact match."""
    return LABELS.get(name, name.replace("_", " ").capitalize())
