"""LSTM with soft attention: Xu et al., Show, Attend and Tell (2015), section 4.2, with its gate and deep output."""

import torch

from captioning import show_attend_and_tell
from captioning.recurrence import State


class Settings(show_attend_and_tell.Settings):
    """The `train.decoder` section."""


class Decoder(show_attend_and_tell.ShowAttendAndTell):
    """Reads one word at a time and looks at the whole grid, here more and there less, before it says the next."""

    def look(
        self, energy_NL: torch.Tensor, state: State
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
        """Weigh the cells by the attention (13)."""
        attention_NL = torch.softmax(energy_NL, dim=1)  # (5)
        return attention_NL, attention_NL, ()
