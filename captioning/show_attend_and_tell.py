"""The network of Xu et al., Show, Attend and Tell (2015), with gate and deep output; soft and hard attention share it.

Equation numbers are the paper's. All that does not depend on the previous word is taken out of the loop: the
attention's keys are computed once per image, the words' share of the LSTM's input and the output layer once per batch.
"""

from abc import abstractmethod

import torch
from pydantic import Field
from torch import nn

from captioning.params import Settings as PartSettings
from captioning.recurrence import (
    Memory,
    RecurrentDecoder,
    State,
    additive_scores,
    open_forget_gate,
    update,
)
from captioning.words import Words


class Settings(PartSettings):
    """The keys that both kinds of attention have."""

    name: str
    feature_width: int = Field(ge=1)
    """The encoder's features are projected to this width before they are attended to."""
    embedding_width: int = Field(ge=1)
    """Of the words, and of the output layer's input."""
    attention_width: int = Field(ge=1)
    hidden_width: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    """Of projected features, word embeddings and the output layer's input."""
    tied_embeddings: bool
    """One matrix for the words read and the words said."""


class ShowAttendAndTell(RecurrentDecoder):
    """Reads one word at a time and looks at the grid before it says the next; `look` says how."""

    def __init__(self, settings: Settings, *, feature_dim: int, vocabulary_size: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(settings.dropout)
        self.project = nn.Sequential(
            nn.LayerNorm(feature_dim), nn.Linear(feature_dim, settings.feature_width), nn.ReLU()
        )
        self.words = Words(
            vocabulary_size=vocabulary_size,
            embedding_width=settings.embedding_width,
            output_width=settings.embedding_width,
            tied=settings.tied_embeddings,
        )
        self.start_hidden = nn.Linear(settings.feature_width, settings.hidden_width)
        self.start_cell = nn.Linear(settings.feature_width, settings.hidden_width)
        self.key = nn.Linear(settings.feature_width, settings.attention_width)
        self.energy = nn.Linear(settings.attention_width, 1, bias=False)
        # What depends on the hidden state: the attention's query, the gate, the LSTM's recurrent input.
        self.widths = (settings.attention_width, settings.feature_width, 4 * settings.hidden_width)
        self.from_hidden = nn.Linear(settings.hidden_width, sum(self.widths))
        self.from_word = nn.Linear(settings.embedding_width, 4 * settings.hidden_width, bias=False)
        self.from_context = nn.Linear(settings.feature_width, 4 * settings.hidden_width, bias=False)
        self.hidden_output = nn.Linear(settings.hidden_width, settings.embedding_width)
        self.context_output = nn.Linear(settings.feature_width, settings.embedding_width, bias=False)
        open_forget_gate(self.from_hidden.bias[-4 * settings.hidden_width :], "lstm")

    @abstractmethod
    def look(
        self, energy_NL: torch.Tensor, state: State
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
        """Return the attention N x L (5), the weights N x L that the context is made with (6), and more for `said`."""

    def prepare(self, features_BLD: torch.Tensor) -> Memory:
        """Return what is constant per image: projected features, attention keys, and the first LSTM state."""
        values_BLF = self.dropout(self.project(features_BLD))
        mean_BF = values_BLF.mean(dim=1)
        return {
            "values": values_BLF,
            "keys": self.key(values_BLF),
            "hidden": torch.tanh(self.start_hidden(mean_BF)),
            "cell": self.start_cell(mean_BF),
        }

    def first_state(self, memory: Memory) -> State:
        """Return the state made of the mean feature."""
        return {name: memory[name] for name in ("hidden", "cell")}

    def advance(
        self, memory: Memory, state: State, word_input_NG: torch.Tensor
    ) -> tuple[State, tuple[torch.Tensor, ...], torch.Tensor]:
        """Look at the grid with the state before, then update it."""
        query_NA, gate_NF, recurrent_NG = self.from_hidden(state["hidden"]).split(self.widths, dim=1)
        energy_BKL = additive_scores(self.energy, memory["keys"], query_NA)  # (4)
        attention_NL, weights_NL, more = self.look(energy_BKL.flatten(0, 1), state)
        weights_BKL = weights_NL.view_as(energy_BKL)
        context_NF = torch.bmm(weights_BKL, memory["values"]).flatten(0, 1)  # (9) or (13)
        context_NF = torch.sigmoid(gate_NF) * context_NF  # section 4.2.1, one gate a feature
        state = state | update(
            "lstm", state, word_input_NG + self.from_context(context_NF), recurrent_NG
        )  # (1) to (3)
        return state, (state["hidden"], context_NF, *more), attention_NL

    def say(self, embedded_E: torch.Tensor, *said: torch.Tensor) -> torch.Tensor:
        """Return the inside of (7): word, state and context added."""
        hidden, context, *_ = said
        output: torch.Tensor = self.dropout(
            embedded_E + self.hidden_output(hidden) + self.context_output(context)
        )
        return output
