"""Which words a model says without reason, which it fails to say, and what it repeats."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from captioning.records import Hypothesis
from captioning.tokens import WORDS, module_of

MOST = 12
"""Rows of each list."""
GRAMMAR = """
a an the and or of in on at to with by for from into onto over under near next up down out off as is are was were be
being been it its this that these those there while who which his her their he she they him them one some another other
has have having
"""
FUNCTION_WORDS = frozenset(GRAMMAR.split())
"""Words that say little of a picture."""


@dataclass(frozen=True, kw_only=True)
class WordCount:
    """How often a word went wrong."""

    word: str
    num_wrong: int
    num_images: int
    """Pictures that it was said of, or that it should have been said of."""


@dataclass(frozen=True, kw_only=True)
class WordErrors:
    """Errors of captions, counted in words; the most frequent first."""

    unfounded: list[WordCount]
    """Said of a picture whose references never say it."""
    missed: list[WordCount]
    """Not said of a picture most of whose references say it."""
    repeated: list[tuple[str, int]]
    """Captions given to several pictures."""
    num_distinct: int
    """Different captions."""


def word_errors(
    hypotheses: Mapping[str, Hypothesis], references: Mapping[str, Sequence[str]], tokens: str = WORDS
) -> WordErrors:
    """Compare the words of captions with those of their references, without words of grammar.

    Args:
        hypotheses: captions by image id.
        references: of these images.
        tokens: name of the module of `captioning.tokens` that cuts captions into words.
    """
    split = module_of(tokens).split
    said, should, unfounded, missed = (Counter[str]() for _ in range(4))
    for image_id, hypothesis in hypotheses.items():
        own = set(split(hypothesis.text)) - FUNCTION_WORDS
        of_references = Counter(
            word for text in references[image_id] for word in set(split(text)) - FUNCTION_WORDS
        )
        expected = {word for word, count in of_references.items() if 2 * count > len(references[image_id])}
        said.update(own)
        should.update(expected)
        unfounded.update(own - of_references.keys())
        missed.update(expected - own)
    captions = Counter(own.text for own in hypotheses.values())
    return WordErrors(
        unfounded=_most(unfounded, said),
        missed=_most(missed, should),
        repeated=[(text, count) for text, count in _ordered(captions)[:MOST] if count > 1],
        num_distinct=len(captions),
    )


def _most(wrong: Counter[str], totals: Counter[str]) -> list[WordCount]:
    return [
        WordCount(word=word, num_wrong=count, num_images=totals[word])
        for word, count in _ordered(wrong)[:MOST]
    ]


def _ordered(counts: Counter[str]) -> list[tuple[str, int]]:
    """Return the most frequent first, of equal ones in the order of the alphabet."""
    return sorted(counts.items(), key=lambda own: (-own[1], own[0]))
