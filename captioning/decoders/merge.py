"""Merge model: the recurrent network reads words only, and meets the image just before the next word is said.

Tanti et al., What is the Role of Recurrent Neural Networks (RNNs) in an Image Caption Generator? (2017), and Where to
put the Image in an Image Caption Generator (2018); merged by addition, as widespread Keras tutorials on Flickr8k do.
The image is the mean over its cells, so grids and pooled features serve alike.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import nn

from captioning.params import Settings as PartSettings
from captioning.recurrence import Forced, Memory, RecurrentLayers, State, by_image, is_word
from captioning.words import Words


class Settings(PartSettings):
    """The `train.decoder` section."""

    name: str
    cell: Literal["rnn", "gru", "lstm"]
    embedding_width: int = Field(ge=1)
    hidden_width: int = Field(ge=1)
    """Of the recurrent state, the dense image vector, and the dense layer over their sum."""
    dropout: float = Field(ge=0, lt=1)
    """Of the encoder's image vector and the word embeddings."""
    tied_embeddings: bool
    """One matrix for the words read and the words said; needs embedding_width = hidden_width."""


class Decoder(nn.Module):
    """Adds what was read to what is seen."""

    has_full_attention, is_drawing = False, False

    def __init__(self, settings: Settings, *, feature_dim: int, vocabulary_size: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(settings.dropout)
        self.words = Words(
            vocabulary_size=vocabulary_size,
            embedding_width=settings.embedding_width,
            output_width=settings.hidden_width,
            tied=settings.tied_embeddings,
        )
        self.layers = RecurrentLayers(
            settings.cell,
            input_width=settings.embedding_width,
            hidden_width=settings.hidden_width,
            depth=1,
            dropout=0.0,
        )
        self.project = nn.Sequential(nn.Linear(feature_dim, settings.hidden_width), nn.ReLU())
        self.merge = nn.Sequential(nn.Linear(settings.hidden_width, settings.hidden_width), nn.ReLU())

    def prepare(self, features_BLD: torch.Tensor) -> Memory:
        """Return the dense image vector, B x H."""
        return {"image": self.project(self.dropout(features_BLD.mean(dim=1)))}

    def start(self, memory: Memory, num_rows: int) -> State:
        """Return the empty state before `<bos>`: no image was seen."""
        state: State = self.layers.empty_state(num_rows)
        return state

    def step(
        self, memory: Memory, state: State, tokens_N: torch.Tensor
    ) -> tuple[torch.Tensor, State, torch.Tensor | None]:
        """Read one word; return the output layer's input N x H and the next state."""
        hidden_N1H, state = self.layers(self.dropout(self.words(tokens_N)).unsqueeze(1), state)
        image_BH = memory["image"]
        sum_BKH = by_image(hidden_N1H.squeeze(1), len(image_BH)) + image_BH.unsqueeze(1)
        return self.merge(sum_BKH.flatten(0, 1)), state, None

    def forward(self, memory: Memory, tokens_NT: torch.Tensor, lengths_N: torch.Tensor) -> Forced:
        """Teacher forcing, all words in one call."""
        num_rows, num_steps = tokens_NT.shape
        hidden_NTH, _ = self.layers(self.dropout(self.words(tokens_NT)), self.start(memory, num_rows))
        is_word_NT = is_word(lengths_N, num_steps).to(tokens_NT.device)
        image_W = is_word_NT.nonzero()[:, 0] // (num_rows // len(memory["image"]))
        sum_WH = hidden_NTH[is_word_NT] + memory["image"].index_select(0, image_W)
        return Forced(output_WE=self.merge(sum_WH))
