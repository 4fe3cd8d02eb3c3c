import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from captioning import encoders
from captioning.captioner import Captioner
from captioning.decoders import soft_attention
from captioning.images import PixelTransform
from captioning.vocabulary import MARKERS, Vocabulary


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    torch.manual_seed(0)
    return Captioner(
        encoder=encoders.Settings(name="resnet18", weights="none", layer="layer2", pooled=False),
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


def test_saved_and_loaded_captions_alike(captioner: Captioner, tmp_path: Path):
    captioner.save(tmp_path, fingerprint="f")
    loaded = Captioner.load(tmp_path)
    pictures = [_picture(0), _picture(1)]
    for ours, theirs in zip(
        loaded.caption(pictures, beam_width=3, top=2),
        captioner.caption(pictures, beam_width=3, top=2),
        strict=True,
    ):
        assert [own.text for own in ours] == [own.text for own in theirs]
        assert [own.log_probability for own in ours] == pytest.approx([own.log_probability for own in theirs])
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
        ValueError, match="is not the vocabulary that the weights were trained with; restore the folder"
    ):
        Captioner.load(tmp_path)


def test_weights_of_another_vocabulary_are_refused_even_where_the_files_agree(
    captioner: Captioner, tmp_path: Path
):
    captioner.save(tmp_path, fingerprint="f")
    other = Vocabulary([*MARKERS, "a", "red", "dog", "cat"])
    other.save(tmp_path / "vocabulary.json")
    description = json.loads((tmp_path / "captioner.json").read_text())
    (tmp_path / "captioner.json").write_text(json.dumps(description | {"vocabulary": other.digest}))
    message = r"weights.safetensors are not those of the model that .* size mismatch .*; restore the folder"
    with pytest.raises(ValueError, match=message):
        Captioner.load(tmp_path)


def test_a_folder_without_weights_is_refused(captioner: Captioner, tmp_path: Path):
    captioner.save(tmp_path, fingerprint="f")
    (tmp_path / "weights.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match="is not a captioner's folder"):
        Captioner.load(tmp_path)
    shutil.rmtree(tmp_path)
    with pytest.raises(ValueError, match=r"is not a captioner's folder: .*No such file"):
        Captioner.load(tmp_path)


@pytest.mark.parametrize(
    ("file", "written", "message"),
    [
        ("captioner.json", "[1]", "captioner.json is no JSON object with decoder, encoder, vocabulary"),
        ("captioner.json", '{"encoder": {}, "decoder": {}}', "captioner.json is no JSON object with decoder"),
        (
            "captioner.json",
            '{"encoder": {"name": "resnet18", "weights": "none", "layer": "layer2", "pooled": false}, '
            '"decoder": {}, "vocabulary": ""}',
            "expected a mapping with a name out of .*soft_attention",
        ),
        ("captioner.json", '{"encoder": {}, "decoder": {}, "vocabulary": ""}', "name Field required"),
        ("vocabulary.json", "{}", "vocabulary.json is no vocabulary"),
    ],
)
def test_files_of_another_form_are_refused_with_the_next_step(
    captioner: Captioner, file: str, written: str, message: str, tmp_path: Path
):
    captioner.save(tmp_path, fingerprint="f")
    (tmp_path / file).write_text(written)
    with pytest.raises(
        ValueError, match=rf"is not a captioner's folder: .*{message}.*; restore the folder \(`dvc checkout"
    ):
        Captioner.load(tmp_path)


def test_no_pictures_have_no_captions_and_no_captions_are_none_to_ask_for(captioner: Captioner):
    assert captioner.caption([]) == []
    for top in (0, -1):
        with pytest.raises(ValueError, match=f"top is {top}, expected 1 caption an image or more"):
            captioner.caption([_picture(0)], top=top)


def test_top_captions_come_with_falling_probability(captioner: Captioner):
    own = captioner.caption([_picture(0)], beam_width=2, top=4)[0]
    assert len(own) == 4
    scores = [hypothesis.log_probability for hypothesis in own]
    assert scores == sorted(scores, reverse=True)
