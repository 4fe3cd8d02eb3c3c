"""Cells and recurrent decoders against torch's own cells and against their papers' formulas, one row at a time."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from captioning.decoders import adaptive_attention, bahdanau, luong, merge, show_and_tell
from captioning.recurrence import NUM_GATES, RecurrentLayers, open_forget_gate, update
from captioning.vocabulary import BOS

KINDS = ["rnn", "gru", "lstm"]
CELLS: dict[str, Any] = {"rnn": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}
LAYERS: dict[str, Any] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
WIDTHS = {"embedding_width": 3, "hidden_width": 4, "dropout": 0.0, "tied_embeddings": False}


def _decoder(module: Any, **choices: Any) -> Any:
    """Return a small decoder of one of the modules."""
    name = module.__name__.rpartition(".")[2]
    settings = module.Settings.model_validate({"name": name, **WIDTHS, **choices})
    return module.Decoder(settings, feature_dim=7, vocabulary_size=13)


IMAGE_OF_ROW = [0, 0, 1, 1]
TOKENS_NT = torch.tensor([[BOS, 5, 6], [BOS, 7, 4], [BOS, 9, 9], [BOS, 12, 5]])


def _features() -> torch.Tensor:
    return torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(1))


def _attended_steps(decoder: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return outputs N x T x E and attention N x T x L, word by word."""
    memory = decoder.prepare(_features())
    state, outputs, attentions = decoder.start(memory, len(TOKENS_NT)), [], []
    for tokens_N in TOKENS_NT.unbind(1):
        output, state, attention = decoder.step(memory, state, tokens_N)
        outputs.append(output)
        attentions.append(attention)
    return torch.stack(outputs, dim=1), torch.stack(attentions, dim=1)


def _torch_gates(kind: str, gates_G: torch.Tensor) -> torch.Tensor:
    """Reorder gates (first axis) as torch has them: an LSTM's input, forget, new, output."""
    if kind != "lstm":
        return gates_G
    inputs, forget, output, new = gates_G.chunk(4)
    return torch.cat([inputs, forget, new, output])


@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_equals_that_of_torch(kind: str):
    torch.manual_seed(0)
    gates = NUM_GATES[kind] * 4
    from_input, from_hidden = nn.Linear(3, gates), nn.Linear(4, gates)
    inputs_NE, state = torch.randn(5, 3), {"hidden": torch.randn(5, 4), "cell": torch.randn(5, 4)}
    updated = update(kind, state, from_input(inputs_NE), from_hidden(state["hidden"]))
    cell = CELLS[kind](3, 4)
    with torch.no_grad():
        for own, layer in (("ih", from_input), ("hh", from_hidden)):
            getattr(cell, f"weight_{own}").copy_(_torch_gates(kind, layer.weight))
            getattr(cell, f"bias_{own}").copy_(_torch_gates(kind, layer.bias))
    if kind == "lstm":
        hidden, memory = cell(inputs_NE, (state["hidden"], state["cell"]))
        torch.testing.assert_close(updated, {"hidden": hidden, "cell": memory})
    else:
        torch.testing.assert_close(updated, {"hidden": cell(inputs_NE, state["hidden"])})


@pytest.mark.parametrize("kind", KINDS)
def test_recurrent_layers_equal_those_of_torch_in_one_call_and_word_by_word(kind: str):
    torch.manual_seed(0)
    layers = RecurrentLayers(kind, input_width=3, hidden_width=4, depth=2, dropout=0.0)
    stacked = LAYERS[kind](3, 4, 2, batch_first=True)
    with torch.no_grad():
        for depth, layer in enumerate(layers.layers):
            for name, parameter in layer.named_parameters():
                getattr(stacked, name.replace("l0", f"l{depth}")).copy_(parameter)
    inputs_NTE = torch.randn(5, 6, 3)
    first = {name: torch.randn_like(own) for name, own in layers.empty_state(5).items()}
    expected, last = stacked(
        inputs_NTE,
        tuple(first[name].transpose(0, 1).contiguous() for name in ("hidden", "cell"))
        if kind == "lstm"
        else first["hidden"].transpose(0, 1).contiguous(),
    )
    hidden_NTH, state = layers(inputs_NTE, first)
    torch.testing.assert_close(hidden_NTH, expected)
    torch.testing.assert_close(state["hidden"].transpose(0, 1), last[0] if kind == "lstm" else last)
    if kind == "lstm":
        torch.testing.assert_close(state["cell"].transpose(0, 1), last[1])
    for t in range(6):
        hidden_N1H, first = layers(inputs_NTE[:, t : t + 1], first)
        torch.testing.assert_close(hidden_N1H, expected[:, t : t + 1])


def test_an_lstm_remembers_before_it_has_learned_anything():
    cell_NH = torch.tensor([[2.0, -3.0]])
    remembered = torch.sigmoid(torch.tensor(1.0)) * cell_NH
    bias_G = torch.zeros(8)
    open_forget_gate(bias_G, "lstm")
    state = {"hidden": torch.zeros(1, 2), "cell": cell_NH}
    torch.testing.assert_close(update("lstm", state, bias_G, torch.zeros(1, 8))["cell"], remembered)

    layers = RecurrentLayers("lstm", input_width=3, hidden_width=2, depth=1, dropout=0.0)
    with torch.no_grad():
        for name, parameter in layers.named_parameters():
            parameter.mul_(0.0 if "bias_ih" not in name else parameter == 1)
    _, state = layers(torch.ones(1, 1, 3), {"hidden": torch.zeros(1, 1, 2), "cell": cell_NH.unsqueeze(1)})
    torch.testing.assert_close(state["cell"].squeeze(1), remembered)


def test_the_gate_of_other_cells_is_left_alone():
    bias_G = torch.zeros(6)
    open_forget_gate(bias_G, "gru")
    assert not bias_G.any()


@pytest.mark.parametrize("kind", KINDS)
def test_recurrent_layers_keep_float32_under_bfloat16(kind: str):
    layers = RecurrentLayers(kind, input_width=3, hidden_width=4, depth=2, dropout=0.0)
    inputs_NTE = torch.randn(5, 6, 3).bfloat16()
    state = {name: own.bfloat16() for name, own in layers.empty_state(5).items()}
    expected, _ = layers(inputs_NTE, layers.empty_state(5))
    with torch.autocast("cpu", torch.bfloat16):
        hidden_NTH, state = layers(inputs_NTE, state)
    assert {own.dtype for own in (hidden_NTH, *state.values())} == {torch.float32}
    torch.testing.assert_close(hidden_NTH, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_show_and_tell_reads_the_image_as_the_first_word(kind: str):
    torch.manual_seed(0)
    decoder = _decoder(show_and_tell, cell=kind, depth=1, image="first_input", batch_norm=False)
    image_NE = decoder.project(_features().mean(dim=1))[IMAGE_OF_ROW]
    read_NTE = torch.cat([image_NE.unsqueeze(1), decoder.words.embedding(TOKENS_NT)], dim=1)
    plain = LAYERS[kind](3, 4, batch_first=True)
    plain.load_state_dict(decoder.layers.layers[0].state_dict())
    expected_NTH = plain(read_NTE)[0][:, 1:]
    forced = decoder(decoder.prepare(_features()), TOKENS_NT, torch.full((4,), 3))
    torch.testing.assert_close(forced.output_WE.view(4, 3, 4), expected_NTH)


def test_show_and_tell_makes_the_image_the_first_state_of_all_layers():
    torch.manual_seed(0)
    decoder = _decoder(show_and_tell, cell="lstm", depth=2, image="first_state", batch_norm=False)
    image_BE = decoder.project(_features().mean(dim=1))
    state = decoder.start(decoder.prepare(_features()), len(TOKENS_NT))
    torch.testing.assert_close(state["hidden"].flatten(1), torch.tanh(image_BE[IMAGE_OF_ROW, :8]))
    torch.testing.assert_close(state["cell"].flatten(1), image_BE[IMAGE_OF_ROW, 8:])


def test_batch_norm_takes_a_batch_of_one_image_and_does_not_learn_from_it():
    norm = show_and_tell.ImageNorm(3)
    norm(torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 9.0]]))
    torch.testing.assert_close(norm.running_mean, torch.tensor([0.2, 0.2, 0.6]))
    before = {name: own.clone() for name, own in norm.state_dict().items()}
    alone = norm(torch.ones(1, 3))
    torch.testing.assert_close(dict(norm.state_dict()), before)
    torch.testing.assert_close(alone, norm.eval()(torch.ones(1, 3)))


def test_merge_reads_words_without_the_image_and_adds_it_afterwards():
    torch.manual_seed(0)
    decoder = _decoder(merge, cell="gru")
    memory = decoder.prepare(_features())
    image_NH = torch.relu(decoder.project[0](_features().mean(dim=1)))[IMAGE_OF_ROW]
    plain = nn.GRU(3, 4, batch_first=True)
    plain.load_state_dict(decoder.layers.layers[0].state_dict())
    read_NTH = plain(decoder.words.embedding(TOKENS_NT))[0]
    expected_NTH = torch.relu(decoder.merge[0](read_NTH + image_NH.unsqueeze(1)))
    forced = decoder(memory, TOKENS_NT, torch.full((4,), 3))
    torch.testing.assert_close(forced.output_WE.view(4, 3, 4), expected_NTH)
    _, state, _ = decoder.step(memory, decoder.start(memory, 4), TOKENS_NT[:, 0])
    torch.testing.assert_close(state["hidden"][:, 0], read_NTH[:, 0])


def test_bahdanau_equals_its_formulas():
    torch.manual_seed(0)
    decoder = _decoder(bahdanau, cell="gru", feature_width=6, attention_width=5)
    outputs, attentions = _attended_steps(decoder)
    cell = nn.GRUCell(6 + 3, 4)
    with torch.no_grad():
        cell.weight_ih.copy_(torch.cat([decoder.from_context.weight, decoder.from_word.weight], dim=1))
        cell.bias_ih.copy_(decoder.from_word.bias)
        cell.weight_hh.copy_(decoder.from_hidden.weight[5:])
        cell.bias_hh.copy_(decoder.from_hidden.bias[5:])
    for row, image in enumerate(IMAGE_OF_ROW):
        values_LF = decoder.project(_features()[image])
        hidden = torch.zeros(4)
        for t, token in enumerate(TOKENS_NT[row]):
            query = decoder.from_hidden.weight[:5] @ hidden + decoder.from_hidden.bias[:5]
            energies = [
                decoder.energy.weight[0] @ torch.tanh(decoder.key.weight @ value + query)
                for value in values_LF
            ]
            weights_L = torch.softmax(torch.stack(energies), dim=0)
            hidden = cell(torch.cat([weights_L @ values_LF, decoder.words.embedding.weight[token]]), hidden)
            torch.testing.assert_close(attentions[row, t], weights_L)
            torch.testing.assert_close(outputs[row, t], decoder.hidden_output(hidden))


@pytest.mark.parametrize("score", ["dot", "general", "concat"])
def test_luong_equals_its_formulas(score: str):
    torch.manual_seed(0)
    width = 4 if score == "dot" else 6
    decoder = _decoder(luong, cell="gru", score=score, input_feeding=True, feature_width=width)
    outputs, attentions = _attended_steps(decoder)
    cell = nn.GRUCell(3 + 3, 4)
    with torch.no_grad():
        cell.weight_ih.copy_(torch.cat([decoder.from_word.weight, decoder.from_attended.weight], dim=1))
        cell.bias_ih.copy_(decoder.from_word.bias)
        cell.weight_hh.copy_(decoder.from_hidden.weight)
        cell.bias_hh.copy_(decoder.from_hidden.bias)

    def scored(hidden: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        if score == "dot":
            return hidden @ value
        if score == "general":
            return hidden @ decoder.key.weight @ value
        both = torch.cat([decoder.query.weight, decoder.key.weight], dim=1) @ torch.cat([hidden, value])
        return decoder.energy.weight[0] @ torch.tanh(both + decoder.query.bias)

    for row, image in enumerate(IMAGE_OF_ROW):
        values_LF = decoder.project(_features()[image])
        hidden, attended = torch.tanh(decoder.start_hidden(values_LF.mean(dim=0))), torch.zeros(3)
        for t, token in enumerate(TOKENS_NT[row]):
            hidden = cell(torch.cat([decoder.words.embedding.weight[token], attended]), hidden)
            weights_L = torch.softmax(torch.stack([scored(hidden, value) for value in values_LF]), dim=0)
            both = torch.cat([decoder.context_output.weight, decoder.hidden_output.weight], dim=1)
            attended = torch.tanh(
                both @ torch.cat([weights_L @ values_LF, hidden]) + decoder.hidden_output.bias
            )
            torch.testing.assert_close(attentions[row, t], weights_L)
            torch.testing.assert_close(outputs[row, t], attended)


def test_luong_refuses_to_multiply_unequal_widths():
    settings = {
        "name": "luong",
        "cell": "gru",
        "score": "dot",
        "input_feeding": True,
        "feature_width": 6,
        "embedding_width": 3,
        "hidden_width": 4,
        "dropout": 0.0,
        "tied_embeddings": False,
    }
    message = r"feature_width \(6\) must equal hidden_width \(4\): change one of them, or set score: general"
    with pytest.raises(ValidationError, match=message):
        luong.Settings.model_validate(settings)
    luong.Settings.model_validate({**settings, "feature_width": 4})
    luong.Settings.model_validate({**settings, "score": "general"})


def test_adaptive_attention_equals_its_formulas():
    torch.manual_seed(0)
    decoder = _decoder(adaptive_attention, attention_width=5)
    outputs, attentions = _attended_steps(decoder)
    cell = nn.LSTMCell(3 + 3, 4)
    x_weight_G = torch.cat([decoder.from_word.weight, decoder.from_whole.weight], dim=1)
    with torch.no_grad():
        cell.weight_ih.copy_(_torch_gates("lstm", x_weight_G[:16]))
        cell.bias_ih.zero_()
        cell.weight_hh.copy_(_torch_gates("lstm", decoder.from_hidden.weight[:16]))
        cell.bias_hh.copy_(_torch_gates("lstm", decoder.from_hidden.bias[:16]))
    w_h, W_v, W_s = decoder.energy.weight[0], decoder.key.weight, decoder.sentinel_key.weight
    for row, image in enumerate(IMAGE_OF_ROW):
        cells_LD = decoder.normalise(_features()[image])
        V = decoder.project(cells_LD)
        whole = decoder.project_whole(cells_LD.mean(dim=0))
        h, m = torch.zeros(4), torch.zeros(4)
        for t, token in enumerate(TOKENS_NT[row]):
            x = torch.cat([decoder.words.embedding.weight[token], whole])
            g = torch.sigmoid(
                x_weight_G[16:] @ x + decoder.from_hidden.weight[16:] @ h + decoder.from_hidden.bias[16:]
            )
            h, m = cell(x, (h, m))
            s = g * torch.tanh(m)
            z = torch.stack([w_h @ torch.tanh(W_v @ v + decoder.query(h)) for v in V])
            z_s = w_h @ torch.tanh(W_s @ s + decoder.query(h))
            beta = torch.softmax(torch.cat([z, z_s.unsqueeze(0)]), dim=0)[-1]
            c = torch.softmax(z, dim=0) @ V
            torch.testing.assert_close(attentions[row, t].sum(), 1 - beta)
            torch.testing.assert_close(attentions[row, t], (1 - beta) * torch.softmax(z, dim=0))
            torch.testing.assert_close(outputs[row, t], beta * s + (1 - beta) * c + h)
