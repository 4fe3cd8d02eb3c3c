"""Recurrent network with multiplicative attention: Luong et al. (2015), global attention over the cells of the grid.

The paper is Effective Approaches to Attention-based Neural Machine Translation; sections and equations are its own. The
word is read first, then the new state looks at the grid; with `input_feeding` the outcome is read with the next word.
The encoder's features are layer-normalised first, and their mean makes the first state.
"""

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from captioning.params import Settings as PartSettings
from captioning.recurrence import (
    NUM_GATES,
    Memory,
    RecurrentDecoder,
    State,
    additive_scores,
    by_image,
    open_forget_gate,
    update,
)
from captioning.words import Words


class Settings(PartSettings):
    """The `train.decoder` section."""

    name: str
    cell: Literal["rnn", "gru", "lstm"]
    score: Literal["dot", "general", "concat"]
    """Of a state h and a cell v (section 3.1): h v, h W v, or w tanh(W [h; v]).

    `dot` needs feature_width = hidden_width.
    """
    input_feeding: bool
    """The attentional vector is read with the next word (section 3.3)."""
    feature_width: int = Field(ge=1)
    """The encoder's features are projected to this width before they are attended to."""
    embedding_width: int = Field(ge=1)
    """Of the words, and of the attentional vector, which is the output layer's input."""
    hidden_width: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    """Of projected features, word embeddings and the output layer's input."""
    tied_embeddings: bool
    """One matrix for the words read and the words said."""

    @model_validator(mode="after")
    def _can_be_multiplied(self) -> Self:
        if self.score == "dot" and self.feature_width != self.hidden_width:
            raise ValueError(
                f"score: dot multiplies features with states, so feature_width ({self.feature_width}) must equal "
                f"hidden_width ({self.hidden_width}): change one of them, or set score: general"
            )
        return self


class Decoder(RecurrentDecoder):
    """Reads the word, then looks at the grid."""

    def __init__(self, settings: Settings, *, feature_dim: int, vocabulary_size: int) -> None:
        super().__init__()
        self.cell = settings.cell
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
        self.start_cell = (
            nn.Linear(settings.feature_width, settings.hidden_width) if settings.cell == "lstm" else None
        )
        self.key = (
            nn.Identity()
            if settings.score == "dot"
            else nn.Linear(settings.feature_width, settings.hidden_width, bias=False)
        )
        is_additive = settings.score == "concat"
        self.query = nn.Linear(settings.hidden_width, settings.hidden_width) if is_additive else nn.Identity()
        self.energy = nn.Linear(settings.hidden_width, 1, bias=False) if is_additive else None
        gates_width = NUM_GATES[settings.cell] * settings.hidden_width
        self.from_hidden = nn.Linear(settings.hidden_width, gates_width)
        self.from_word = nn.Linear(settings.embedding_width, gates_width)
        self.from_attended = (
            nn.Linear(settings.embedding_width, gates_width, bias=False) if settings.input_feeding else None
        )
        self.hidden_output = nn.Linear(settings.hidden_width, settings.embedding_width)
        self.context_output = nn.Linear(settings.feature_width, settings.embedding_width, bias=False)
        open_forget_gate(self.from_hidden.bias, settings.cell)

    def prepare(self, features_BLD: torch.Tensor) -> Memory:
        """Return what is constant per image: projected features, attention keys, and the first state."""
        values_BLF = self.dropout(self.project(features_BLD))
        mean_BF = values_BLF.mean(dim=1)
        memory = {
            "values": values_BLF,
            "keys": self.key(values_BLF),
            "hidden": torch.tanh(self.start_hidden(mean_BF)),
        }
        return memory if self.start_cell is None else {**memory, "cell": self.start_cell(mean_BF)}

    def first_state(self, memory: Memory) -> State:
        """Return the state made of the mean feature; the attentional vector begins with zeros."""
        state: State = {name: memory[name] for name in ("hidden", "cell") if name in memory}
        if self.from_attended is not None:
            width = self.from_attended.in_features
            state["attended"] = self.from_attended.weight.new_zeros(len(memory["hidden"]), width)
        return state

    def advance(
        self, memory: Memory, state: State, word_input_NG: torch.Tensor
    ) -> tuple[State, tuple[torch.Tensor, ...], torch.Tensor]:
        """Read the word, then look at the grid with the new state."""
        if self.from_attended is not None:
            word_input_NG = word_input_NG + self.from_attended(state["attended"])
        state = update(self.cell, state, word_input_NG, self.from_hidden(state["hidden"]))
        attention_BKL = torch.softmax(self._scores(state["hidden"], memory["keys"]), dim=2)  # (7)
        context_NF = torch.bmm(attention_BKL, memory["values"]).flatten(0, 1)
        attended_NE = torch.tanh(self.context_output(context_NF) + self.hidden_output(state["hidden"]))  # (5)
        if self.from_attended is not None:
            state["attended"] = attended_NE
        return state, (attended_NE,), attention_BKL.flatten(0, 1)

    def say(self, embedded_E: torch.Tensor, *said: torch.Tensor) -> torch.Tensor:
        """Return the attentional vector."""
        output: torch.Tensor = self.dropout(*said)
        return output

    def _scores(self, hidden_NH: torch.Tensor, keys_BLH: torch.Tensor) -> torch.Tensor:
        """Return the scores of section 3.1, B x K x L; what W makes of the cells was computed once per image."""
        if self.energy is None:
            return torch.bmm(by_image(hidden_NH, len(keys_BLH)), keys_BLH.transpose(1, 2))
        return additive_scores(self.energy, keys_BLH, self.query(hidden_NH))
