"""What decoders with a loop over the words share: the loop, over whole captions in training, by single words in search.

A decoder says what happens at one word; all that depends on words alone is taken out of the loop, and captions that
have ended leave it. Decoders that never attend need no such loop: `RecurrentLayers` reads a whole caption at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from captioning.words import Words

SHRINK_AT = 0.75
"""Ended images are left out once so large a share is still alive: each cut costs a gradient of full size."""

Memory = dict[str, torch.Tensor]
State = dict[str, torch.Tensor]

NUM_GATES = {"rnn": 1, "gru": 3, "lstm": 4}
"""Of each kind of cell."""


@dataclass(frozen=True, kw_only=True)
class Forced:
    """What teacher forcing gives for each of the W words, row after row."""

    output_WE: torch.Tensor
    """Input of the output layer."""
    attention_WL: torch.Tensor | None = None
    """Weights of the cells, where the decoder attends."""
    choice_loss: Callable[[torch.Tensor], torch.Tensor] | None = None
    """Log-likelihood of each word -> loss of each word, where the decoder drew something at random on the way."""


def is_word(lengths_N: torch.Tensor, num_steps: int) -> torch.Tensor:
    """Return N x T booleans: the positions below their row's length, on the device of `lengths_N`."""
    return lengths_N.unsqueeze(1) > torch.arange(num_steps, device=lengths_N.device)


def open_forget_gate(bias_G: torch.Tensor, kind: str) -> None:
    """Set the bias of an LSTM's forget gate to 1, so that it remembers from the start (Jozefowicz et al., 2015)."""
    if kind == "lstm":
        width = len(bias_G) // 4
        with torch.no_grad():
            bias_G[width : 2 * width].fill_(1.0)


def update(kind: str, state: State, inputs_NG: torch.Tensor, recurrent_NG: torch.Tensor) -> State:
    """Return the next state, `hidden` and for an LSTM `cell`, N x H.

    Args:
        kind: of the cell, `rnn`, `gru` or `lstm`.
        state: the state before.
        inputs_NG: W x + b for all gates: an LSTM's input, forget, output and new value; a GRU's reset, update and new.
        recurrent_NG: U h + c for the same gates.
    """
    hidden = state["hidden"]
    if kind == "rnn":
        return {"hidden": torch.tanh(inputs_NG + recurrent_NG)}
    width = hidden.shape[1]
    if kind == "gru":
        gates = torch.sigmoid(inputs_NG[:, : 2 * width] + recurrent_NG[:, : 2 * width])
        reset, keep = gates.chunk(2, dim=1)
        new = torch.tanh(inputs_NG[:, 2 * width :] + reset * recurrent_NG[:, 2 * width :])
        return {"hidden": new + keep * (hidden - new)}
    gates = inputs_NG + recurrent_NG
    inputs, forget, output = torch.sigmoid(gates[:, : 3 * width]).chunk(3, dim=1)
    cell = forget * state["cell"] + inputs * torch.tanh(gates[:, 3 * width :])
    return {"hidden": output * torch.tanh(cell), "cell": cell}


def by_image(rows_NF: torch.Tensor, num_images: int) -> torch.Tensor:
    """Return rows by image, B x K x F, without copying."""
    return rows_NF.view(num_images, len(rows_NF) // num_images, -1)


def additive_scores(energy: nn.Linear, keys_BLA: torch.Tensor, query_NA: torch.Tensor) -> torch.Tensor:
    """Return what each row thinks of each cell, B x K x L: w tanh(key + query) (Bahdanau et al., 2015, A.1.2)."""
    query_BK1A = by_image(query_NA, len(keys_BLA)).unsqueeze(2)
    if torch.is_grad_enabled() or keys_BLA.device.type != "cpu":
        scores_BKL1: torch.Tensor = energy((keys_BLA.unsqueeze(1) + query_BK1A).tanh_())
        return scores_BKL1.squeeze(3)
    # Image by image and in place the sums stay in a processor's cache: a search takes half the time.
    sums_KLA = keys_BLA.new_empty(query_BK1A.shape[1], *keys_BLA.shape[1:])
    scores = [
        energy(torch.add(keys_LA, query_K1A, out=sums_KLA).tanh_())
        for keys_LA, query_K1A in zip(keys_BLA, query_BK1A, strict=True)
    ]
    return torch.stack(scores).squeeze(3)


class RecurrentLayers(nn.Module):
    """Torch's own recurrent layers, one on the other, over all words in one call.

    A state is `hidden` and for an LSTM `cell`, N x depth x H.

    Args:
        kind: of the cells, `rnn`, `gru` or `lstm`.
        input_width: E.
        hidden_width: H, of every layer.
        depth: number of layers.
        dropout: of what a layer gives the next.
    """

    def __init__(self, kind: str, *, input_width: int, hidden_width: int, depth: int, dropout: float) -> None:
        super().__init__()
        kinds: dict[str, type[nn.RNN | nn.GRU | nn.LSTM]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
        self.names = ("hidden", "cell") if kind == "lstm" else ("hidden",)
        self.state_shape = (depth, hidden_width)
        # One module a layer: the dropout inside cuDNN has a random state of its own, which no checkpoint holds.
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            kinds[kind](hidden_width if below else input_width, hidden_width, batch_first=True)
            for below in range(depth)
        )
        for name, parameter in self.layers.named_parameters():
            if name.endswith("bias_ih_l0"):  # to which torch adds bias_hh_l0
                open_forget_gate(parameter, kind)

    def empty_state(self, num_rows: int) -> State:
        """Return zeros."""
        weight = next(self.parameters())
        return {name: weight.new_zeros(num_rows, *self.state_shape) for name in self.names}

    def forward(self, inputs_NTE: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """Return the last layer's hidden state after each word, N x T x H, and the state after the last word."""
        dtype, ends = next(self.parameters()).dtype, []
        # On a GPU autocast makes float16 of it, not bfloat16 (ATen/cudnn/AutocastRNN.cpp), and small gradients vanish.
        with torch.autocast(inputs_NTE.device.type, enabled=False):
            hidden_NTH = inputs_NTE.to(dtype)
            for below, layer in enumerate(self.layers):
                first = [state[name][:, below].to(dtype).unsqueeze(0).contiguous() for name in self.names]
                hidden_NTH, last = layer(
                    self.dropout(hidden_NTH) if below else hidden_NTH,
                    first[0] if len(first) == 1 else tuple(first),
                )
                ends.append((last,) if len(first) == 1 else last)
        return hidden_NTH, {
            name: torch.cat(own).transpose(0, 1)
            for name, own in zip(self.names, zip(*ends, strict=True), strict=True)
        }


class RecurrentDecoder(nn.Module, ABC):
    """A decoder that its cell defines; see `captioning.decoders` for what it promises."""

    has_full_attention, is_drawing = True, False
    words: Words
    dropout: nn.Dropout
    from_word: nn.Linear
    """The words' share of the cell's input."""

    @abstractmethod
    def prepare(self, features_BLD: torch.Tensor) -> Memory:
        """Return what is constant per image."""

    @abstractmethod
    def first_state(self, memory: Memory) -> State:
        """Return the state of each image before the first word, B rows."""

    @abstractmethod
    def advance(
        self, memory: Memory, state: State, word_input_NG: torch.Tensor
    ) -> tuple[State, tuple[torch.Tensor, ...], torch.Tensor | None]:
        """Go one word further: the next state, tensors of N rows for `say`, and the attention N x L."""

    @abstractmethod
    def say(self, embedded_E: torch.Tensor, *said: torch.Tensor) -> torch.Tensor:
        """Return the output layer's input, ...E, of the words just read and what `advance` gave for them."""

    def choice_loss(
        self, row_W: torch.Tensor, *said: torch.Tensor
    ) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """Return `Forced.choice_loss`; `row_W` is the caption of each word."""
        return None

    def start(self, memory: Memory, num_rows: int) -> State:
        """Return the state before the first word."""
        state = self.first_state(memory)
        return {
            name: tensor.repeat_interleave(num_rows // len(tensor), dim=0) for name, tensor in state.items()
        }

    def step(
        self, memory: Memory, state: State, tokens_N: torch.Tensor
    ) -> tuple[torch.Tensor, State, torch.Tensor | None]:
        """Read one word; return the output layer's input N x E, the next state, and the attention N x L."""
        embedded_NE = self.dropout(self.words(tokens_N))
        state, said, attention = self.advance(memory, state, self.from_word(embedded_NE))
        return self.say(embedded_NE, *said), state, attention

    def forward(self, memory: Memory, tokens_NT: torch.Tensor, lengths_N: torch.Tensor) -> Forced:
        """Teacher forcing.

        Images come with the longest caption first, so those still alive at step t are the first ones, and little work
        is spent on padding.
        """
        num_rows, num_steps = tokens_NT.shape
        num_images = len(next(iter(memory.values())))
        longest_B = lengths_N.view(num_images, -1).amax(dim=1)
        is_word_NT = is_word(lengths_N, num_steps)
        embedded_WE = self.dropout(self.words(tokens_NT[is_word_NT.to(tokens_NT.device)]))
        word_inputs = self._by_step(self.from_word(embedded_WE), is_word_NT)
        state, rows, alive = self.start(memory, num_rows), num_rows, num_images
        steps: list[tuple[torch.Tensor, ...]] = []
        attentions: list[torch.Tensor] = []
        for t in range(num_steps):
            images = int((longest_B > t).sum())
            if images <= SHRINK_AT * alive:
                alive, rows = images, images * num_rows // num_images
                memory = {name: tensor[:images] for name, tensor in memory.items()}
                state = {name: tensor[:rows] for name, tensor in state.items()}
            state, said, attention = self.advance(memory, state, word_inputs[t][:rows])
            steps.append(said)
            if attention is not None:
                attentions.append(attention)
        row_W, t_W = is_word_NT.nonzero(as_tuple=True)
        rows_T = torch.tensor([len(said[0]) for said in steps])
        place_W = ((rows_T.cumsum(0) - rows_T)[t_W] + row_W).to(tokens_NT.device)
        said_W = [torch.cat(own).index_select(0, place_W) for own in zip(*steps, strict=True)]
        return Forced(
            output_WE=self.say(embedded_WE, *said_W),
            attention_WL=torch.cat(attentions).index_select(0, place_W) if attentions else None,
            choice_loss=self.choice_loss(row_W.to(tokens_NT.device), *said_W),
        )

    @staticmethod
    def _by_step(rows_WG: torch.Tensor, is_word_NT: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Spread packed rows over time: T tensors N x G. (Indexing a step would cost a full-size gradient each.)"""
        row_W, t_W = (own.to(rows_WG.device) for own in is_word_NT.nonzero(as_tuple=True))
        spread_TNG = rows_WG.new_zeros(*is_word_NT.T.shape, rows_WG.shape[1])
        return spread_TNG.index_put((t_W, row_W), rows_WG).unbind(0)
