"""Molecules that InChI or SMILES strings stand for, compared with those of the references.

A string that is one character off may be another molecule, or none: what Levenshtein's distance cannot tell.
"""

from captioning.chemistry.identities import identities
from captioning.metrics import Statistics, check_pairs, mean

HIGHER_IS_BETTER = True


def score(
    raw_hypotheses: dict[str, str], raw_references: dict[str, list[str]]
) -> dict[str, Statistics | float]:
    """Return shares and a similarity in 0..1, means over images; the best reference counts.

    `molecule_valid` is the share of captions that RDKit reads as a molecule, `molecule_skeleton` of those with the
    reference's first block of the InChIKey, `molecule_tanimoto` the similarity of Morgan fingerprints (radius 2, 2,048
    bits). A caption or reference that is no molecule is like no other.
    """
    check_pairs(raw_hypotheses, raw_references)
    said = dict(zip(raw_hypotheses, identities([*raw_hypotheses.values()]), strict=True))
    pairs = [
        (own, [one for one in identities(raw_references[image_id]) if one]) for image_id, own in said.items()
    ]
    return {
        "molecule_valid": mean(own is not None for own, _ in pairs),
        "molecule_skeleton": mean(
            own is not None and any(own.skeleton == one.skeleton for one in references)
            for own, references in pairs
        ),
        "molecule_tanimoto": mean(
            max((own.similarity(one) for one in references), default=0.0) if own else 0.0
            for own, references in pairs
        ),
    }
