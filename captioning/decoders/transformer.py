"""Transformer: Vaswani et al., Attention Is All You Need (2017), on grid features, as in Cornia et al. (2020).

Section numbers are those of Vaswani et al. Layers normalise what they read, not what they add to (pre-norm; Xiong et
al., 2020), so that deep ones train too. The keys and values of the cells are computed once per image, and all captions
of an image ask in one query, so that nothing of an image is copied; what concerns single words is computed for words,
not for padding.

A decoder is told neither rows nor columns of the grid, and a learned vector for each cell would tie it to one number of
cells. Cells are numbered in reading order instead, and the number's sinusoids are added, as those of its position are
to a word. All pictures of a model have one grid, so a number always means the same place.

Teacher forcing returns no attention weights, which the fused kernel never writes down: the doubly stochastic penalty
has nothing to act on. In search, with one query a row, they are those of the last layer, the mean over its heads.
"""

from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import nn

from captioning.params import Settings as PartSettings
from captioning.recurrence import Forced, Memory, State, is_word
from captioning.words import Words


class Settings(PartSettings):
    """The `train.decoder` section."""

    name: str
    width: int = Field(ge=1)
    """Of cells, words, and everything that layers pass on."""
    num_heads: int = Field(ge=1)
    """Of each attention; they share the width evenly."""
    encoder_depth: int = Field(ge=0)
    """Layers of self-attention over the cells; with 0 the words attend to the projected features themselves."""
    decoder_depth: int = Field(ge=1)
    feedforward_width: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    """Of what layers add, of attention weights, of the feed-forward's inside, and of embedded words and cells."""
    tied_embeddings: bool
    """One matrix for the words read and the words said."""

    @field_validator("num_heads")
    @classmethod
    def _divides_width(cls, num_heads: int, info: ValidationInfo) -> int:
        width = info.data.get("width", 0)  # absent when it was refused itself
        if width % num_heads:
            raise ValueError(
                f"{num_heads} heads cannot share a width of {width} evenly: choose a num_heads that divides it"
            )
        return num_heads


def sinusoids(
    num_positions: int, width: int, *, first: int = 0, device: torch.device | None = None
) -> torch.Tensor:
    """Return the vectors of positions from `first` on, `num_positions` x `width` (section 3.5); none is the last."""
    position = torch.arange(first, first + num_positions, device=device).unsqueeze(1)
    frequency = 10_000 ** (-torch.arange(0, width, 2, device=device) / width)
    angle = position * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, :width]


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where W words lie in a table of N rows and T places."""

    num_rows: int
    num_steps: int
    index_W: torch.Tensor | None = None
    """Row times T plus step; None where each place has its word."""

    def pad(self, words_WE: torch.Tensor) -> torch.Tensor:
        """Return N x T x E, zero where there is no word."""
        if self.index_W is not None:
            table = words_WE.new_zeros(self.num_rows * self.num_steps, words_WE.shape[1])
            words_WE = table.index_copy(0, self.index_W, words_WE)
        return words_WE.view(self.num_rows, self.num_steps, -1)

    def pack(self, table_NTE: torch.Tensor) -> torch.Tensor:
        """Return W x E, the inverse of `pad`."""
        rows_E = table_NTE.reshape(self.num_rows * self.num_steps, -1)
        return rows_E if self.index_W is None else rows_E.index_select(0, self.index_W)


class Attention(nn.Module):
    """Multi-head attention (section 3.2), in parts: what does not change between words is computed once.

    Keys and values are one tensor, N x 2 x S x E.
    """

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)

    @staticmethod
    def split(key_value_NSG: torch.Tensor) -> torch.Tensor:
        """Return keys and values, of N x S rows that `key_value` gave."""
        return key_value_NSG.unflatten(2, (2, -1)).transpose(1, 2)

    def forward(
        self, query_NTE: torch.Tensor, keys_values_N2SE: torch.Tensor, *, is_causal: bool = False
    ) -> torch.Tensor:
        """Return the heads' values side by side, N x T x E, which `output` mixes (1)."""
        key, value = self._heads(keys_values_N2SE).unbind(1)
        context = nn.functional.scaled_dot_product_attention(
            self._heads(query_NTE),
            key,
            value,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=is_causal,
        )
        return context.transpose(1, 2).flatten(2)

    def weights(self, query_NTE: torch.Tensor, keys_values_N2SE: torch.Tensor) -> torch.Tensor:
        """Return how much each query takes of each value, N x T x S, mean over the heads."""
        query, key = self._heads(query_NTE), self._heads(keys_values_N2SE[:, 0])
        energy = query @ key.transpose(2, 3) * query.shape[3] ** -0.5
        return torch.softmax(energy, dim=3).mean(dim=1)

    def _heads(self, rows_E: torch.Tensor) -> torch.Tensor:
        """Return ... x heads x rows x E / heads, of ... x rows x E."""
        return rows_E.unflatten(-1, (self.num_heads, -1)).transpose(-3, -2)


class FeedForward(nn.Sequential):
    """Two layers, for each word or cell by itself (2)."""

    def __init__(self, width: int, inner_width: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(width, inner_width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(inner_width, width)
        )


class EncoderLayer(nn.Module):
    """The cells look at each other."""

    def __init__(self, width: int, num_heads: int, feedforward_width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.attention_norm, self.feedforward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, num_heads, dropout)
        self.feedforward = FeedForward(width, feedforward_width, dropout)

    def forward(self, cells_BLE: torch.Tensor) -> torch.Tensor:
        """Return the cells, each with what it took from the others."""
        own, normed = self.attention, self.attention_norm(cells_BLE)
        context = own(own.query(normed), own.split(own.key_value(normed)))
        cells_BLE = cells_BLE + self.dropout(own.output(context))
        added: torch.Tensor = self.dropout(self.feedforward(self.feedforward_norm(cells_BLE)))
        return cells_BLE + added


class DecoderLayer(nn.Module):
    """The words look at the words before them, then at the cells."""

    def __init__(self, width: int, num_heads: int, feedforward_width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.past_norm, self.cells_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feedforward_norm = nn.LayerNorm(width)
        self.past_attention = Attention(width, num_heads, dropout)
        self.cells_attention = Attention(width, num_heads, dropout)
        self.feedforward = FeedForward(width, feedforward_width, dropout)

    def forward(
        self, words_WE: torch.Tensor, places: Places, past_N2SE: torch.Tensor, cells_B2LE: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the words, each with what it took from others, the next past, and the query to the cells.

        Args:
            words_WE: whole captions, or one word a row.
            places: where they lie.
            past_N2SE: keys and values of the words before; none of whole captions.
            cells_B2LE: keys and values of the cells.
        """
        own, normed = self.past_attention, self.past_norm(words_WE)
        new_N2TE = own.split(places.pad(own.key_value(normed)))
        is_start = past_N2SE.shape[2] == 0
        past_N2SE = new_N2TE if is_start else torch.cat([past_N2SE, new_N2TE], dim=2)
        context = own(places.pad(own.query(normed)), past_N2SE, is_causal=is_start)
        words_WE = words_WE + self.dropout(own.output(places.pack(context)))

        own, normed = self.cells_attention, self.cells_norm(words_WE)
        query_BQE = places.pad(own.query(normed)).flatten(0, 1).unflatten(0, (len(cells_B2LE), -1))
        context = own(query_BQE, cells_B2LE)
        words_WE = words_WE + self.dropout(own.output(places.pack(context)))
        words_WE = words_WE + self.dropout(self.feedforward(self.feedforward_norm(words_WE)))
        return words_WE, past_N2SE, query_BQE


class Decoder(nn.Module):
    """Reads all words so far and the whole grid, layer after layer, before it says the next."""

    has_full_attention, is_drawing = False, False

    def __init__(self, settings: Settings, *, feature_dim: int, vocabulary_size: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(settings.dropout)
        self.project = nn.Sequential(nn.LayerNorm(feature_dim), nn.Linear(feature_dim, settings.width))
        sizes = (settings.width, settings.num_heads, settings.feedforward_width, settings.dropout)
        self.encoder_layers = nn.ModuleList(EncoderLayer(*sizes) for _ in range(settings.encoder_depth))
        self.encoder_norm = nn.LayerNorm(settings.width)
        self.decoder_layers = nn.ModuleList(DecoderLayer(*sizes) for _ in range(settings.decoder_depth))
        self.decoder_norm = nn.LayerNorm(settings.width)
        # The last layer's output is in good part the word just read. Scored with that word's own embedding it would
        # say the word again, by sqrt(width) at the start, so that tied embeddings have a layer between.
        self.output = nn.Linear(settings.width, settings.width) if settings.tied_embeddings else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        self.words = Words(
            vocabulary_size=vocabulary_size,
            embedding_width=settings.width,
            output_width=settings.width,
            tied=settings.tied_embeddings,
        )
        # Read times sqrt(width) (section 3.4), an embedding's values have a variance of 1.
        nn.init.normal_(self.words.embedding.weight, std=settings.width**-0.5)

    def prepare(self, features_BLD: torch.Tensor) -> Memory:
        """Return the encoded cells' keys and values for each of the decoder's layers, `cells_<depth>`."""
        cells_BLE = self.project(features_BLD)
        cells_BLE = self.dropout(cells_BLE + sinusoids(*cells_BLE.shape[1:], device=cells_BLE.device))
        for layer in self.encoder_layers:
            cells_BLE = layer(cells_BLE)
        cells_BLE = self.encoder_norm(cells_BLE)
        attentions: list[Any] = [layer.cells_attention for layer in self.decoder_layers]
        return {f"cells_{depth}": own.split(own.key_value(cells_BLE)) for depth, own in enumerate(attentions)}

    def start(self, memory: Memory, num_rows: int) -> State:
        """Return empty pasts: `past_<depth>` are a layer's keys and values of the words read, N x 2 x T x E."""
        width, cells = self.decoder_norm.normalized_shape[0], memory["cells_0"]
        return {
            f"past_{depth}": cells.new_zeros(num_rows, 2, 0, width)
            for depth in range(len(self.decoder_layers))
        }

    def step(
        self, memory: Memory, state: State, tokens_N: torch.Tensor
    ) -> tuple[torch.Tensor, State, torch.Tensor]:
        """Read one word; return the output layer's input N x E, the next state, and the attention N x L."""
        places = Places(num_rows=len(tokens_N), num_steps=1)
        num_before, width = state["past_0"].shape[2:]
        position_1E = sinusoids(1, width, first=num_before, device=tokens_N.device)
        output_NE, state, query_BKE = self._read(memory, state, tokens_N, position_1E, places)
        depth = len(self.decoder_layers) - 1
        last: Any = self.decoder_layers[depth]
        attention_BKL = last.cells_attention.weights(query_BKE, memory[f"cells_{depth}"])
        return output_NE, state, attention_BKL.flatten(0, 1)

    def forward(self, memory: Memory, tokens_NT: torch.Tensor, lengths_N: torch.Tensor) -> Forced:
        """Teacher forcing; padding comes after a row's words, so causal attention never meets it."""
        num_rows, num_steps = tokens_NT.shape
        device = tokens_NT.device
        index_W = is_word(lengths_N, num_steps).flatten().nonzero().squeeze(1).to(device)
        state = self.start(memory, num_rows)
        positions_TE = sinusoids(num_steps, state["past_0"].shape[3], device=device)
        output_WE, _, _ = self._read(
            memory,
            state,
            tokens_NT.flatten()[index_W],
            positions_TE[index_W % num_steps],
            Places(num_rows=num_rows, num_steps=num_steps, index_W=index_W),
        )
        return Forced(output_WE=output_WE)

    def _read(
        self,
        memory: Memory,
        state: State,
        tokens_W: torch.Tensor,
        positions_WE: torch.Tensor,
        places: Places,
    ) -> tuple[torch.Tensor, State, torch.Tensor]:
        """Return the output layer's input, the next state, and what the last layer asked the cells."""
        words_WE = self.words(tokens_W) * positions_WE.shape[1] ** 0.5
        words_WE = self.dropout(words_WE + positions_WE)
        next_state: State = {}
        for depth, layer in enumerate(self.decoder_layers):
            past, cells = state[f"past_{depth}"], memory[f"cells_{depth}"]
            words_WE, next_state[f"past_{depth}"], query_BQE = layer(words_WE, places, past, cells)
        return self.output(self.decoder_norm(words_WE)), next_state, query_BQE
