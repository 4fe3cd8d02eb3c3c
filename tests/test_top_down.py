"""The two LSTMs of Anderson et al. (2018), written with torch's own cells."""

import torch
from torch import nn

from captioning.decoders.top_down import Decoder, Settings
from captioning.vocabulary import BOS

HIDDEN_WIDTH = 10


def test_a_step_is_the_papers_equations():
    torch.manual_seed(0)
    settings = Settings(
        name="top_down",
        feature_width=12,
        embedding_width=8,
        attention_width=6,
        hidden_width=HIDDEN_WIDTH,
        dropout=0.0,
        tied_embeddings=False,
    )
    decoder = Decoder(settings, feature_dim=7, vocabulary_size=13).eval()
    cells = [nn.LSTMCell(HIDDEN_WIDTH + 12 + 8, HIDDEN_WIDTH), nn.LSTMCell(12 + HIDDEN_WIDTH, HIDDEN_WIDTH)]
    # torch's gates: input, forget, new, output; ours: input, forget, output, new.
    order = torch.arange(4 * HIDDEN_WIDTH).view(4, HIDDEN_WIDTH)[[0, 1, 3, 2]].flatten()
    before, between = decoder.from_language_before, decoder.from_attention
    of_attention, of_language = before.weight.chunk(2)
    bias_of_attention, bias_of_language = before.bias.chunk(2)
    query_weight, from_attention = between.weight.split(decoder.widths)
    for cell, inputs, recurrent, bias in (
        (
            cells[0],
            [of_attention, decoder.from_mean.weight, decoder.from_word.weight],
            decoder.from_attention_before.weight,
            bias_of_attention,
        ),
        (cells[1], [decoder.from_context.weight, from_attention], of_language, bias_of_language),
    ):
        cell.load_state_dict(
            {
                "weight_ih": torch.cat(inputs, dim=1)[order],
                "weight_hh": recurrent[order],
                "bias_ih": bias[order],
                "bias_hh": torch.zeros(4 * HIDDEN_WIDTH),
            }
        )
    features_BLD = torch.randn(2, 5, 7)
    memory = decoder.prepare(features_BLD)
    state = decoder.start(memory, 2)
    values_NLF = decoder.project(features_BLD)
    attention = language = (torch.zeros(2, HIDDEN_WIDTH), torch.zeros(2, HIDDEN_WIDTH))
    for token in (BOS, 5, 6):
        word_NE = decoder.words(torch.full((2,), token))
        attention = cells[0](torch.cat([language[0], values_NLF.mean(dim=1), word_NE], dim=1), attention)
        query_N1A = (attention[0] @ query_weight.T).unsqueeze(1)
        energy_NL = decoder.energy(torch.tanh(decoder.key(values_NLF) + query_N1A)).squeeze(2)
        attention_NL = torch.softmax(energy_NL, dim=1)
        context_NF = (attention_NL.unsqueeze(2) * values_NLF).sum(dim=1)
        language = cells[1](torch.cat([context_NF, attention[0]], dim=1), language)
        output_NE, state, stepped_NL = decoder.step(memory, state, torch.full((2,), token))
        torch.testing.assert_close(output_NE, language[0])
        torch.testing.assert_close(stepped_NL, attention_NL)
