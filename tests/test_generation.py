"""Beam search against exhaustive search, an independent plain beam, and teacher forcing."""

import itertools
from typing import Any

import pytest
import torch

from captioning.decoders.soft_attention import Decoder, Settings
from captioning.generation import beam_search
from captioning.vocabulary import BOS, EOS, MARKERS, UNK, Vocabulary

WORDS = ("a", "b", "c")
VOCABULARY = Vocabulary([*MARKERS, *WORDS])
ALLOWED = (EOS, 4, 5, 6)


def _decoder(seed: int, vocabulary: Vocabulary = VOCABULARY) -> Decoder:
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
    decoder = Decoder(settings, feature_dim=5, vocabulary_size=len(vocabulary))
    with torch.no_grad():  # far from uniform, so that searches can go wrong
        decoder.words.output_weight.mul_(12)
        decoder.words.embedding.weight.mul_(10)
    return decoder.eval()


def _features(seed: int, num_images: int) -> torch.Tensor:
    return torch.randn(num_images, 4, 5, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def _log_probability(
    decoder: Any, features_LD: torch.Tensor, words: tuple[int, ...], max_words: int
) -> float:
    """Teacher forcing: the words and, unless cut at `max_words`, the end."""
    targets = (*words, EOS) if len(words) < max_words else words
    tokens = torch.tensor([[BOS, *targets[:-1]]]) if targets else torch.tensor([[BOS]])
    forced = decoder(decoder.prepare(features_LD.unsqueeze(0)), tokens, torch.tensor([tokens.shape[1]]))
    scores = torch.log_softmax(decoder.words.logits(forced.output_WE), dim=1)
    return float(scores[torch.arange(len(targets)), list(targets)].sum())


@pytest.mark.parametrize("seed", range(5))
def test_a_wide_beam_equals_exhaustive_search(seed: int):
    decoder, features, max_words = _decoder(seed), _features(seed, 2), 3
    every = [
        words for length in range(max_words + 1) for words in itertools.product((4, 5, 6), repeat=length)
    ]
    found = beam_search(decoder, features, VOCABULARY, beam_width=64, max_words=max_words)
    for image in range(2):
        scored = sorted(
            ((_log_probability(decoder, features[image], own, max_words), own) for own in every), reverse=True
        )
        assert len(found[image]) == len(every)
        for hypothesis, (score, words) in zip(found[image][:10], scored[:10], strict=True):
            assert hypothesis.text == VOCABULARY.decode(words)
            assert hypothesis.log_probability == pytest.approx(score, abs=1e-4)


def _plain_beam(
    decoder: Any, features_LD: torch.Tensor, beam_width: int, max_words: int
) -> list[tuple[float, tuple]]:
    """One image, one hypothesis at a time, no batching, no state kept."""
    beam: list[tuple[float, tuple[int, ...], bool]] = [(0.0, (), False)]
    for _ in range(max_words):
        candidates = [own for own in beam if own[2]]
        for _, words, has_ended in beam:
            if has_ended:
                continue
            for word in ALLOWED:
                own = words if word == EOS else (*words, word)
                is_end = word == EOS
                partial = _log_probability(decoder, features_LD, own, len(own) + 1 if is_end else len(own))
                candidates.append((partial, own, is_end))
        beam = sorted(candidates, reverse=True)[:beam_width]
    return [(score, words) for score, words, _ in beam]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("beam_width", [1, 2, 3])
def test_a_narrow_beam_equals_a_plain_one_word_for_word(seed: int, beam_width: int):
    decoder, features = _decoder(seed), _features(seed + 10, 3)
    found = beam_search(decoder, features, VOCABULARY, beam_width=beam_width, max_words=5)
    for image in range(3):
        expected = _plain_beam(decoder, features[image], beam_width, max_words=5)
        assert [own.text for own in found[image]] == [VOCABULARY.decode(words) for _, words in expected]
        assert [own.log_probability for own in found[image]] == pytest.approx(
            [score for score, _ in expected], abs=1e-4
        )


def test_a_batch_gives_each_image_the_captions_it_gets_alone():
    decoder, features = _decoder(7), _features(7, 6)
    together = beam_search(decoder, features, VOCABULARY, beam_width=3, max_words=8)
    for image in range(6):
        alone = beam_search(decoder, features[image : image + 1], VOCABULARY, beam_width=3, max_words=8)[0]
        assert [own.text for own in alone] == [own.text for own in together[image]]


def test_unk_is_never_generated_even_when_it_is_the_likeliest():
    decoder = _decoder(0)
    with torch.no_grad():
        decoder.words.output_bias[UNK] = 100.0
    for own in beam_search(decoder, _features(0, 3), VOCABULARY, beam_width=2, max_words=5):
        assert all(set(hypothesis.words) <= set(WORDS) for hypothesis in own)


def test_each_word_has_the_attention_it_was_chosen_with():
    decoder, features = _decoder(3), _features(3, 2)
    for image, own in enumerate(
        beam_search(decoder, features, VOCABULARY, beam_width=3, max_words=6, with_attention=True)
    ):
        for hypothesis in own:
            words = VOCABULARY.encode(hypothesis.text)
            assert hypothesis.attention is not None
            assert len(hypothesis.attention) == len(words)
            if not words:
                continue
            tokens = torch.tensor([[BOS, *words[:-1]]])
            memory = decoder.prepare(features[image : image + 1])
            attention = decoder(memory, tokens, torch.tensor([len(words)])).attention_WL
            torch.testing.assert_close(torch.tensor(hypothesis.attention), attention, atol=1e-4, rtol=1e-3)


def test_a_beam_wider_than_the_vocabulary_returns_what_there_is():
    captions = beam_search(_decoder(1), _features(1, 1), VOCABULARY, beam_width=50, max_words=1)[0]
    assert sorted(own.text for own in captions) == ["", "a", "b", "c"]
