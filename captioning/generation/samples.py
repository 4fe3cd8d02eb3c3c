"""Drawing words at random, for captions and for self-critical training."""

from collections.abc import Callable

import torch

from captioning.generation.search import Captions, Choice
from captioning.vocabulary import EOS


class Sampler:
    """Draws K captions of each image, word by word.

    Args:
        num_samples: K.
        random: of the captions on their way -> N numbers in [0, 1) on their device, one for the next word of each.
        temperature: divides log-probabilities.
        top_k: draws from the so many likeliest words.
        top_p: draws from the fewest of these words that share so much of their probability.
    """

    def __init__(
        self,
        num_samples: int,
        random: Callable[[Captions], torch.Tensor],
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> None:
        self.num_first_rows = num_samples
        self._random, self._temperature, self._top_k, self._top_p = random, temperature, top_k, top_p

    def choose(self, scores_NV: torch.Tensor, captions: Captions) -> Choice:
        """Draw a word for each caption."""
        words_NM, weighed_NM = None, scores_NV
        if self._temperature != 1:
            # The likeliest word keeps 0, whatever the temperature; others may go to -inf, never all.
            weighed_NM = (scores_NV - scores_NV.amax(dim=1, keepdim=True)) / self._temperature
        if self._top_k is not None or self._top_p is not None:
            weighed_NM, words_NM = likeliest(weighed_NM, top_k=self._top_k, top_p=self._top_p)
        drawn_N1 = draw(torch.softmax(weighed_NM, dim=1), self._random(captions)).unsqueeze(1)
        if words_NM is not None:
            drawn_N1 = words_NM.gather(1, drawn_N1)
        gains_N = scores_NV.gather(1, drawn_N1).squeeze(1)
        return Choice(
            rows_N=None,
            words_N=drawn_N1.squeeze(1).masked_fill(captions.has_ended_N, EOS),
            gains_N=gains_N.masked_fill(captions.has_ended_N, 0.0),
        )

    def is_final(self, captions: Captions) -> torch.Tensor:
        """Say of which images all captions have ended."""
        return captions.has_ended_N.view(len(captions.images_B), -1).all(dim=1)


def likeliest(
    scores_NV: torch.Tensor, *, top_k: int | None, top_p: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-probabilities of the likeliest words and the words, likeliest first, N x M.

    Words beyond the nucleus (Holtzman et al., 2020) have -inf. It is the fewest words that share `top_p` of the
    probability of those that `top_k` leaves, and at least one.
    """
    num_kept = scores_NV.shape[1] if top_k is None else min(top_k, scores_NV.shape[1])
    scores_NM, words_NM = scores_NV.topk(num_kept, dim=1)
    if top_p is not None:
        cumulative_NM = torch.softmax(scores_NM, dim=1).cumsum(dim=1)
        is_enough_NM = cumulative_NM[:, :-1] >= top_p
        scores_NM[:, 1:].masked_fill_(is_enough_NM, -torch.inf)
    return scores_NM, words_NM


def draw(probabilities_NV: torch.Tensor, random_N: torch.Tensor) -> torch.Tensor:
    """Draw a word for each row by one random number in [0, 1)."""
    # torch.multinomial makes V random numbers a row and takes 12 times as long.
    cumulative_NV = probabilities_NV.cumsum(dim=1)
    total_N1 = cumulative_NV[:, -1:]
    # The first word with a larger sum: never one of probability 0, and always one, as random * total < total.
    drawn_N = torch.searchsorted(cumulative_NV, random_N.unsqueeze(1) * total_N1, right=True).squeeze(1)
    # Scores that are not finite, for which there is none, show in what is made of them and not as an index.
    return drawn_N.clamp_(max=cumulative_NV.shape[1] - 1)
