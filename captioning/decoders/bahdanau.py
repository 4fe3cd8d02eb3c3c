"""Recurrent network with additive attention: Bahdanau et al. (2015), in the form of TensorFlow's captioning tutorial.

The paper is Neural Machine Translation by Jointly Learning to Align and Translate. The state before looks at the grid;
what it sees is read together with the word; a dense layer over the new state says the next. Compared with
`soft_attention` there is neither a gate nor a first state made of the image, and the cell can be chosen. The encoder's
features are layer-normalised first.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import nn

from captioning.params import Settings as PartSettings
from captioning.recurrence import (
    NUM_GATES,
    Memory,
    RecurrentDecoder,
    State,
    additive_scores,
    open_forget_gate,
    update,
)
from captioning.words import Words


class Settings(PartSettings):
    """The `train.decoder` section."""

    name: str
    cell: Literal["rnn", "gru", "lstm"]
    feature_width: int = Field(ge=1)
    """The encoder's features are projected to this width before they are attended to."""
    attention_width: int = Field(ge=1)
    embedding_width: int = Field(ge=1)
    """Of the words, and of the output layer's input."""
    hidden_width: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    """Of projected features, word embeddings and the output layer's input."""
    tied_embeddings: bool
    """One matrix for the words read and the words said."""


class Decoder(RecurrentDecoder):
    """Looks at the grid, then reads the word."""

    def __init__(self, settings: Settings, *, feature_dim: int, vocabulary_size: int) -> None:
        super().__init__()
        self.cell, self.hidden_width = settings.cell, settings.hidden_width
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
        self.key = nn.Linear(settings.feature_width, settings.attention_width, bias=False)
        self.energy = nn.Linear(settings.attention_width, 1, bias=False)
        gates_width = NUM_GATES[settings.cell] * settings.hidden_width
        # What depends on the hidden state: the attention's query and the cell's recurrent input.
        self.widths = (settings.attention_width, gates_width)
        self.from_hidden = nn.Linear(settings.hidden_width, sum(self.widths))
        self.from_word = nn.Linear(settings.embedding_width, gates_width)
        self.from_context = nn.Linear(settings.feature_width, gates_width, bias=False)
        self.hidden_output = nn.Linear(settings.hidden_width, settings.embedding_width)
        open_forget_gate(self.from_hidden.bias[-gates_width:], settings.cell)

    def prepare(self, features_BLD: torch.Tensor) -> Memory:
        """Return what is constant per image: projected features and attention keys."""
        values_BLF = self.dropout(self.project(features_BLD))
        return {"values": values_BLF, "keys": self.key(values_BLF)}

    def first_state(self, memory: Memory) -> State:
        """Return zeros: the image is met at the first look."""
        zeros_BH = self.from_hidden.weight.new_zeros(len(memory["values"]), self.hidden_width)
        return {"hidden": zeros_BH, "cell": zeros_BH} if self.cell == "lstm" else {"hidden": zeros_BH}

    def advance(
        self, memory: Memory, state: State, word_input_NG: torch.Tensor
    ) -> tuple[State, tuple[torch.Tensor, ...], torch.Tensor]:
        """Look at the grid with the state before, then read the word and what was seen."""
        query_NA, recurrent_NG = self.from_hidden(state["hidden"]).split(self.widths, dim=1)
        energy_BKL = additive_scores(self.energy, memory["keys"], query_NA)
        attention_BKL = torch.softmax(energy_BKL, dim=2)
        context_NF = torch.bmm(attention_BKL, memory["values"]).flatten(0, 1)
        state = update(self.cell, state, word_input_NG + self.from_context(context_NF), recurrent_NG)
        return state, (state["hidden"],), attention_BKL.flatten(0, 1)

    def say(self, embedded_E: torch.Tensor, *said: torch.Tensor) -> torch.Tensor:
        """Return the dense layer over the new state."""
        output: torch.Tensor = self.dropout(self.hidden_output(*said))
        return output
