"""The contract of captioning/decoders, kept by every decoder that is found there."""

from typing import Any

import pytest
import torch

from captioning import lookup
from captioning.generation import PLAIN_BEAM, generate
from captioning.vocabulary import BOS, EOS, MARKERS, Vocabulary
from captioning.words import Words

VOCABULARY = Vocabulary([*MARKERS, *(f"word{number}" for number in range(9))])
SETTINGS: dict[str, dict[str, Any]] = {
    "soft_attention": {
        "feature_width": 12,
        "embedding_width": 8,
        "attention_width": 6,
        "hidden_width": 10,
        "dropout": 0.0,
        "tied_embeddings": False,
    },
    "hard_attention": {
        "feature_width": 12,
        "embedding_width": 8,
        "attention_width": 6,
        "hidden_width": 10,
        "dropout": 0.0,
        "tied_embeddings": False,
        "lambda_r": 1.0,
        "lambda_e": 0.1,
    },
    "top_down": {
        "feature_width": 12,
        "embedding_width": 8,
        "attention_width": 6,
        "hidden_width": 10,
        "dropout": 0.0,
        "tied_embeddings": False,
    },
    "transformer": {
        "width": 12,
        "num_heads": 3,
        "encoder_depth": 2,
        "decoder_depth": 2,
        "feedforward_width": 16,
        "dropout": 0.0,
        "tied_embeddings": True,
    },
    "show_and_tell": {
        "cell": "lstm",
        "depth": 1,
        "image": "first_input",
        "batch_norm": False,
        "embedding_width": 8,
        "hidden_width": 10,
        "dropout": 0.0,
        "tied_embeddings": False,
    },
    "merge": {
        "cell": "lstm",
        "embedding_width": 8,
        "hidden_width": 10,
        "dropout": 0.0,
        "tied_embeddings": False,
    },
    "bahdanau": {
        "cell": "gru",
        "feature_width": 12,
        "attention_width": 6,
        "embedding_width": 8,
        "hidden_width": 10,
        "dropout": 0.0,
        "tied_embeddings": False,
    },
    "luong": {
        "cell": "lstm",
        "score": "general",
        "input_feeding": True,
        "feature_width": 12,
        "embedding_width": 8,
        "hidden_width": 10,
        "dropout": 0.0,
        "tied_embeddings": False,
    },
    "adaptive_attention": {
        "embedding_width": 8,
        "attention_width": 6,
        "hidden_width": 10,
        "dropout": 0.0,
        "tied_embeddings": False,
    },
}

LOOKS_AWAY: set[str] = {"adaptive_attention"}
"""Decoders that also attend to something else than the cells."""

OTHER_CHOICES: dict[str, dict[str, Any]] = {
    "show_and_tell, deep": {"depth": 2, "batch_norm": True},
    "show_and_tell, first state": {"image": "first_state", "depth": 2},
    "show_and_tell, first state of a GRU": {"image": "first_state", "cell": "gru", "batch_norm": True},
    "show_and_tell, RNN": {"cell": "rnn"},
    "merge, GRU": {"cell": "gru"},
    "merge, RNN": {"cell": "rnn"},
    "bahdanau, LSTM": {"cell": "lstm"},
    "bahdanau, RNN": {"cell": "rnn"},
    "luong, dot": {"score": "dot", "feature_width": 10},
    "luong, concat": {"score": "concat", "cell": "gru"},
    "luong, no input feeding": {"input_feeding": False, "cell": "rnn"},
    "adaptive_attention, tied": {"tied_embeddings": True, "embedding_width": 10},
}
"""Of decoders with a choice of cells, scores and the like: what differs from SETTINGS."""


@pytest.fixture(params=[*lookup.names("decoders"), *OTHER_CHOICES])
def decoder(request: pytest.FixtureRequest) -> Any:
    name = request.param.split(",")[0]
    module = lookup.find("decoders", name)
    assert name in SETTINGS, f"add small settings of {name} to this test"
    settings = module.Settings.model_validate(
        {"name": name, **SETTINGS[name], **OTHER_CHOICES.get(request.param, {})}
    )
    torch.manual_seed(0)
    built = module.Decoder(settings, feature_dim=7, vocabulary_size=len(VOCABULARY))
    return built.eval()


def _batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    features_BLD = torch.randn(3, 5, 7, generator=generator)
    tokens_NT = torch.randint(4, len(VOCABULARY), (6, 4), generator=generator)
    tokens_NT[:, 0] = BOS
    return features_BLD, tokens_NT, torch.tensor([4, 2, 3, 3, 2, 0])


def test_step_by_step_equals_teacher_forcing(decoder: Any):
    features_BLD, tokens_NT, lengths_N = _batch()
    memory = decoder.prepare(features_BLD)
    forced_WV = decoder.words.logits(decoder(memory, tokens_NT, lengths_N).output_WE)
    state, stepped = decoder.start(memory, len(tokens_NT)), []
    for t in range(tokens_NT.shape[1]):
        output, state, _ = decoder.step(memory, state, tokens_NT[:, t])
        stepped.append(decoder.words.logits(output))
    is_word_NT = lengths_N.unsqueeze(1) > torch.arange(tokens_NT.shape[1])
    torch.testing.assert_close(forced_WV, torch.stack(stepped, dim=1)[is_word_NT])


def test_words_beyond_a_length_change_nothing(decoder: Any):
    features_BLD, tokens_NT, lengths_N = _batch()
    memory = decoder.prepare(features_BLD)
    expected = decoder(memory, tokens_NT, lengths_N).output_WE
    changed = tokens_NT.clone()
    changed[lengths_N.unsqueeze(1) <= torch.arange(tokens_NT.shape[1])] = 5
    torch.testing.assert_close(decoder(memory, changed, lengths_N).output_WE, expected)


def test_a_word_never_depends_on_later_words(decoder: Any):
    features_BLD, tokens_NT, _ = _batch()
    lengths_N, memory = torch.full((6,), 4), decoder.prepare(features_BLD)
    first = decoder(memory, tokens_NT, lengths_N).output_WE.view(6, 4, -1)
    changed = tokens_NT.clone()
    changed[:, 3] = (changed[:, 3] - 3) % 9 + 4
    second = decoder(memory, changed, lengths_N).output_WE.view(6, 4, -1)
    torch.testing.assert_close(first[:, :3], second[:, :3])
    assert not torch.allclose(first[:, 3], second[:, 3])


def test_captions_depend_on_the_image(decoder: Any):
    features_BLD, tokens_NT, lengths_N = _batch()
    first = decoder(decoder.prepare(features_BLD), tokens_NT, lengths_N).output_WE
    second = decoder(decoder.prepare(features_BLD.flip(0)), tokens_NT, lengths_N).output_WE
    assert not torch.allclose(first, second)


def test_gradients_reach_every_parameter(decoder: Any):
    features_BLD, tokens_NT, lengths_N = _batch()
    decoder.train()
    forced = decoder(decoder.prepare(features_BLD), tokens_NT, lengths_N)
    log_likelihood_WV = torch.log_softmax(decoder.words.logits(forced.output_WE), dim=1)
    loss = log_likelihood_WV[:, 5].square().sum()
    if forced.choice_loss is not None:
        loss = loss + forced.choice_loss(log_likelihood_WV[:, 5].detach()).sum()
    loss.backward()
    missing = [
        name for name, own in decoder.named_parameters() if own.grad is None or not own.grad.abs().sum() > 0
    ]
    assert not missing


def test_a_decoder_says_truly_whether_it_attends_and_draws(decoder: Any):
    features_BLD, tokens_NT, lengths_N = _batch()
    forced = decoder.train()(decoder.prepare(features_BLD), tokens_NT, lengths_N)
    is_full = forced.attention_WL is not None and bool((forced.attention_WL.sum(dim=1) > 1 - 1e-5).all())
    assert decoder.has_full_attention == is_full
    assert decoder.is_drawing == (forced.choice_loss is not None)


def test_attention_is_a_distribution_over_cells(decoder: Any, request: pytest.FixtureRequest):
    features_BLD, tokens_NT, lengths_N = _batch()
    attention_WL = decoder(decoder.prepare(features_BLD), tokens_NT, lengths_N).attention_WL
    if attention_WL is not None:
        assert attention_WL.shape == (int(lengths_N.sum()), features_BLD.shape[1])
        assert (attention_WL >= 0).all()
        total_W = attention_WL.sum(dim=1)
        if request.node.callspec.params["decoder"].split(",")[0] in LOOKS_AWAY:
            assert ((total_W > 0) & (total_W < 1)).all()
        else:
            torch.testing.assert_close(total_W, torch.ones(len(attention_WL)))


def test_an_untrained_decoder_still_ends(decoder: Any):
    decoder.words.logits = lambda output: torch.zeros(len(output), len(VOCABULARY)).index_fill(
        1, torch.tensor(EOS), -50.0
    )
    captions = generate(decoder, _batch()[0], VOCABULARY, PLAIN_BEAM.replaced(beam_width=2, max_words=6))
    assert [len(own[0].words) for own in captions] == [6, 6, 6]


def test_tied_embeddings_are_one_matrix_and_need_equal_widths():
    words = Words(vocabulary_size=9, embedding_width=4, output_width=4, tied=True)
    assert {name: tuple(own.shape) for name, own in words.named_parameters()} == {
        "embedding.weight": (9, 4),
        "output_bias": (9,),
    }
    expected = torch.ones(1, 4) @ words.embedding.weight.T + words.output_bias
    torch.testing.assert_close(words.logits(torch.ones(1, 4)), expected)
    with pytest.raises(
        ValueError, match=r"embedding_width \(4\) equal to .* input \(6\): change one of them"
    ):
        Words(vocabulary_size=9, embedding_width=4, output_width=6, tied=True)
