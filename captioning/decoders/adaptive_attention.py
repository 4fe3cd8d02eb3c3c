"""LSTM with adaptive attention: Lu et al., Knowing When to Look: Adaptive Attention via a Visual Sentinel (2017).

Equation numbers are the paper's. The word is read first, together with the image as a whole; the new state then looks
at the grid and at a sentinel, what the LSTM itself knows. The weight of the sentinel, beta, says how little of the
image a word needed. The attention that is returned holds the weights of the cells: they add up to 1 - beta, so each
word's beta is what they lack to 1. The encoder's features are layer-normalised first, and the attention has a bias.
"""

import torch
from pydantic import Field
from torch import nn

from captioning.params import Settings as PartSettings
from captioning.recurrence import (
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
    embedding_width: int = Field(ge=1)
    """Of the words, and of the image as a whole, which is read with each."""
    attention_width: int = Field(ge=1)
    hidden_width: int = Field(ge=1)
    """Of the LSTM, the projected features, which are added to its state, and the output layer's input."""
    dropout: float = Field(ge=0, lt=1)
    """Of projected features, word embeddings and the output layer's input."""
    tied_embeddings: bool
    """One matrix for the words read and the words said; needs embedding_width = hidden_width."""


class Decoder(RecurrentDecoder):
    """Reads the word, then looks at the grid or away from it."""

    has_full_attention = False

    def __init__(self, settings: Settings, *, feature_dim: int, vocabulary_size: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(settings.dropout)
        self.normalise = nn.LayerNorm(feature_dim)
        self.project = nn.Sequential(nn.Linear(feature_dim, settings.hidden_width), nn.ReLU())
        self.project_whole = nn.Sequential(nn.Linear(feature_dim, settings.embedding_width), nn.ReLU())
        self.words = Words(
            vocabulary_size=vocabulary_size,
            embedding_width=settings.embedding_width,
            output_width=settings.hidden_width,
            tied=settings.tied_embeddings,
        )
        self.key = nn.Linear(settings.hidden_width, settings.attention_width, bias=False)
        self.sentinel_key = nn.Linear(settings.hidden_width, settings.attention_width, bias=False)
        self.query = nn.Linear(settings.hidden_width, settings.attention_width)
        self.energy = nn.Linear(settings.attention_width, 1, bias=False)
        # The LSTM's gates and the sentinel's have the same inputs.
        self.widths = (4 * settings.hidden_width, settings.hidden_width)
        self.from_hidden = nn.Linear(settings.hidden_width, sum(self.widths))
        self.from_word = nn.Linear(settings.embedding_width, sum(self.widths), bias=False)
        self.from_whole = nn.Linear(settings.embedding_width, sum(self.widths), bias=False)
        open_forget_gate(self.from_hidden.bias[: 4 * settings.hidden_width], "lstm")

    def prepare(self, features_BLD: torch.Tensor) -> Memory:
        """Return what is constant per image: projected features, attention keys, the whole's share of the gates."""
        features_BLD = self.normalise(features_BLD)
        values_BLH = self.dropout(self.project(features_BLD))  # (15)
        whole_BE = self.dropout(self.project_whole(features_BLD.mean(dim=1)))  # (14), (16)
        return {"values": values_BLH, "keys": self.key(values_BLH), "gates": self.from_whole(whole_BE)}

    def first_state(self, memory: Memory) -> State:
        """Return zeros: the image is read with each word."""
        zeros_BH = self.from_hidden.weight.new_zeros(len(memory["values"]), self.from_hidden.in_features)
        return {"hidden": zeros_BH, "cell": zeros_BH}

    def advance(
        self, memory: Memory, state: State, word_input_NG: torch.Tensor
    ) -> tuple[State, tuple[torch.Tensor, ...], torch.Tensor]:
        """Read the word and the whole image, then look at the grid and the sentinel with the new state."""
        num_images = len(memory["keys"])
        input_BKG = by_image(word_input_NG, num_images) + memory["gates"].unsqueeze(1)
        inputs_NG, sentinel_input_NH = input_BKG.flatten(0, 1).split(self.widths, dim=1)
        recurrent_NG, sentinel_recurrent_NH = self.from_hidden(state["hidden"]).split(self.widths, dim=1)
        state = update("lstm", state, inputs_NG, recurrent_NG)
        sentinel_NH = torch.sigmoid(sentinel_input_NH + sentinel_recurrent_NH)  # (9)
        sentinel_NH = sentinel_NH * torch.tanh(state["cell"])  # (10)
        query_NA = self.query(state["hidden"])
        energy_BKL = additive_scores(self.energy, memory["keys"], query_NA)  # (6)
        sentinel_energy_N1 = self.energy(torch.tanh(self.sentinel_key(sentinel_NH) + query_NA))
        attention_N = torch.softmax(
            torch.cat([energy_BKL.flatten(0, 1), sentinel_energy_N1], dim=1), dim=1
        )  # (12)
        attention_NL, beta_N1 = attention_N[:, :-1], attention_N[:, -1:]
        seen_NH = torch.bmm(by_image(attention_NL, num_images), memory["values"]).flatten(0, 1)
        context_NH = seen_NH + beta_N1 * sentinel_NH  # (11): these weights of the cells have 1 - beta in them
        return state, (context_NH + state["hidden"],), attention_NL

    def say(self, embedded_E: torch.Tensor, *said: torch.Tensor) -> torch.Tensor:
        """Return the inside of (13): state and context added."""
        output: torch.Tensor = self.dropout(*said)
        return output
