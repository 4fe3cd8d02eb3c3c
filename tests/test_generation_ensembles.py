"""Ensembles: the mean of next-word probabilities, of captioners with one vocabulary."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from captioning import encoders, lookup
from captioning.captioner import Captioner
from captioning.decoding import decode_split, pixel_reader
from captioning.ensemble import Ensemble
from captioning.examples import Examples
from captioning.generation import PLAIN_BEAM, SampleSettings, generate
from captioning.images import PixelTransform
from captioning.vocabulary import BOS, EOS, MARKERS, Vocabulary

VOCABULARY = Vocabulary([*MARKERS, *(f"word{number}" for number in range(20))])
SETTINGS: dict[str, dict[str, Any]] = {
    "soft_attention": {"feature_width": 12, "embedding_width": 8, "attention_width": 6, "hidden_width": 10},
    "merge": {"cell": "lstm", "embedding_width": 8, "hidden_width": 10},
    "transformer": {
        "width": 12,
        "num_heads": 3,
        "encoder_depth": 1,
        "decoder_depth": 2,
        "feedforward_width": 16,
    },
}


def _captioner(
    seed: int,
    decoder: str = "soft_attention",
    *,
    vocabulary: Vocabulary = VOCABULARY,
    layer: str = "layer2",
    side: int = 32,
) -> Captioner:
    torch.manual_seed(seed)
    values = {"name": decoder, "dropout": 0.0, "tied_embeddings": False, **SETTINGS[decoder]}
    captioner = Captioner(
        encoder=encoders.Settings(name="resnet18", weights="none", layer=layer, pooled=False),
        decoder=lookup.find("decoders", decoder).Settings.model_validate(values),
        vocabulary=vocabulary,
        transform=PixelTransform(height=side, width=side),
    )
    with torch.no_grad():  # far from uniform
        captioner.decoder.words.output_bias.normal_(std=2.0)
    return captioner.eval()


def _pictures(count: int) -> list[np.ndarray]:
    return [
        np.random.default_rng(seed).integers(0, 256, (50, 40, 3), dtype=np.uint8) for seed in range(count)
    ]


def test_an_ensemble_of_one_or_of_the_same_twice_captions_as_the_captioner_does():
    captioner = _captioner(0)
    expected = captioner.caption(_pictures(3), top=3)
    for captioners in ([captioner], [captioner, captioner]):
        found = Ensemble(captioners).caption(_pictures(3), top=3)
        for own, other in zip(found, expected, strict=True):
            assert [one.text for one in own] == [one.text for one in other]
            assert [one.log_probability for one in own] == pytest.approx(
                [one.log_probability for one in other], abs=1e-4
            )


@torch.inference_mode()
def _next_words(captioner: Captioner, picture: np.ndarray, words: list[int]) -> torch.Tensor:
    """Return the probabilities of the word after `words`, by teacher forcing."""
    memory = captioner.decoder.prepare(captioner.features(captioner.pixels([picture])))
    forced = captioner.decoder(memory, torch.tensor([[BOS, *words]]), torch.tensor([1 + len(words)]))
    return torch.softmax(captioner.decoder.words.logits(forced.output_WE)[-1].double(), dim=0)


def test_probabilities_of_decoders_encoders_and_pictures_of_any_kind_are_averaged_word_by_word():
    captioners = [
        _captioner(0),
        _captioner(1, "transformer", layer="layer1", side=48),
        _captioner(2, "merge", layer="layer3"),
    ]
    pictures = _pictures(2)
    said = Ensemble(captioners).caption(pictures, top=2, max_words=6)
    assert said != captioners[0].caption(pictures, top=2, max_words=6)
    for picture, captions in zip(pictures, said, strict=True):
        for caption in captions:
            words, expected = [VOCABULARY.words.index(word) for word in caption.words], 0.0
            for place, word in enumerate([*words, EOS][:6]):
                mean = sum(_next_words(own, picture, words[:place])[word] for own in captioners) / 3
                expected += float(torch.as_tensor(mean).log())
            assert caption.log_probability == pytest.approx(expected, abs=1e-4)


def test_step_by_step_equals_teacher_forcing():
    ensemble = Ensemble([_captioner(0), _captioner(1, "transformer")])
    memory = ensemble.decoder.prepare(ensemble.features(ensemble.pixels(_pictures(2))))
    tokens_NT = torch.randint(4, len(VOCABULARY), (4, 5), generator=torch.Generator().manual_seed(0))
    forced_WE = ensemble.decoder(memory, tokens_NT, torch.full((4,), 5)).output_WE
    state, stepped = ensemble.decoder.start(memory, 4), []
    for t in range(5):
        output, state, _ = ensemble.decoder.step(memory, state, tokens_NT[:, t])
        stepped.append(output)
    torch.testing.assert_close(forced_WE.view(4, 5, -1), torch.stack(stepped, dim=1))
    torch.testing.assert_close(forced_WE.exp().sum(dim=1), torch.ones(20))


def test_attention_is_the_mean_where_all_attend_to_grids_of_one_size():
    first, second = _captioner(0), _captioner(1)
    [[both]] = Ensemble([first, second]).caption(_pictures(1), max_words=1, with_attention=True)
    attentions = []
    for own in (first, second):
        memory = own.decoder.prepare(own.features(own.pixels(_pictures(1))))
        attentions.append(own.decoder(memory, torch.tensor([[BOS]]), torch.tensor([1])).attention_WL)
    torch.testing.assert_close(torch.tensor(both.attention), torch.stack(attentions).mean(dim=0))
    for other in (_captioner(1, layer="layer1"), _captioner(2, "merge")):
        [[one]] = Ensemble([first, other]).caption(_pictures(1), with_attention=True)
        assert one.attention is None


def test_an_ensemble_is_evaluated_as_a_captioner_is(tiny_examples: Path):
    vocabulary = Vocabulary.load(tiny_examples / "vocabulary.json")
    captioners = [_captioner(seed, vocabulary=vocabulary, side=64) for seed in range(2)]
    ensemble, examples = Ensemble(captioners), Examples(tiny_examples, "val")
    said = decode_split(ensemble, examples, pixel_reader(examples, ensemble.device), PLAIN_BEAM)
    assert list(said) == list(examples.image_ids)
    [[first]] = ensemble.caption_pixels(torch.from_numpy(examples.images([0])))
    assert said[examples.image_ids[0]].text == first.text


def test_an_ensemble_is_loaded_from_folders_and_draws_samples(tmp_path: Path):
    folders = [tmp_path / "first", tmp_path / "second"]
    captioners = [_captioner(seed) for seed in range(2)]
    for folder, own in zip(folders, captioners, strict=True):
        folder.mkdir()
        own.save(folder, fingerprint="f")
    settings = SampleSettings(
        **PLAIN_BEAM.model_dump(exclude={"method", "beam_width", "length_normalisation"}),
        method="sample",
        num_samples=2,
        temperature=1.0,
        top_k=None,
        top_p=0.9,
        seed=0,
    )
    loaded = Ensemble.load(folders)
    assert loaded.caption(_pictures(2), settings) == Ensemble(captioners).caption(_pictures(2), settings)


def test_captioners_of_different_vocabularies_and_none_are_refused():
    other = Vocabulary([*MARKERS, "a", "b"])
    with pytest.raises(
        ValueError,
        match=r"captioner 1 \(6 words\) is not that of captioner 0 \(24 words\).*trained on the same data/examples",
    ):
        Ensemble([_captioner(0), _captioner(0, vocabulary=other)])
    with pytest.raises(ValueError, match="an ensemble of no captioners"):
        Ensemble([])


def test_one_tensor_of_pixels_is_refused_where_captioners_see_different_sizes():
    ensemble = Ensemble([_captioner(0), _captioner(0, side=48)])
    with pytest.raises(ValueError, match=r"different sizes \(32 x 32, 48 x 48\).*give one for each"):
        ensemble.caption_pixels(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


def test_an_ensembles_decoder_is_one_that_generate_takes():
    ensemble = Ensemble([_captioner(0), _captioner(1)])
    features = ensemble.features(ensemble.pixels(_pictures(2)))
    captions = generate(ensemble.decoder, features, VOCABULARY, PLAIN_BEAM)
    assert [len(own) for own in captions] == [3, 3]
