import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from captioning.captioner import Captioner
from captioning.decoders import soft_attention
from captioning.encoders import torchvision_network
from captioning.images import PixelTransform
from captioning.vocabulary import MARKERS, Vocabulary


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    torch.manual_seed(0)
    return Captioner(
        encoder=torchvision_network.Settings(
            name="resnet18", weights="none", layer="layer2", trainable=False
        ),
        decoder=soft_attention.Settings(
            name="soft_attention",
            feature_width=16,
            embedding_width=16,
            attention_width=16,
            hidden_width=16,
            dropout=0.5,
            tied_embeddings=False,
        ),
        vocabulary=Vocabulary([*MARKERS, "a", "red", "dog"]),
        transform=PixelTransform(height=32, width=48),
    )


def _picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (50, 40, 3), dtype=np.uint8)


def _loss_arguments() -> dict[str, torch.Tensor]:
    return {
        "inputs": torch.randint(
            0, 256, (2, 3, 32, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
        ),
        "tokens_NT": torch.tensor([[1, 4, 5, 6], [1, 4, 6, 0], [1, 4, 0, 0], [0, 0, 0, 0]]),
        "targets_NT": torch.tensor([[4, 5, 6, 2], [4, 6, 2, 0], [4, 2, 0, 0], [0, 0, 0, 0]]),
        "lengths_N": torch.tensor([4, 3, 2, 0]),
    }


def test_loss_is_the_cross_entropy_of_the_words_and_not_of_padding(captioner: Captioner):
    captioner.eval()
    arguments = _loss_arguments()
    loss = captioner.loss(**arguments)
    memory = captioner.decoder.prepare(captioner.features(arguments["inputs"]))
    state, expected = captioner.decoder.start(memory, 4), 0.0
    for t in range(4):
        output, state, _ = captioner.decoder.step(memory, state, arguments["tokens_NT"][:, t])
        scores = torch.log_softmax(captioner.decoder.words.logits(output), dim=1)
        for row in range(4):
            if arguments["targets_NT"][row, t]:
                expected -= float(scores[row, arguments["targets_NT"][row, t]].detach())
    assert loss.num_words == 9
    assert float(loss.cross_entropy_sum) == pytest.approx(expected, rel=1e-5)
    assert float(loss.total.detach()) == pytest.approx(expected / 9, rel=1e-5)


def test_attention_penalty_is_the_doubly_stochastic_term(captioner: Captioner):
    captioner.eval()
    arguments = _loss_arguments()
    memory = captioner.decoder.prepare(captioner.features(arguments["inputs"]))
    attention = captioner.decoder(memory, arguments["tokens_NT"], arguments["lengths_N"]).attention_WL
    per_caption = [own.sum(dim=0) for own in attention.split((4, 3, 2))]
    expected = torch.stack([(1 - own).square().mean() for own in per_caption]).mean()
    with_term = captioner.loss(**arguments, attention_penalty=2.0).total - captioner.loss(**arguments).total
    assert float(with_term) == pytest.approx(2 * float(expected), rel=1e-4)


def test_a_frozen_encoder_stays_frozen_and_its_batchnorm_statistics_do_not_move(captioner: Captioner):
    before = {name: value.clone() for name, value in captioner.encoder.state_dict().items()}
    captioner.train()
    captioner.loss(**_loss_arguments()).total.backward()
    assert all(torch.equal(before[name], value) for name, value in captioner.encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in captioner.encoder.parameters())
    assert captioner.decoder.training


def test_saved_and_loaded_captions_alike(captioner: Captioner, tmp_path: Path):
    captioner.save(tmp_path, fingerprint="f")
    loaded = Captioner.load(tmp_path)
    pictures = [_picture(0), _picture(1)]
    assert loaded.caption(pictures, beam_width=3, top=2) == captioner.caption(pictures, beam_width=3, top=2)
    assert json.loads((tmp_path / "captioner.json").read_text())["fingerprint"] == "f"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "captioner.json",
        "transform.json",
        "vocabulary.json",
        "weights.safetensors",
    ]


def test_the_same_weights_are_saved_as_the_same_bytes(captioner: Captioner, tmp_path: Path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        captioner.save(tmp_path / name, fingerprint="f")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_a_vocabulary_of_other_words_is_refused_at_load(captioner: Captioner, tmp_path: Path):
    captioner.save(tmp_path, fingerprint="f")
    Vocabulary([*MARKERS, "a", "dog", "red"]).save(tmp_path / "vocabulary.json")
    with pytest.raises(
        ValueError, match="is not the vocabulary that the weights were trained with; restore it"
    ):
        Captioner.load(tmp_path)


def test_a_folder_without_weights_is_refused(captioner: Captioner, tmp_path: Path):
    captioner.save(tmp_path, fingerprint="f")
    (tmp_path / "weights.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match="is not a captioner's folder"):
        Captioner.load(tmp_path)
    shutil.rmtree(tmp_path)
    with pytest.raises(ValueError, match=r"is not a captioner's folder: .*No such file"):
        Captioner.load(tmp_path)


def test_top_captions_come_with_falling_probability(captioner: Captioner):
    own = captioner.caption([_picture(0)], beam_width=2, top=4)[0]
    assert len(own) == 4
    scores = [hypothesis.log_probability for hypothesis in own]
    assert scores == sorted(scores, reverse=True)
