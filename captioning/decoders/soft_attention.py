"""LSTM with soft attention: Xu et al., Show, Attend and Tell (2015), with its gate and deep output.

Equation numbers are the paper's. All that does not depend on the previous word is taken out of the loop: the
attention's keys are computed once per image, the words' share of the LSTM's input and the output layer once per batch.
"""

import torch
from pydantic import Field
from torch import nn

from captioning.params import Settings as PartSettings

SHRINK_AT = 0.75
"""Ended images are left out once so large a share is still alive: each cut costs a gradient of full size."""

Memory = dict[str, torch.Tensor]
State = dict[str, torch.Tensor]


class Settings(PartSettings):
    """The `train.decoder` section."""

    name: str
    feature_width: int = Field(ge=1)
    """The encoder's features are projected to this width before they are attended to."""
    embedding_width: int = Field(ge=1)
    attention_width: int = Field(ge=1)
    hidden_width: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    """Of projected features, word embeddings and the output layer's input."""


class Decoder(nn.Module):
    """Reads one word at a time and looks at the grid before it says the next."""

    def __init__(
        self,
        *,
        feature_dim: int,
        vocabulary_size: int,
        feature_width: int,
        embedding_width: int,
        attention_width: int,
        hidden_width: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Sequential(
            nn.LayerNorm(feature_dim), nn.Linear(feature_dim, feature_width), nn.ReLU()
        )
        self.embedding = nn.Embedding(vocabulary_size, embedding_width)
        self.start_hidden = nn.Linear(feature_width, hidden_width)
        self.start_cell = nn.Linear(feature_width, hidden_width)
        self.key = nn.Linear(feature_width, attention_width)
        self.energy = nn.Linear(attention_width, 1, bias=False)
        # What depends on the hidden state: the attention's query, the gate, the LSTM's recurrent input.
        self.widths = (attention_width, feature_width, 4 * hidden_width)
        self.from_hidden = nn.Linear(hidden_width, sum(self.widths))
        self.from_word = nn.Linear(embedding_width, 4 * hidden_width, bias=False)
        self.from_context = nn.Linear(feature_width, 4 * hidden_width, bias=False)
        self.hidden_output = nn.Linear(hidden_width, embedding_width)
        self.context_output = nn.Linear(feature_width, embedding_width, bias=False)
        self.word_output = nn.Linear(embedding_width, vocabulary_size)
        nn.init.normal_(self.embedding.weight, std=0.1)
        with torch.no_grad():  # a forget gate that starts open: Jozefowicz et al. (2015), section 2.2
            self.from_hidden.bias[-3 * hidden_width : -2 * hidden_width].fill_(1.0)

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

    def start(self, memory: Memory, num_rows: int) -> State:
        """Return the state before the first word."""
        rows_per_image = num_rows // len(memory["hidden"])
        return {name: memory[name].repeat_interleave(rows_per_image, dim=0) for name in ("hidden", "cell")}

    def step(
        self, memory: Memory, state: State, tokens_N: torch.Tensor
    ) -> tuple[torch.Tensor, State, torch.Tensor]:
        """Read one word; return the output layer's input N x E, the next state, and the attention N x L."""
        embedded_NE = self.dropout(self.embedding(tokens_N))
        state, context, attention = self._look_and_update(memory, state, self.from_word(embedded_NE))
        return self._deep_output(embedded_NE, state["hidden"], context), state, attention

    def forward(
        self, memory: Memory, tokens_NT: torch.Tensor, lengths_N: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Teacher forcing: the output layer's input W x E and the attention W x L.

        Images come with the longest caption first, so those still alive at step t are the first ones, and little work
        is spent on padding.
        """
        num_rows, num_steps = tokens_NT.shape
        num_images = len(memory["keys"])
        longest_B = lengths_N.view(num_images, -1).amax(dim=1)
        is_word_NT = lengths_N.unsqueeze(1) > torch.arange(num_steps)
        embedded_WE = self.dropout(self.embedding(tokens_NT[is_word_NT.to(tokens_NT.device)]))
        word_inputs = self._by_step(self.from_word(embedded_WE), is_word_NT)
        state, rows, steps = self.start(memory, num_rows), num_rows, []
        for t in range(num_steps):
            images = int((longest_B > t).sum())
            if images <= SHRINK_AT * len(memory["keys"]):
                memory = {name: tensor[:images] for name, tensor in memory.items()}
                rows = images * num_rows // num_images
                state = {name: tensor[:rows] for name, tensor in state.items()}
            state, context, attention = self._look_and_update(memory, state, word_inputs[t][:rows])
            steps.append((state["hidden"], context, attention))
        rows_T = torch.tensor([len(hidden) for hidden, _, _ in steps])
        row_W, t_W = is_word_NT.nonzero(as_tuple=True)
        place_W = ((rows_T.cumsum(0) - rows_T)[t_W] + row_W).to(tokens_NT.device)
        hidden, context, attention = (
            torch.cat(own).index_select(0, place_W) for own in zip(*steps, strict=True)
        )
        return self._deep_output(embedded_WE, hidden, context), attention

    @staticmethod
    def _by_step(rows_WG: torch.Tensor, is_word_NT: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Spread packed rows over time: T tensors N x G. (Indexing a step would cost a full-size gradient each.)"""
        row_W, t_W = (own.to(rows_WG.device) for own in is_word_NT.nonzero(as_tuple=True))
        spread_TNG = rows_WG.new_zeros(*is_word_NT.T.shape, rows_WG.shape[1])
        return spread_TNG.index_put((t_W, row_W), rows_WG).unbind(0)

    def logits(self, output_E: torch.Tensor) -> torch.Tensor:
        """Return the scores of the next word (7), without the softmax."""
        scores: torch.Tensor = self.word_output(output_E)
        return scores

    def _look_and_update(
        self, memory: Memory, state: State, word_input_NG: torch.Tensor
    ) -> tuple[State, torch.Tensor, torch.Tensor]:
        keys_BLA = memory["keys"]
        num_images, num_cells = keys_BLA.shape[:2]
        num_rows = len(word_input_NG)
        query_NA, gate_NF, recurrent_NG = self.from_hidden(state["hidden"]).split(self.widths, dim=1)
        query_BK1A = query_NA.view(num_images, num_rows // num_images, 1, -1)
        energy_BKL = self.energy(torch.tanh(keys_BLA.unsqueeze(1) + query_BK1A)).squeeze(3)  # (4)
        attention_BKL = torch.softmax(energy_BKL, dim=2)  # (5)
        context_NF = torch.bmm(attention_BKL, memory["values"]).view(num_rows, -1)  # (13)
        context_NF = torch.sigmoid(gate_NF) * context_NF  # section 4.2.1, one gate a feature
        gates = word_input_NG + recurrent_NG + self.from_context(context_NF)  # (1)
        width = state["cell"].shape[1]
        inputs, forget, output = torch.sigmoid(gates[:, : 3 * width]).chunk(3, dim=1)
        cell = forget * state["cell"] + inputs * torch.tanh(gates[:, 3 * width :])  # (2)
        hidden = output * torch.tanh(cell)  # (3)
        return {"hidden": hidden, "cell": cell}, context_NF, attention_BKL.view(num_rows, num_cells)

    def _deep_output(
        self, embedded: torch.Tensor, hidden: torch.Tensor, context: torch.Tensor
    ) -> torch.Tensor:
        return self.dropout(
            embedded + self.hidden_output(hidden) + self.context_output(context)
        )  # inside of (7)
