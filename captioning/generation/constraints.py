"""Which words may come next."""

from collections.abc import Collection

import torch

from captioning.vocabulary import BOS, EOS, PAD, UNK, Vocabulary

NEVER_GENERATED = (PAD, BOS, UNK)
"""`<unk>` included: it is no word of a caption, and would be counted as a match."""


def forbid(scores_NV: torch.Tensor) -> torch.Tensor:
    """Set the scores of the words that are never generated to -inf, in place, and return them."""
    for word in NEVER_GENERATED:  # an index tensor would have to travel to a GPU at each word
        scores_NV[:, word] = -torch.inf
    return scores_NV


class Constraints:
    """Forbids words by what a caption has said; see `ConstraintSettings` for the arguments."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        min_words: int,
        max_words: int,
        no_repeat_ngram: int | None,
        bad_endings: Collection[str],
    ) -> None:
        self._min_words, self._max_words, self._no_repeat_ngram = min_words, max_words, no_repeat_ngram
        is_bad = [word in bad_endings for word in vocabulary.words]
        self._is_bad_V = torch.tensor(is_bad) if any(is_bad) else None

    def __call__(self, scores_NV: torch.Tensor, words_NT: torch.Tensor) -> None:
        """Set the scores of forbidden words to -inf, in place; `words_NT` are those so far, without `<bos>`."""
        num_words = words_NT.shape[1]
        forbid(scores_NV)
        if num_words < self._min_words:
            scores_NV[:, EOS] = -torch.inf
        if self._is_bad_V is not None:
            self._is_bad_V = self._is_bad_V.to(scores_NV.device)
            if num_words:
                scores_NV[:, EOS].masked_fill_(self._is_bad_V[words_NT[:, -1]], -torch.inf)
            if num_words == self._max_words - 1:  # the caption is cut behind it
                scores_NV.masked_fill_(self._is_bad_V, -torch.inf)
        if self._no_repeat_ngram is not None and num_words >= self._no_repeat_ngram:
            said_NPn = words_NT.unfold(1, self._no_repeat_ngram, 1)
            begun_Nn = words_NT[:, num_words - self._no_repeat_ngram + 1 :]
            is_begun_NP = (said_NPn[..., :-1] == begun_Nn.unsqueeze(1)).all(dim=2)
            # Where there is nothing to forbid, PAD is, once more.
            scores_NV.scatter_(1, said_NPn[..., -1].masked_fill(~is_begun_NP, PAD), -torch.inf)
