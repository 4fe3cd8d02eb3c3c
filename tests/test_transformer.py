"""The Transformer against torch's own layers, and how it starts."""

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from captioning.decoders.transformer import (
    Attention,
    Decoder,
    DecoderLayer,
    EncoderLayer,
    Settings,
    sinusoids,
)
from captioning.vocabulary import BOS

WIDTH, NUM_HEADS, FEEDFORWARD_WIDTH = 12, 3, 20


def _settings(**changed: Any) -> Settings:
    settings = {
        "name": "transformer",
        "width": WIDTH,
        "num_heads": NUM_HEADS,
        "encoder_depth": 2,
        "decoder_depth": 2,
        "feedforward_width": FEEDFORWARD_WIDTH,
        "dropout": 0.0,
        "tied_embeddings": False,
    }
    return Settings.model_validate(settings | changed)


def _decoder() -> Decoder:
    torch.manual_seed(0)
    decoder = Decoder(_settings(), feature_dim=7, vocabulary_size=13)
    with torch.no_grad():  # zeros and ones would hide a bias or a gain that is forgotten
        for parameter in decoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return decoder.eval()


def _torch_attention(own: Attention) -> nn.MultiheadAttention:
    theirs = nn.MultiheadAttention(WIDTH, NUM_HEADS, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": torch.cat([own.query.weight, own.key_value.weight]),
            "in_proj_bias": torch.cat([own.query.bias, own.key_value.bias]),
            "out_proj.weight": own.output.weight,
            "out_proj.bias": own.output.bias,
        }
    )
    return theirs.eval()


def _torch_layer(
    layer: EncoderLayer | DecoderLayer,
) -> nn.TransformerEncoderLayer | nn.TransformerDecoderLayer:
    kind = nn.TransformerEncoderLayer if isinstance(layer, EncoderLayer) else nn.TransformerDecoderLayer
    theirs = kind(WIDTH, NUM_HEADS, FEEDFORWARD_WIDTH, dropout=0.0, batch_first=True, norm_first=True)
    if isinstance(layer, EncoderLayer):
        theirs.self_attn = _torch_attention(layer.attention)
        theirs.norm1, theirs.norm2 = layer.attention_norm, layer.feedforward_norm
    else:
        theirs.self_attn = _torch_attention(layer.past_attention)
        theirs.multihead_attn = _torch_attention(layer.cells_attention)
        theirs.norm1, theirs.norm2, theirs.norm3 = layer.past_norm, layer.cells_norm, layer.feedforward_norm
    theirs.linear1, theirs.linear2 = layer.feedforward[0], layer.feedforward[3]
    return theirs.eval()


def test_it_computes_what_torchs_own_layers_compute():
    decoder, lengths_N = _decoder(), torch.tensor([4, 2, 3, 0])
    features_BLD = torch.randn(2, 5, 7)
    tokens_NT = torch.randint(13, (4, 4))
    cells_BLE = decoder.project(features_BLD) + sinusoids(5, WIDTH)
    for layer in decoder.encoder_layers:
        cells_BLE = _torch_layer(layer)(cells_BLE)
    cells_NLE = decoder.encoder_norm(cells_BLE).repeat_interleave(2, dim=0)
    words_NTE = decoder.words(tokens_NT) * math.sqrt(WIDTH) + sinusoids(4, WIDTH)
    for layer in decoder.decoder_layers:
        words_NTE = _torch_layer(layer)(
            words_NTE, cells_NLE, tgt_mask=nn.Transformer.generate_square_subsequent_mask(4)
        )
    expected_NTE = decoder.decoder_norm(words_NTE)
    forced = decoder(decoder.prepare(features_BLD), tokens_NT, lengths_N)
    torch.testing.assert_close(
        forced.output_WE, expected_NTE[lengths_N.unsqueeze(1) > torch.arange(4)], atol=1e-5, rtol=1e-5
    )


def test_the_attention_of_a_step_is_the_mean_over_the_heads():
    torch.manual_seed(0)
    attention = Attention(WIDTH, NUM_HEADS, 0.0)
    queries_NTE, cells_NLE = torch.randn(2, 3, WIDTH), torch.randn(2, 5, WIDTH)
    _, expected_NTL = _torch_attention(attention)(queries_NTE, cells_NLE, cells_NLE)
    weights_NTL = attention.weights(
        attention.query(queries_NTE), attention.split(attention.key_value(cells_NLE))
    )
    torch.testing.assert_close(weights_NTL, expected_NTL)


def test_a_step_returns_the_attention_over_the_cells():
    decoder = _decoder()
    memory = decoder.prepare(torch.randn(2, 5, 7))
    state = decoder.start(memory, 4)
    for num_words in (1, 2):
        _, state, attention_NL = decoder.step(memory, state, torch.full((4,), BOS))
        assert attention_NL.shape == (4, 5)
        torch.testing.assert_close(attention_NL.sum(dim=1), torch.ones(4))
        assert state["past_1"].shape == (4, 2, num_words, WIDTH)


def test_positions_have_no_end_and_any_width():
    table = sinusoids(3, 5, first=10_000)
    assert table.shape == (3, 5)
    assert table[1].tolist() == pytest.approx(
        [
            math.sin(10_001),
            math.cos(10_001),
            math.sin(10_001 / 10_000**0.4),
            math.cos(10_001 / 10_000**0.4),
            math.sin(10_001 / 10_000**0.8),
        ],
        abs=1e-3,
    )


@pytest.mark.parametrize("tied_embeddings", [False, True])
def test_at_depth_6_it_starts_without_opinion(tied_embeddings: bool):
    torch.manual_seed(0)
    settings = _settings(
        width=128, num_heads=4, encoder_depth=6, decoder_depth=6, tied_embeddings=tied_embeddings
    )
    decoder = Decoder(settings, feature_dim=7, vocabulary_size=500)
    tokens_NT = torch.randint(500, (4, 10))
    forced = decoder(decoder.prepare(torch.randn(2, 5, 7)), tokens_NT, torch.full((4,), 10))
    logits_WV = decoder.words.logits(forced.output_WE)
    assert float(logits_WV.detach().std()) < 1.3
    cross_entropy = nn.functional.cross_entropy(logits_WV, torch.randint(500, (40,)))
    assert float(cross_entropy.detach()) == pytest.approx(math.log(500), abs=1.0)
    read_W = logits_WV.detach().gather(1, tokens_NT.view(-1, 1))
    assert float(read_W.mean()) < 1.5  # a tied embedding without a layer between says the word again


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(
        ValidationError,
        match=r"5 heads cannot share a width of 12 evenly: choose a num_heads that divides it",
    ):
        _settings(num_heads=5)
