"""CIDEr-D (Vedantam et al., 2015) on word ids: n-grams of many captions at a time, in numpy.

It is coco-caption's score: clipped cosines of tf-idf weighted n-grams, a Gaussian penalty on the difference in length,
mean over references and over the lengths of n-grams, times 10. What a word is and where document frequencies come
from is the caller's: `captioning.metrics.cider` scores a set of captions, `captioning.rewards` rewards training's.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

LONGEST_NGRAM = 4
SIGMA = 6.0
"""Of the Gaussian penalty on the difference in length, in words."""
SCALE = 10.0
WORD_BITS = 16
"""Of a word in a packed n-gram: four make 64, and shorter n-grams are smaller numbers, as no word has the id 0."""
MAX_WORD = (1 << WORD_BITS) - 2
SMALLEST = np.array([1 << WORD_BITS * n for n in range(1, LONGEST_NGRAM)], np.uint64)
"""Below all n-grams of two, three and four words."""
NO_NGRAM = np.uint64(2**64 - 1)
"""Above all n-grams: its words are above `MAX_WORD`."""
IMAGES_AT_ONCE = 512
"""Whose n-grams are counted together."""


@dataclass(frozen=True, kw_only=True)
class _Captions:
    """S captions of B images, their W words one after the other."""

    words_W: np.ndarray
    lengths_S: np.ndarray
    image_S: np.ndarray
    """0..B-1."""
    column_S: np.ndarray
    """Which of its image's captions it is."""

    def ngrams(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all M n-grams, packed into uint64, and the caption of each."""
        caption_W = np.repeat(np.arange(len(self.lengths_S)), self.lengths_S)
        words_W = self.words_W.astype(np.uint64)
        packed, ngrams, captions = words_W, [words_W], [caption_W]
        for n in range(1, LONGEST_NGRAM):
            packed = (packed[:-1] << np.uint64(WORD_BITS)) | words_W[n:]
            is_of_one = caption_W[n:] == caption_W[:-n]
            ngrams.append(packed[is_of_one])
            captions.append(caption_W[n:][is_of_one])
        return np.concatenate(ngrams), np.concatenate(captions)

    @property
    def num_images(self) -> int:
        """Return B."""
        return int(self.image_S[-1]) + 1

    @property
    def num_columns(self) -> int:
        """Return how many captions an image has at most."""
        return int(self.column_S.max()) + 1

    def counts(self, place_M: np.ndarray, caption_M: np.ndarray, num_places: int) -> np.ndarray:
        """Return how often each caption has each n-gram, P x columns; `place_M` says which n-gram each of the M is."""
        cells = place_M * self.num_columns + self.column_S[caption_M]
        counts = np.bincount(cells, minlength=num_places * self.num_columns)
        return counts.reshape(num_places, self.num_columns)

    def lengths(self) -> np.ndarray:
        """Return the captions' lengths by image and column, 0 where there is none."""
        lengths_BC = np.zeros((self.num_images, self.num_columns))
        lengths_BC[self.image_S, self.column_S] = self.lengths_S
        return lengths_BC


@dataclass(frozen=True, kw_only=True)
class Frequencies:
    """How telling each n-gram is, by the images that have it in a reference."""

    ngrams_F: np.ndarray
    """Of several images, packed, in order; the last stands for all others."""
    idf_F: np.ndarray

    def idf(self, ngram_P: np.ndarray) -> np.ndarray:
        """Return the inverse document frequencies of packed n-grams."""
        place_P = np.searchsorted(self.ngrams_F, ngram_P)
        idf_P: np.ndarray = self.idf_F[np.where(self.ngrams_F[place_P] == ngram_P, place_P, -1)]
        return idf_P


class Cider:
    """The scores of captions against the references of their images, from 0 to 10.

    Args:
        references: captions by image id, each image with one at least.
        encode: caption -> word ids, from 1 to `MAX_WORD`.
        frequencies: of n-grams; without, those of the references.
    """

    def __init__(
        self,
        references: Mapping[str, Sequence[str]],
        encode: Callable[[str], Iterable[int]],
        frequencies: Frequencies | None = None,
    ) -> None:
        words, ends = array("H"), array("q", [0])
        for caption in chain.from_iterable(references.values()):
            words.extend(encode(caption))
            ends.append(len(words))
        self._words, self._word_ends = np.array(words), np.array(ends)
        self._caption_ends = np.cumsum([0, *map(len, references.values())])
        self._positions = {image_id: position for position, image_id in enumerate(references)}
        self.frequencies = frequencies or self._frequencies()

    def __call__(self, image_ids: Sequence[str], words_BK: Sequence[Sequence[Sequence[int]]]) -> np.ndarray:
        """Return the score of K captions of each of B images, B x K, float64.

        Args:
            image_ids: of images with references.
            words_BK: word ids.
        """
        references = self._references(np.array([self._positions[image_id] for image_id in image_ids]))
        hypotheses = _hypotheses(words_BK)
        difference_BKC = hypotheses.lengths()[:, :, np.newaxis] - references.lengths()[:, np.newaxis]
        penalty_BKC = np.exp(-(difference_BKC**2) / (2 * SIGMA**2))
        num_references_B1 = np.bincount(references.image_S)[:, np.newaxis]
        likeness_BKC = self._likeness(hypotheses, references)
        return SCALE * (likeness_BKC * penalty_BKC).sum(axis=2) / num_references_B1

    def _likeness(self, hypotheses: _Captions, references: _Captions) -> np.ndarray:
        """Return the clipped cosines of tf-idf vectors, mean over the lengths of n-grams, B x K x C."""
        (ngrams_H, caption_H), (ngrams_R, caption_R) = hypotheses.ngrams(), references.ngrams()
        ngram_P, image_P, place_M = _by_image(
            np.concatenate([ngrams_H, ngrams_R]),
            np.concatenate([hypotheses.image_S[caption_H], references.image_S[caption_R]]),
        )
        place_H, place_R = np.split(place_M, [len(ngrams_H)])
        idf_P1 = self.frequencies.idf(ngram_P)[:, np.newaxis]
        weight_PK = idf_P1 * hypotheses.counts(place_H, caption_H, len(ngram_P))
        weight_PC = idf_P1 * references.counts(place_R, caption_R, len(ngram_P))
        group_P = image_P * LONGEST_NGRAM + np.searchsorted(SMALLEST, ngram_P, side="right")
        num_groups = references.num_images * LONGEST_NGRAM
        norm_GK, norm_GC = (np.sqrt(_sums(own**2, group_P, num_groups)) for own in (weight_PK, weight_PC))

        is_shared_P = weight_PK.any(axis=1) & weight_PC.any(axis=1)
        weight_P1C = weight_PC[is_shared_P, np.newaxis]
        product_PKC = np.minimum(weight_PK[is_shared_P, :, np.newaxis], weight_P1C) * weight_P1C
        product_GKC = _sums(product_PKC, group_P[is_shared_P], num_groups)
        norm_GKC = norm_GK[:, :, np.newaxis] * norm_GC[:, np.newaxis]
        cosine_GKC = product_GKC / np.where(norm_GKC > 0, norm_GKC, 1.0)
        return cosine_GKC.reshape(references.num_images, LONGEST_NGRAM, *cosine_GKC.shape[1:]).mean(axis=1)

    def _references(self, positions_B: np.ndarray) -> _Captions:
        """Return the references of B images."""
        first_B, last_B = self._caption_ends[positions_B], self._caption_ends[positions_B + 1]
        captions_S = np.concatenate([np.arange(*own) for own in zip(first_B, last_B, strict=True)])
        slices = zip(self._word_ends[first_B], self._word_ends[last_B], strict=True)
        image_S = np.repeat(np.arange(len(positions_B)), last_B - first_B)
        return _Captions(
            words_W=np.concatenate([self._words[start:stop] for start, stop in slices]),
            lengths_S=self._word_ends[captions_S + 1] - self._word_ends[captions_S],
            image_S=image_S,
            column_S=captions_S - first_B[image_S],
        )

    def _distinct_ngrams(self) -> Iterator[np.ndarray]:
        """Yield each n-gram once for each image that has it."""
        num_images = len(self._positions)
        for positions_B in np.array_split(np.arange(num_images), 1 + num_images // IMAGES_AT_ONCE):
            captions = self._references(positions_B)
            ngrams, caption_M = captions.ngrams()
            yield _by_image(ngrams, captions.image_S[caption_M])[0]

    def _frequencies(self) -> Frequencies:
        ngrams, counts = np.unique(np.concatenate([*self._distinct_ngrams()]), return_counts=True)
        is_of_several = counts > 1
        counts = np.append(counts[is_of_several], 1)
        return Frequencies(
            ngrams_F=np.append(ngrams[is_of_several], NO_NGRAM), idf_F=np.log(len(self._positions) / counts)
        )


def _hypotheses(words_BK: Sequence[Sequence[Sequence[int]]]) -> _Captions:
    num_images, num_columns = len(words_BK), len(words_BK[0])
    captions = [words for own in words_BK for words in own]
    assert len(captions) == num_images * num_columns, "each image has as many hypotheses"
    image_S, column_S = np.divmod(np.arange(len(captions)), num_columns)
    return _Captions(
        words_W=np.fromiter(chain.from_iterable(captions), np.uint16),
        lengths_S=np.fromiter(map(len, captions), np.int64),
        image_S=image_S,
        column_S=column_S,
    )


def _by_image(ngrams_M: np.ndarray, image_M: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the images' distinct n-grams by image and length, the image of each, and which each of the M is."""
    distinct, number_M = np.unique(ngrams_M, return_inverse=True)
    pair_P, place_M = np.unique(image_M * len(distinct) + number_M, return_inverse=True)
    image_P, number_P = np.divmod(pair_P, len(distinct))
    return distinct[number_P], image_P, place_M


def _sums(values_P: np.ndarray, group_P: np.ndarray, num_groups: int) -> np.ndarray:
    """Return the sum of the rows of each group; equal groups lie together."""
    starts = np.flatnonzero(np.diff(group_P, prepend=-1))
    sums_G = np.zeros((num_groups, *values_P.shape[1:]))
    if len(starts):
        sums_G[group_P[starts]] = np.add.reduceat(values_P, starts)
    return sums_G
