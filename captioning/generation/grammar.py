"""A grammar over the captions that are on their way: the state of each is remembered by its words."""

from typing import Any

import numpy as np
import torch

from captioning import lookup
from captioning.vocabulary import EOS, Vocabulary

Place = tuple[Any, np.ndarray]
"""A state of the grammar, None where there is none, and V booleans: the words that may come next."""


class GrammarConstraint:
    """Forbids the words after which a caption could not be completed, step by step of one search.

    Args:
        name: of a module in captioning/grammars.
        vocabulary: of the captions.
        max_words: steps of the search.

    Raises:
        ValueError: the grammar cannot read the vocabulary.
    """

    def __init__(self, name: str, vocabulary: Vocabulary, *, max_words: int) -> None:
        self._grammar = lookup.find("grammars", name).Grammar(vocabulary, max_words=max_words)
        self._max_words = max_words
        self._nowhere: Place = (None, np.arange(len(vocabulary)) == EOS)
        """Of a caption that has ended, or that had a word that is forbidden: its score is final."""
        self._places: dict[bytes, Place] = {}
        """Of the captions one word shorter, by their words."""

    def __call__(self, scores_NV: torch.Tensor, words_NT: torch.Tensor) -> None:
        """Set the scores of forbidden words to -inf, in place; to be called for one length after the other."""
        words = words_NT.cpu().numpy().astype(np.int32)
        left = self._max_words - words.shape[1]
        if not words.shape[1]:
            self._places = {b"": (self._grammar.start, self._grammar.allowed(self._grammar.start, left))}
        rows, places = [row.tobytes() for row in words], self._places
        if words.shape[1]:
            places = {}
            for row, own in zip(rows, words, strict=True):
                if row not in places:
                    places[row] = self._after(row[: -own.itemsize], int(own[-1]), left)
            self._places = places
        is_allowed_NV = torch.from_numpy(np.stack([places[row][1] for row in rows]))
        scores_NV.masked_fill_(~is_allowed_NV.to(scores_NV.device), -torch.inf)

    def _after(self, before: bytes, word: int, left: int) -> Place:
        state, is_allowed = self._places[before]
        if state is None or word == EOS or not is_allowed[word]:
            return self._nowhere
        state = self._grammar.advance(state, word)
        return state, self._grammar.allowed(state, left)
