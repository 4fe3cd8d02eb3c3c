"""InChI -> normalised InChI, InChI -> SMILES and back: what RDKit in child processes makes of texts."""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from captioning.chemistry.children import Answer, Children

if TYPE_CHECKING:
    from captioning.chemistry.reading import Operation

SECONDS = 10.0
"""For one text; most take 2 ms."""


@functools.cache
def _children() -> "Children[tuple[Operation, str], str]":
    from captioning.chemistry.reading import answer  # and RDKit with it

    return Children(answer, seconds=SECONDS)


def answers(operation: "Operation", texts: Sequence[str]) -> list[Answer[str]]:
    """Return what RDKit makes of each text, and why nothing where its process crashed or was ended."""
    return _children().ask([(operation, text) for text in texts])


def normalise(texts: Sequence[str]) -> list[str | None]:
    """Return the InChI of the molecule that each InChI stands for, as RDKit writes it; None where it reads none."""
    return [answer.value for answer in answers("normalise", texts)]


def valid_share(texts: Sequence[str]) -> float:
    """Return the share of texts that are InChI which RDKit reads; 0 where there are no texts."""
    return sum(text is not None for text in normalise(texts)) / max(1, len(texts))


@functools.lru_cache(maxsize=100_000)
def smiles_of_inchi(inchi: str) -> str | None:
    """Return the SMILES of an InChI that leads back to it, character by character; None where there is none."""
    return answers("smiles", [inchi])[0].value


@functools.lru_cache(maxsize=100_000)
def inchi_of_smiles(smiles: str) -> str | None:
    """Return the InChI of a SMILES; None where RDKit cannot read it."""
    return answers("inchi", [smiles])[0].value
