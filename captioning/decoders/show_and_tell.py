"""Recurrent network that is shown the image once, before the first word: Vinyals et al., Show and Tell (2015).

`image: first_input` is the paper's model (and im2txt's): the projected image is read as if it were a word before
`<bos>`. With `first_state` it is the state that `<bos>` is read in (init-inject of Tanti et al., 2018). The image is
the mean over its cells, so grids and pooled features serve alike.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import nn

from captioning.params import Settings as PartSettings
from captioning.recurrence import Forced, Memory, RecurrentLayers, State, is_word
from captioning.words import Words


class Settings(PartSettings):
    """The `train.decoder` section."""

    name: str
    cell: Literal["rnn", "gru", "lstm"]
    depth: int = Field(ge=1)
    """Number of layers."""
    image: Literal["first_input", "first_state"]
    """What the projected image is: read before `<bos>`, or made the first state of all layers."""
    batch_norm: bool
    """Of the projected image."""
    embedding_width: int = Field(ge=1)
    hidden_width: int = Field(ge=1)
    """Of each layer, and of the output layer's input."""
    dropout: float = Field(ge=0, lt=1)
    """Of the projected image, word embeddings, what a layer gives the next, and the output layer's input."""
    tied_embeddings: bool
    """One matrix for the words read and the words said; needs embedding_width = hidden_width."""


class Decoder(nn.Module):
    """Reads the image, then the words; it never looks at the image again."""

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
            depth=settings.depth,
            dropout=settings.dropout,
        )
        self.is_image_read = settings.image == "first_input"
        width = (
            settings.embedding_width
            if self.is_image_read
            else len(self.layers.names) * settings.depth * settings.hidden_width
        )
        self.project = nn.Linear(feature_dim, width, bias=not settings.batch_norm)
        self.normalise = ImageNorm(width) if settings.batch_norm else nn.Identity()

    def prepare(self, features_BLD: torch.Tensor) -> Memory:
        """Return the state in which `<bos>` is read: `hidden` and for an LSTM `cell`, B x depth x H."""
        image_BE = self.dropout(self.normalise(self.project(features_BLD.mean(dim=1))))
        if self.is_image_read:
            _, state = self.layers(image_BE.unsqueeze(1), self.layers.empty_state(len(image_BE)))
            return dict(state)
        states = image_BE.unflatten(1, (-1, *self.layers.state_shape)).unbind(1)
        return {**dict(zip(self.layers.names, states, strict=True)), "hidden": torch.tanh(states[0])}

    def start(self, memory: Memory, num_rows: int) -> State:
        """Return the state before `<bos>`."""
        return {
            name: tensor.repeat_interleave(num_rows // len(tensor), dim=0) for name, tensor in memory.items()
        }

    def step(
        self, memory: Memory, state: State, tokens_N: torch.Tensor
    ) -> tuple[torch.Tensor, State, torch.Tensor | None]:
        """Read one word; return the output layer's input N x H and the next state."""
        hidden_N1H, state = self.layers(self.dropout(self.words(tokens_N)).unsqueeze(1), state)
        return self.dropout(hidden_N1H.squeeze(1)), state, None

    def forward(self, memory: Memory, tokens_NT: torch.Tensor, lengths_N: torch.Tensor) -> Forced:
        """Teacher forcing, all words in one call."""
        state = self.start(memory, len(tokens_NT))
        hidden_NTH, _ = self.layers(self.dropout(self.words(tokens_NT)), state)
        is_word_NT = is_word(lengths_N, tokens_NT.shape[1]).to(tokens_NT.device)
        return Forced(output_WE=self.dropout(hidden_NTH[is_word_NT]))


class ImageNorm(nn.BatchNorm1d):
    """Batch normalisation (Ioffe and Szegedy, 2015) that takes a batch of one image, which has no deviation.

    That image is normalised by the running statistics, which it does not move.
    """

    def forward(self, image_BE: torch.Tensor) -> torch.Tensor:
        """Return the image vectors, each channel normalised over the batch."""
        if len(image_BE) > 1:
            return super().forward(image_BE)
        return nn.functional.batch_norm(
            image_BE, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )
