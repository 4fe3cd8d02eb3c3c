"""Beam search and diverse beam search as choices of words."""

import torch

from captioning.generation.search import Captions, Choice
from captioning.generation.settings import LengthNormalisation
from captioning.vocabulary import EOS


class Beams:
    """Keeps the best captions of each group; plain beam search has one group.

    An ended caption keeps its place at no cost. Captions are compared by their log-probability, divided by what
    `normalisation` says.

    Args:
        width: of all groups together.
        num_groups: G.
        diversity_penalty: of a word that groups before have chosen, in nats a caption.
        normalisation: of the lengths.
        max_words: the longest caption.
        top: the best so many captions of an image are asked for.
    """

    num_first_rows = 1  # all beams begin alike

    def __init__(
        self,
        *,
        width: int,
        num_groups: int = 1,
        diversity_penalty: float = 0.0,
        normalisation: LengthNormalisation | None,
        max_words: int,
        top: int,
    ) -> None:
        self._num_groups, self._group_width = num_groups, width // num_groups
        self._diversity_penalty, self._normalisation = diversity_penalty, normalisation
        self._max_words, self._top = max_words, top

    def choose(self, scores_NV: torch.Tensor, captions: Captions) -> Choice:
        """Choose each group's best captions, one group after the other."""
        is_first = captions.words_NT.shape[1] == 1
        shape = (len(captions.images_B), 1 if is_first else self._num_groups, -1)
        scores_BGWV = scores_NV.view(*shape, scores_NV.shape[1])
        so_far_BGW, terms_BGW = captions.scores_N.view(shape), captions.num_terms_N.view(shape)
        has_ended_BGW = captions.has_ended_N.view(shape)
        rows_BGW = torch.arange(len(scores_NV), device=scores_NV.device).view(shape)
        said_BV = scores_NV.new_zeros(shape[0], scores_NV.shape[1])
        chosen: list[tuple[torch.Tensor, ...]] = []
        for group in range(self._num_groups):
            place = 0 if is_first else group
            has_ended_BW = has_ended_BGW[:, place]
            words_BWM, gains_BWM, worth_BWM = self._candidates(scores_BGWV[:, place], has_ended_BW, said_BV)
            rank_BX = rank(
                so_far_BGW[:, place].unsqueeze(2) + worth_BWM,
                (terms_BGW[:, place] + ~has_ended_BW).unsqueeze(2),
                self._normalisation,
            ).flatten(1)
            best_BW = rank_BX.topk(min(self._group_width, rank_BX.shape[1]), dim=1).indices
            parents_BW = torch.div(best_BW, words_BWM.shape[2], rounding_mode="floor")
            words_BW, gains_BW = (own.flatten(1).gather(1, best_BW) for own in (words_BWM, gains_BWM))
            is_new_BW = ~has_ended_BW.gather(1, parents_BW)
            said_BV.scatter_add_(1, words_BW, is_new_BW.to(said_BV.dtype))
            chosen.append((rows_BGW[:, place].gather(1, parents_BW), words_BW, gains_BW))
        rows_N, words_N, gains_N = (torch.cat(own, dim=1).flatten() for own in zip(*chosen, strict=True))
        return Choice(rows_N=rows_N, words_N=words_N, gains_N=gains_N)

    def _candidates(
        self, scores_BWV: torch.Tensor, has_ended_BW: torch.Tensor, said_BV: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return each caption's best next words, their log-probabilities, and these less the penalty, B x W x M.

        The best of an image are among the best of its rows. An ended caption has one candidate, `<eos>` at no cost.
        """
        worth_BWV = scores_BWV
        if self._diversity_penalty:
            worth_BWV = scores_BWV - self._diversity_penalty * said_BV.unsqueeze(1)
        worth_BWM, words_BWM = worth_BWV.topk(min(self._group_width, worth_BWV.shape[2]), dim=2)
        gains_BWM = scores_BWV.gather(2, words_BWM)
        stays_M = torch.full_like(worth_BWM[0, 0], -torch.inf)
        stays_M[0] = 0.0
        has_ended_BW1 = has_ended_BW.unsqueeze(2)
        return (
            words_BWM.masked_fill(has_ended_BW1, EOS),
            torch.where(has_ended_BW1, stays_M, gains_BWM),
            torch.where(has_ended_BW1, stays_M, worth_BWM),
        )

    def is_final(self, captions: Captions) -> torch.Tensor:
        """Say of which images the best captions have ended, and no unfinished one can come before them."""
        num_images = len(captions.images_B)
        # One that every word is forbidden to has a score of -inf, and stays where it is.
        ended_BK = (captions.has_ended_N | captions.scores_N.isneginf()).view(num_images, -1)
        if self._num_groups > 1 or self._top >= ended_BK.shape[1]:
            return ended_BK.all(dim=1)
        rank_BK = rank(captions.scores_N, captions.num_terms_N, self._normalisation).view(num_images, -1)
        # Log-probabilities only fall as words are added; divided by most they are nearest to 0.
        longest_N = torch.full_like(captions.num_terms_N, self._max_words)
        bound_BK = rank(captions.scores_N, longest_N, self._normalisation).view(num_images, -1)
        best_open_B = bound_BK.masked_fill(ended_BK, -torch.inf).amax(dim=1)
        return ended_BK[:, : self._top].all(dim=1) & (rank_BK[:, self._top - 1] >= best_open_B)


def rank(
    scores: torch.Tensor, num_terms: torch.Tensor, normalisation: LengthNormalisation | None
) -> torch.Tensor:
    """Return what captions are compared by, of their log-probabilities and the numbers of their terms."""
    return scores if normalisation is None else scores / normalisation.divisor(num_terms)
