"""Two LSTMs, one that looks and one that speaks: Anderson et al., Bottom-Up and Top-Down Attention (2018).

Equation numbers are those of the paper's section 3.2. Where it attends to the regions of an object detector, this one
attends to the cells of the encoder's grid. All that does not depend on the previous word is taken out of the loop.
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
    feature_width: int = Field(ge=1)
    """The encoder's features are projected to this width before they are attended to."""
    embedding_width: int = Field(ge=1)
    attention_width: int = Field(ge=1)
    hidden_width: int = Field(ge=1)
    """Of both LSTMs, and of the output layer's input."""
    dropout: float = Field(ge=0, lt=1)
    """Of projected features, word embeddings and the output layer's input."""
    tied_embeddings: bool
    """One matrix for the words read and the words said; embedding_width is then equal to hidden_width."""


class Decoder(RecurrentDecoder):
    """Reads one word at a time; the attention LSTM decides where to look, the language LSTM what to say of it."""

    def __init__(self, settings: Settings, *, feature_dim: int, vocabulary_size: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(settings.dropout)
        self.project = nn.Sequential(
            nn.LayerNorm(feature_dim), nn.Linear(feature_dim, settings.feature_width), nn.ReLU()
        )
        self.words = Words(
            vocabulary_size=vocabulary_size,
            embedding_width=settings.embedding_width,
            output_width=settings.hidden_width,
            tied=settings.tied_embeddings,
        )
        num_gates = 4 * settings.hidden_width
        self.key = nn.Linear(settings.feature_width, settings.attention_width, bias=False)  # W_va
        self.energy = nn.Linear(settings.attention_width, 1, bias=False)  # w_a
        self.from_word = nn.Linear(settings.embedding_width, num_gates, bias=False)
        self.from_mean = nn.Linear(settings.feature_width, num_gates, bias=False)
        self.from_attention_before = nn.Linear(settings.hidden_width, num_gates, bias=False)
        # Of the language LSTM's state before: the attention LSTM's input, and its own recurrent input; biases of both.
        self.from_language_before = nn.Linear(settings.hidden_width, 2 * num_gates)
        # Of the attention LSTM's new state: the attention's query (W_ha), and the language LSTM's input.
        self.widths = (settings.attention_width, num_gates)
        self.from_attention = nn.Linear(settings.hidden_width, sum(self.widths), bias=False)
        self.from_context = nn.Linear(settings.feature_width, num_gates, bias=False)
        for own_bias in self.from_language_before.bias.chunk(2):
            open_forget_gate(own_bias, "lstm")
        # The states of two LSTMs are so small at the start that words and scores of the usual size leave them without
        # a signal for long: validation loss 4.55 instead of 3.47 after 8 epochs on 1,500 photographs of Flickr8k.
        output_weight = self.words.output_weight
        nn.init.normal_(self.words.embedding.weight)
        nn.init.normal_(
            self.words.embedding.weight if output_weight is None else output_weight,
            std=3 * settings.hidden_width**-0.5,
        )

    def prepare(self, features_BLD: torch.Tensor) -> Memory:
        """Return what is constant per image: projected features, attention keys, and the mean feature's gates."""
        values_BLF = self.dropout(self.project(features_BLD))
        return {
            "values": values_BLF,
            "keys": self.key(values_BLF),
            "mean_gates": self.from_mean(values_BLF.mean(dim=1)),
        }

    def first_state(self, memory: Memory) -> State:
        """Return zeros: the mean feature is read at every word."""
        zeros_BH = memory["values"].new_zeros(len(memory["values"]), self.from_attention_before.in_features)
        return {
            f"{name}_{kind}": zeros_BH for name in ("attention", "language") for kind in ("hidden", "cell")
        }

    def advance(
        self, memory: Memory, state: State, word_input_NG: torch.Tensor
    ) -> tuple[State, tuple[torch.Tensor, ...], torch.Tensor]:
        """Update the attention LSTM, look at the grid with its state, and update the language LSTM."""
        num_images = len(memory["keys"])
        attention_input_NG, language_recurrent_NG = self.from_language_before(state["language_hidden"]).chunk(
            2, dim=1
        )
        image_word_NG = (by_image(word_input_NG, num_images) + memory["mean_gates"].unsqueeze(1)).flatten(
            0, 1
        )
        attention_hidden, attention_cell = self._update(
            state,
            "attention",
            image_word_NG + attention_input_NG,  # (2)
            self.from_attention_before(state["attention_hidden"]),
        )
        query_NA, language_input_NG = self.from_attention(attention_hidden).split(self.widths, dim=1)
        energy_BKL = additive_scores(self.energy, memory["keys"], query_NA)  # (3)
        attention_BKL = torch.softmax(energy_BKL, dim=2)  # (4)
        context_NF = torch.bmm(attention_BKL, memory["values"]).flatten(0, 1)  # (5)
        language_hidden, language_cell = self._update(
            state,
            "language",
            self.from_context(context_NF) + language_input_NG,  # (6)
            language_recurrent_NG,
        )
        state = {
            "attention_hidden": attention_hidden,
            "attention_cell": attention_cell,
            "language_hidden": language_hidden,
            "language_cell": language_cell,
        }
        return state, (language_hidden,), attention_BKL.flatten(0, 1)

    def say(self, embedded_E: torch.Tensor, *said: torch.Tensor) -> torch.Tensor:
        """Return the language LSTM's state, which (7) is linear in."""
        output: torch.Tensor = self.dropout(said[0])
        return output

    @staticmethod
    def _update(
        state: State, name: str, inputs_NG: torch.Tensor, recurrent_NG: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the next hidden state and cell of one of the two LSTMs (1)."""
        own = {kind: state[f"{name}_{kind}"] for kind in ("hidden", "cell")}
        own = update("lstm", own, inputs_NG, recurrent_NG)
        return own["hidden"], own["cell"]
