"""How usual a caption is, whatever the picture shows: an interpolated Kneser-Ney n-gram model of the train captions.

Chen and Goodman (1999), with one discount for each order; Kneser and Ney (1995): lower orders count after how many
different words a word comes, and not how often.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from captioning.params import Settings
from captioning.vocabulary import BOS, EOS, MARKERS

FILE = "language_model.safetensors"
MOST_NGRAMS = 2**62


class LanguageModelSettings(Settings):
    """`train.language_model`: what `generation.rerank` weighs besides the captioner."""

    order: int = Field(ge=1, le=12)
    """Words of the longest n-grams, the word itself included."""
    min_count: int = Field(ge=1)
    """Rarer n-grams of three words and more are left out."""


class LanguageModel:
    """See the module; n-grams are numbers whose digits, to the base of the vocabulary's size, are the words.

    Args:
        num_words: of the vocabulary, V.
        ngrams: for each order, the n-grams, ascending.
        scores: their log-probabilities.
        contexts: for each order, the words before, ascending.
        weights: the logarithms of what these leave to the order below.
    """

    def __init__(
        self,
        num_words: int,
        ngrams: Sequence[np.ndarray],
        scores: Sequence[np.ndarray],
        contexts: Sequence[np.ndarray],
        weights: Sequence[np.ndarray],
    ) -> None:
        self._num_words = num_words
        self._unseen = -float(np.log(num_words - len(MARKERS) + 1))
        """Of a word that no caption has: one of all words and `<eos>`."""
        self._ngrams, self._scores = [*ngrams], [*scores]
        self._contexts, self._weights = [*contexts], [*weights]

    @classmethod
    def learn(
        cls, captions: Iterable[Sequence[int]], num_words: int, settings: LanguageModelSettings
    ) -> "LanguageModel":
        """Return a model of captions, each the ids of its words without markers.

        Raises:
            ValueError: n-grams of this order have no place in 62 bits, or there are no captions.
        """
        if num_words**settings.order > MOST_NGRAMS:
            raise ValueError(
                f"train.language_model.order: {settings.order} is too long for a vocabulary of {num_words} words; "
                f"at most {int(62 / np.log2(num_words))}"
            )
        words, place = _joined(captions)
        if not len(words):
            raise ValueError("train.language_model learns from train captions, and there are none")
        keys = [_ngrams_of(words, place, order, num_words) for order in range(1, settings.order + 1)]
        parts: tuple[list[np.ndarray], ...] = ([], [], [], [])
        below: LanguageModel | None = None
        for order in range(1, settings.order + 1):
            ngrams, counts = np.unique(keys[order - 1], return_counts=True)
            is_kept = counts >= settings.min_count if order > 2 else counts > 0
            if order < settings.order:
                counts = _preceding(ngrams, counts, np.unique(keys[order]), order, num_words)
            for part, own in zip(parts, _order(ngrams, counts, is_kept, num_words, below), strict=True):
                part.append(own)
            below = cls(num_words, *parts)
        assert below is not None
        return below

    def log_probabilities(self, captions: Sequence[Sequence[int]]) -> list[float]:
        """Return the natural logarithm of each caption's probability, `<eos>` included."""
        words, place = _joined(captions)
        if not len(words):
            return []
        scores = self._of_words(words, place)
        scores[place == 0] = 0.0  # <bos> is given
        begins = np.flatnonzero(place == 0)
        return [float(own) for own in np.add.reduceat(scores, begins)]

    def _of_words(self, words: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Return the log-probability of each word after those before it."""
        scores = np.full(len(words), self._unseen)
        for order in range(1, len(self._ngrams) + 1):
            at = np.flatnonzero(place >= order - 1)
            scores[at] = self._of_order(order, _window(words, at, order, self._num_words), scores[at])
        return scores

    @property
    def order(self) -> int:
        """Return the words of the longest n-grams."""
        return len(self._ngrams)

    def of_ngrams(self, keys: np.ndarray) -> np.ndarray:
        """Return the log-probability of the last word of each n-gram of the model's order."""
        scores = self._of_order(1, keys % self._num_words, np.full(len(keys), self._unseen))
        for order in range(2, self.order + 1):
            scores = self._of_order(order, keys % self._num_words**order, scores)
        return scores

    def _of_order(self, order: int, keys: np.ndarray, below: np.ndarray) -> np.ndarray:
        """Return scores of n-grams, given those of the order below; an unseen context leaves all to it."""
        weights = _looked_up(
            self._contexts[order - 1], self._weights[order - 1], keys // self._num_words, 0.0
        )
        return _looked_up(self._ngrams[order - 1], self._scores[order - 1], keys, weights + below)

    def save(self, folder: Path) -> None:
        """Write the model into a folder; equal models are equal bytes."""
        tensors = {"num_words": np.array([self._num_words])}
        for order, own in enumerate(
            zip(self._ngrams, self._scores, self._contexts, self._weights, strict=True), 1
        ):
            tensors |= {f"{name}.{order}": part for name, part in zip(_PARTS, own, strict=True)}
        save_file(tensors, folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> "LanguageModel | None":
        """Read what `save` wrote; None where the folder has none.

        Raises:
            ValueError: the file is damaged.
        """
        path = folder / FILE
        if not path.exists():
            return None
        try:
            tensors = load_file(path)
            orders = range(1, sum(name.startswith(_PARTS[0]) for name in tensors) + 1)
            parts = [[tensors[f"{name}.{order}"] for order in orders] for name in _PARTS]
            return cls(int(tensors["num_words"][0]), *parts)
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"{path.name} is no language model: {error}") from None


_PARTS = ("ngrams", "scores", "contexts", "weights")


def _joined(captions: Iterable[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return all words, each caption between markers, and each word's place in its caption."""
    ids = [np.array([BOS, *caption, EOS], dtype=np.int64) for caption in captions]
    if not ids:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    return np.concatenate(ids), np.concatenate([np.arange(len(own)) for own in ids])


def _window(words: np.ndarray, at: np.ndarray, order: int, base: int) -> np.ndarray:
    """Return the n-grams that end at places."""
    keys = np.zeros(len(at), dtype=np.int64)
    for back in range(order - 1, -1, -1):
        keys = keys * base + words[at - back]
    return keys


def _ngrams_of(words: np.ndarray, place: np.ndarray, order: int, base: int) -> np.ndarray:
    """Return all n-grams of the captions; `<bos>` alone is none, since nothing says it."""
    return _window(words, np.flatnonzero(place >= max(1, order - 1)), order, base)


def _preceding(
    ngrams: np.ndarray, counts: np.ndarray, longer: np.ndarray, order: int, base: int
) -> np.ndarray:
    """Return after how many different words each n-gram comes; what begins with `<bos>` keeps its count."""
    tails, num_different = np.unique(longer % base**order, return_counts=True)
    found = counts.copy()
    is_at = np.searchsorted(ngrams, tails)
    is_first = ngrams // base ** (order - 1) == BOS
    found[is_at] = np.where(is_first[is_at], counts[is_at], num_different)
    return found


def _order(
    ngrams: np.ndarray, counts: np.ndarray, is_kept: np.ndarray, base: int, below: LanguageModel | None
) -> tuple[np.ndarray, ...]:
    """Return the n-grams of an order, their scores, their contexts and the weights of these."""
    num_once, num_twice = int((counts == 1).sum()), int((counts == 2).sum())
    discount = num_once / (num_once + 2 * num_twice) if num_once else 0.5
    contexts, of_context = np.unique(ngrams // base, return_inverse=True)
    totals = np.bincount(of_context, weights=counts)
    share = (counts - discount) / totals[of_context]
    weights = 1 - np.bincount(of_context, weights=share * is_kept)
    kept, own, owner = ngrams[is_kept], share[is_kept], of_context[is_kept]
    if below is None:
        lower = np.full(len(kept), 1 / (base - len(MARKERS) + 1))  # of all words and <eos>
    else:
        tails = kept % base**below.order
        lower = np.exp(below.of_ngrams(tails))
    scores = np.log(own + weights[owner] * lower)
    with np.errstate(divide="ignore"):
        logs = np.log(np.maximum(weights, 0))
    return kept, scores, contexts, logs


def _looked_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray, otherwise: Any) -> np.ndarray:
    """Return the value of each key that is wanted, or what stands for it otherwise."""
    if not len(keys):
        return np.broadcast_to(np.asarray(otherwise, dtype=np.float64), wanted.shape).copy()
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], otherwise)
