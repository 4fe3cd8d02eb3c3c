"""LSTM with hard attention: Xu et al., Show, Attend and Tell (2015), section 4.1, trained with REINFORCE.

In training one cell is drawn at each word and the context is that cell alone; the network is that of `soft_attention`.
The attention learns from how likely the caption became with the cells that were drawn (`Decoder.choice_loss`).
In evaluation mode nothing is drawn: the context is the expected one (13), as in the paper's released code (capgen.py,
`alpha_sample = alpha` without `-sampling`), so that a picture always gets the same caption.
"""

from collections.abc import Callable

import torch
from pydantic import Field

from captioning import show_attend_and_tell
from captioning.recurrence import Memory, State

DRAWN_SHARE = 0.5
"""Of the captions; the others see the expected context in training too, as the paper has it to reduce the variance."""

BASELINE_DECAY = 0.9


class Settings(show_attend_and_tell.Settings):
    """The `train.decoder` section."""

    lambda_r: float = Field(ge=0)
    """Weight of REINFORCE; 1 follows the gradient of the likelihood's bound (11), less is less noisy."""
    lambda_e: float = Field(ge=0)
    """Weight of the attention's entropy, in nats a word, which keeps it from settling too early."""


class Decoder(show_attend_and_tell.ShowAttendAndTell):
    """Reads one word at a time and looks at one cell of the grid before it says the next."""

    is_drawing = True
    baseline: torch.Tensor
    """Moving average of the log-likelihood of a word."""

    def __init__(self, settings: Settings, *, feature_dim: int, vocabulary_size: int) -> None:
        super().__init__(settings, feature_dim=feature_dim, vocabulary_size=vocabulary_size)
        self.lambda_r, self.lambda_e = settings.lambda_r, settings.lambda_e
        self.register_buffer("baseline", torch.zeros(()))

    def start(self, memory: Memory, num_rows: int) -> State:
        """Return the state before the first word; in training it says which captions draw their cells."""
        state = super().start(memory, num_rows)
        if self.training:
            state["is_drawn"] = torch.rand(num_rows, 1, device=state["hidden"].device) < DRAWN_SHARE
        return state

    def look(
        self, energy_NL: torch.Tensor, state: State
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
        """Draw a cell (8), or take the expected value of the draw (13); also return log p(s_t) and the entropy."""
        log_attention_NL = torch.log_softmax(energy_NL, dim=1)
        attention_NL = log_attention_NL.exp()  # (5)
        if "is_drawn" not in state:
            return attention_NL, attention_NL, ()
        # Each cell is the first to arrive with its probability; torch.multinomial would wait for a GPU at each word.
        arrival_NL = torch.empty_like(attention_NL).exponential_() / attention_NL.detach()
        cell_N1 = arrival_NL.argmin(dim=1, keepdim=True)
        one_hot_NL = torch.zeros_like(attention_NL).scatter(1, cell_N1, 1.0)
        weights_NL = torch.where(state["is_drawn"], one_hot_NL, attention_NL)
        log_choice_N1 = state["is_drawn"] * log_attention_NL.gather(1, cell_N1)
        entropy_N1 = -(attention_NL * log_attention_NL).sum(dim=1, keepdim=True)
        return attention_NL, weights_NL, (log_choice_N1, entropy_N1)

    def choice_loss(
        self, row_W: torch.Tensor, *said: torch.Tensor
    ) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """Return the last two terms of the paper's learning rule, as a loss of each word; None in evaluation mode.

        The reward of a draw is the log-likelihood of its whole caption. The baseline is subtracted for each word, so
        that captions of all lengths share it; it moves by a step whenever the loss is computed.
        """
        if not self.training:
            return None
        log_choice_W, entropy_W = (own.squeeze(1) for own in said[-2:])

        def loss(log_likelihood_W: torch.Tensor) -> torch.Tensor:
            better_W = log_likelihood_W - self.baseline
            better_N = better_W.new_zeros(int(row_W[-1]) + 1).index_add(0, row_W, better_W)
            self.baseline.lerp_(log_likelihood_W.mean(), 1 - BASELINE_DECAY)
            return -self.lambda_r * better_N[row_W] * log_choice_W - self.lambda_e * entropy_W

        return loss
