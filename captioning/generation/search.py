"""The loop over the words that all ways of generating share."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from captioning.vocabulary import BOS, EOS

SHRINK_AT = 0.75
"""Finished images are left out once only so large a share of them is unfinished: each cut copies what is constant."""


@dataclass(frozen=True, kw_only=True)
class Captions:
    """Captions of B images on their way, N = B x K rows, K consecutive rows an image."""

    images_B: torch.Tensor
    """Number of each image in the batch that the search began with, on the CPU."""
    words_NT: torch.Tensor
    """Word ids, with `<bos>` first; from the end of a caption on they are `<eos>`."""
    scores_N: torch.Tensor
    """Log-probability of the words and of `<eos>`, float32."""
    num_terms_N: torch.Tensor
    """How many words, with `<eos>`, it is the sum of."""
    has_ended_N: torch.Tensor
    attention_NTL: torch.Tensor | None
    """Weights that each word after `<bos>` was chosen with."""

    def rows(self, rows_N: torch.Tensor) -> "Captions":
        """Return other rows of the same images."""
        attention = self.attention_NTL
        return replace(
            self,
            words_NT=self.words_NT.index_select(0, rows_N),
            scores_N=self.scores_N.index_select(0, rows_N),
            num_terms_N=self.num_terms_N.index_select(0, rows_N),
            has_ended_N=self.has_ended_N.index_select(0, rows_N),
            attention_NTL=None if attention is None else attention.index_select(0, rows_N),
        )

    def with_words(
        self, words_N: torch.Tensor, gains_N: torch.Tensor, attention_NL: torch.Tensor | None
    ) -> "Captions":
        """Return captions of one word more; an ended one takes `<eos>` at no gain."""
        attention = self.attention_NTL
        if attention_NL is not None:
            added = attention_NL.unsqueeze(1)
            attention = added if attention is None else torch.cat([attention, added], dim=1)
        return replace(
            self,
            words_NT=torch.cat([self.words_NT, words_N.unsqueeze(1)], dim=1),
            scores_N=self.scores_N + gains_N,
            num_terms_N=self.num_terms_N + ~self.has_ended_N,
            has_ended_N=self.has_ended_N | (words_N == EOS),
            attention_NTL=attention,
        )


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The captions that go on, and their next words; K is the number of rows an image that there are from now on."""

    rows_N: torch.Tensor | None
    """Row that each continues, None where each continues itself."""
    words_N: torch.Tensor
    """`<eos>` where the caption has ended."""
    gains_N: torch.Tensor
    """Log-probabilities of the words, 0 where the caption has ended."""


class Chooser(Protocol):
    """A way of choosing words."""

    num_first_rows: int
    """K of the first word."""

    def choose(self, scores_NV: torch.Tensor, captions: Captions) -> Choice:
        """Choose next words by their log-probabilities, which are -inf where a word is forbidden."""

    def is_final(self, captions: Captions) -> torch.Tensor:
        """Return B booleans: images to whose captions further words would change nothing that is asked for."""


def search(
    decoder: Any,
    features: Any,
    chooser: Chooser,
    forbid: Callable[[torch.Tensor, torch.Tensor], object],
    *,
    max_words: int,
    with_attention: bool = False,
) -> list[Captions]:
    """Return the captions of all images, in parts as they were finished; each image is in one of them.

    A caption is cut after `max_words` steps, `<eos>` being the word of one of them.

    Args:
        decoder: see `captioning.decoders`.
        features: what `decoder.prepare` takes, of B images.
        chooser: of the words.
        forbid: of log-probabilities N x V, whose forbidden words it sets to -inf, and the words N x T so far.
        max_words: steps.
        with_attention: keep the attention weights, where the decoder attends.
    """
    memory = decoder.prepare(features)
    first = next(iter(memory.values()))
    if not len(first):
        return []
    num_rows, device = len(first) * chooser.num_first_rows, first.device
    state = decoder.start(memory, num_rows)
    captions = Captions(
        images_B=torch.arange(len(first)),
        words_NT=torch.full((num_rows, 1), BOS, device=device),
        scores_N=torch.zeros(num_rows, device=device),
        num_terms_N=torch.zeros(num_rows, dtype=torch.long, device=device),
        has_ended_N=torch.zeros(num_rows, dtype=torch.bool, device=device),
        attention_NTL=None,
    )
    finished = []
    for step in range(max_words):
        output, state, attention = decoder.step(memory, state, captions.words_NT[:, -1])
        scores_NV = torch.log_softmax(decoder.words.logits(output).float(), dim=1)
        forbid(scores_NV, captions.words_NT[:, 1:])
        choice = chooser.choose(scores_NV, captions)
        attention = attention if with_attention else None
        if choice.rows_N is not None:
            rows_N = choice.rows_N
            state = {name: own.index_select(0, rows_N) for name, own in state.items()}
            attention = None if attention is None else attention.index_select(0, rows_N)
            captions = captions.rows(rows_N)
        captions = captions.with_words(choice.words_N, choice.gains_N, attention)
        if step == max_words - 1:
            break
        is_open_B = ~chooser.is_final(captions).cpu()
        num_open = int(is_open_B.sum())
        if num_open == 0:
            break
        if num_open <= SHRINK_AT * len(is_open_B):
            finished.append(_of_images(captions, ~is_open_B))
            captions = _of_images(captions, is_open_B)
            memory = {name: own[is_open_B.to(device)] for name, own in memory.items()}
            state = {name: own[_rows(is_open_B, len(own)).to(device)] for name, own in state.items()}
    return [*finished, captions]


def _rows(is_kept_B: torch.Tensor, num_rows: int) -> torch.Tensor:
    return is_kept_B.repeat_interleave(num_rows // len(is_kept_B)).nonzero().squeeze(1)


def _of_images(captions: Captions, is_kept_B: torch.Tensor) -> Captions:
    rows_N = _rows(is_kept_B, len(captions.words_NT)).to(captions.words_NT.device)
    return replace(captions.rows(rows_N), images_B=captions.images_B[is_kept_B])
