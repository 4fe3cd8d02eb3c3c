"""Captions drawn at random: their distribution, their form, and that a decoder can learn from them."""

import itertools

import numpy as np
import pytest
import torch

from captioning.batches import collate
from captioning.decoders.soft_attention import Decoder, Settings
from captioning.generation import NEVER_GENERATED
from captioning.sampling import Samples, allowed_log_probabilities, sample
from captioning.vocabulary import BOS, EOS, UNK

WORDS = (4, 5, 6)


def _decoder(seed: int = 0) -> Decoder:
    torch.manual_seed(seed)
    settings = Settings(
        name="soft_attention",
        feature_width=8,
        embedding_width=8,
        attention_width=8,
        hidden_width=8,
        dropout=0.0,
        tied_embeddings=False,
    )
    decoder = Decoder(settings, feature_dim=5, vocabulary_size=4 + len(WORDS))
    with torch.no_grad():  # far from uniform
        decoder.words.output_weight.mul_(3)
        decoder.words.embedding.weight.mul_(10)
    return decoder.eval()


def _features(num_images: int) -> torch.Tensor:
    return torch.randn(num_images, 4, 5, generator=torch.Generator().manual_seed(0))


def _sample(
    decoder: Decoder, num_images: int, *, seed: int = 0, num_samples: int = 5, max_words: int = 6
) -> Samples:
    return sample(
        decoder,
        _features(num_images),
        num_samples=num_samples,
        max_words=max_words,
        generator=torch.Generator().manual_seed(seed),
    )


def _log_likelihoods(decoder: Decoder, features_BLD: torch.Tensor, drawn: Samples) -> torch.Tensor:
    """Teacher forcing, one value a drawn word."""
    forced = decoder(decoder.prepare(features_BLD), drawn.tokens_NT, drawn.lengths_N)
    log_probabilities = allowed_log_probabilities(decoder.words.logits(forced.output_WE))
    is_word_NT = drawn.lengths_N.unsqueeze(1) > torch.arange(drawn.targets_NT.shape[1])
    return log_probabilities.gather(1, drawn.targets_NT[is_word_NT].unsqueeze(1)).squeeze(1)


def test_captions_are_drawn_as_often_as_teacher_forcing_finds_them_probable():
    decoder, num_samples = _decoder(), 20_000
    with torch.no_grad():  # the model's own chances of words that are never generated go to the others
        decoder.words.output_bias[UNK] = 1.0
    drawn = _sample(decoder, 2, num_samples=num_samples, max_words=2)
    every = [(EOS,), *((word, EOS) for word in WORDS), *itertools.product(WORDS, repeat=2)]
    for image in range(2):
        counts = dict.fromkeys(every, 0)
        for words in drawn.words_BK[image]:
            counts[tuple(words)] += 1
        assert max(counts.values()) < 0.9 * num_samples
        total = 0.0
        for words, count in counts.items():
            one = Samples(
                words_BK=[],
                longest_first=torch.tensor([0]),
                tokens_NT=torch.tensor([[BOS, *words[:-1]]]),
                targets_NT=torch.tensor([words]),
                lengths_N=torch.tensor([len(words)]),
            )
            likelihoods = _log_likelihoods(decoder, _features(2)[image : image + 1], one)
            probability = float(likelihoods.detach().sum().exp())
            deviation = (probability * (1 - probability) / num_samples) ** 0.5
            assert count / num_samples == pytest.approx(probability, abs=5 * deviation)
            total += probability
        assert total == pytest.approx(1, abs=1e-5)


def test_words_that_are_never_generated_are_never_drawn():
    decoder = _decoder()
    with torch.no_grad():
        decoder.words.output_bias[list(NEVER_GENERATED)] = 100.0
    drawn = _sample(decoder, 10, num_samples=50)
    assert {word for own in drawn.words_BK for words in own for word in words} == {EOS, *WORDS}


def test_a_caption_that_has_not_ended_is_cut_and_has_no_end_in_its_targets():
    decoder = _decoder()
    with torch.no_grad():
        decoder.words.output_bias[EOS] = -100.0
    drawn = _sample(decoder, 3, num_samples=2, max_words=4)
    assert drawn.lengths_N.tolist() == [4] * 6
    assert drawn.tokens_NT.shape == drawn.targets_NT.shape == (6, 4)
    assert EOS not in drawn.targets_NT
    assert torch.equal(drawn.tokens_NT[:, 1:], drawn.targets_NT[:, :-1])
    assert drawn.words_BK == drawn.targets_NT.view(3, 2, 4).tolist()


def test_drawing_ends_when_all_captions_have_ended():
    decoder = _decoder()
    with torch.no_grad():
        decoder.words.output_bias[EOS] = 100.0
    drawn = _sample(decoder, 3, num_samples=2, max_words=1000)
    assert drawn.words_BK == [[[EOS], [EOS]]] * 3
    assert drawn.tokens_NT.tolist() == [[BOS]] * 6 and drawn.targets_NT.tolist() == [[EOS]] * 6


def test_ended_captions_have_the_form_of_a_batch_with_the_longest_caption_first():
    decoder = _decoder()
    drawn = _sample(decoder, 8, max_words=200)
    longest = [max(map(len, own)) for own in drawn.words_BK]
    assert len(set(longest)) > 1
    assert all(words[-1] == EOS for own in drawn.words_BK for words in own)
    order = drawn.longest_first.tolist()
    assert [longest[image] for image in order] == sorted(longest, reverse=True)
    expected = collate([[np.array(words[:-1]) for words in drawn.words_BK[image]] for image in order])
    for own, theirs in zip((drawn.tokens_NT, drawn.targets_NT, drawn.lengths_N), expected, strict=True):
        assert torch.equal(own, theirs)


def test_a_seed_decides_the_captions():
    first, again, other = (_sample(_decoder(), 5, seed=seed).words_BK for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("is_training", [False, True])
def test_the_decoder_keeps_its_mode_and_learns_from_what_was_drawn(is_training: bool):
    decoder = _decoder().train(is_training)
    drawn = _sample(decoder, 4)
    assert decoder.training == is_training
    assert not drawn.tokens_NT.is_inference()  # decoders that read all words at once let autograd save them
    _log_likelihoods(decoder, _features(4)[drawn.longest_first], drawn).sum().backward()
    gradient = decoder.words.output_weight.grad
    assert gradient is not None and torch.isfinite(gradient).all() and gradient.any()
    assert not gradient[list(NEVER_GENERATED)].any()


def test_allowed_log_probabilities_leave_the_scores_as_they_were():
    logits_NV = torch.randn(3, 7)
    before_NV = logits_NV.clone()
    log_probabilities = allowed_log_probabilities(logits_NV)
    assert torch.equal(logits_NV, before_NV)
    assert log_probabilities.exp().sum(dim=1).tolist() == pytest.approx([1, 1, 1], abs=1e-6)
    assert log_probabilities[:, list(NEVER_GENERATED)].isneginf().all()
