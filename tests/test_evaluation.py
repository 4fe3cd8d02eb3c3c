import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from captioning import params
from captioning.captioner import Captioner
from captioning.decoding import decode_split, pixel_reader
from captioning.encoders import Settings as EncoderSettings
from captioning.ensemble import Ensemble
from captioning.evaluation import EvaluateSettings, coco_results, describe, evaluate
from captioning.examples import Examples, split_names
from captioning.generation import PLAIN_BEAM
from captioning.images import PixelTransform
from captioning.lookup import find
from captioning.records import Hypothesis
from captioning.reports.results import write_metrics, write_slices
from captioning.training.settings import TrainSettings
from captioning.training.validation import Validator
from captioning.vocabulary import Vocabulary

ROOT = Path(__file__).parents[1]
METRICS = [
    "bleu",
    "rouge_l",
    "cider",
    "cider_d",
    "perplexity",
    "token_accuracy",
    "diversity",
    "levenshtein",
    "exact_match",
]


def _settings(**changes: Any) -> EvaluateSettings:
    values = params.read(ROOT / "params.yaml")["evaluate"]
    values |= {
        "metrics": METRICS,
        "bootstrap_samples": 200,
        "min_images_of_slice": 1,
        "split": "train",
    } | changes
    return EvaluateSettings.model_validate(values)


@pytest.fixture(scope="module")
def captioner(tiny_examples: Path) -> Captioner:
    """An untrained model."""
    torch.manual_seed(0)
    decoder = find("decoders", "soft_attention").Settings(
        name="soft_attention",
        feature_width=16,
        embedding_width=16,
        attention_width=16,
        hidden_width=32,
        dropout=0.5,
        tied_embeddings=False,
    )
    return Captioner(
        encoder=EncoderSettings(name="resnet18", weights="none", layer="layer1", pooled=False),
        decoder=decoder,
        vocabulary=Vocabulary.load(tiny_examples / "vocabulary.json"),
        transform=PixelTransform.model_validate_json((tiny_examples / "transform.json").read_text()),
    )


def test_coco_results_carry_the_number_at_the_end_of_the_image_id():
    ids = ["COCO_test2014_000000000001", "000000391895", "coco/COCO_test2014_000000000016"]
    said = Hypothesis(text="a man", log_probability=-1.0)
    assert coco_results(dict.fromkeys(ids, said)) == [
        {"image_id": 1, "caption": "a man"},
        {"image_id": 391895, "caption": "a man"},
        {"image_id": 16, "caption": "a man"},
    ]
    assert coco_results({}) == []


@pytest.mark.parametrize(
    "ids",
    [
        ["IMG_0001", "DSC_0001", "beach/0001"],
        ["000000391895", "kitchen"],
        ["1" * 5000],
        ["image ٣"],
        ["image 1\n"],
    ],
    ids=["alike", "without a number", "long", "other digits", "line"],
)
def test_image_ids_whose_numbers_do_not_tell_them_apart_stay_text(ids: list[str]):
    said = Hypothesis(text="a man", log_probability=-1.0)
    assert [row["image_id"] for row in coco_results(dict.fromkeys(ids, said))] == ids


def test_splits_with_images_are_named(tiny_examples: Path):
    assert split_names(tiny_examples) == ["train", "val", "test"]


def test_an_evaluation_has_scores_intervals_slices_and_a_signature(
    captioner: Captioner, tiny_tables: Path, tiny_examples: Path, tmp_path: Path
):
    examples, settings = Examples(tiny_examples, "train"), _settings()
    found = evaluate(captioner, examples, settings, tiny_tables / "clean" / "images.parquet")
    assert [*found.hypotheses] == [*found.references] == [*found.scores_of_images] == [*examples.image_ids]
    assert {*found.scores} - {*found.intervals} == {
        "diversity_distinct_1",
        "diversity_distinct_2",
        "diversity_vocabulary",
    }
    for name, (low, high) in found.intervals.items():
        assert low <= found.scores[name] <= high or math.isclose(low, high), name
    assert {own.group for own in found.slices} == {"caption length", "object word"}, (
        "all have one size and source"
    )
    for own in found.slices:
        assert own.scores.keys() == found.intervals.keys()
        assert own.intervals.keys() == (own.scores.keys() if own.num_images > 1 else set())
    decoding = describe(settings.generation)
    assert found.signature.endswith(f"{len(examples)} images, {5 * len(examples)} references | {decoding}")

    write_metrics(found, settings, tmp_path / "metrics.json")
    write_slices(found.slices, tmp_path / "slices.json")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["train"]["bleu_1"] == pytest.approx(found.scores["bleu_1"], abs=1e-6)
    assert metrics["intervals_95"]["bleu_1"][0] == pytest.approx(found.intervals["bleu_1"][0], abs=1e-6)
    assert (metrics["tokenizer"], metrics["num_images"]) == ("ptb", len(examples))
    assert metrics["num_captions_without_words"] == sum(not own.text for own in found.hypotheses.values())
    slices = json.loads((tmp_path / "slices.json").read_text())
    bleu_4 = [own["scores"]["bleu_4"] for own in slices["object word"]]
    assert bleu_4 == sorted(bleu_4)


def test_evaluating_twice_writes_the_same_bytes(captioner: Captioner, tiny_examples: Path, tmp_path: Path):
    settings = _settings(split="val")
    for number in (1, 2):
        found = evaluate(captioner, Examples(tiny_examples, "val"), settings)
        write_metrics(found, settings, tmp_path / f"metrics{number}.json")
        write_slices(found.slices, tmp_path / f"slices{number}.json")
    for name in ("metrics", "slices"):
        assert (tmp_path / f"{name}1.json").read_bytes() == (tmp_path / f"{name}2.json").read_bytes()


def test_perplexity_and_token_accuracy_are_those_of_validation(captioner: Captioner, tiny_examples: Path):
    val = Examples(tiny_examples, "val")
    scores = evaluate(captioner, val, _settings(split="val", metrics=["perplexity", "token_accuracy"])).scores
    values = params.read(ROOT / "params.yaml")["train"]
    validator = Validator(val, TrainSettings.model_validate(values).validation)
    known = validator(captioner, pixel_reader(val, captioner.device)).scores
    assert scores["perplexity"] == pytest.approx(math.exp(known["val_loss"]))
    assert scores["token_accuracy"] == pytest.approx(known["val_accuracy"])
    assert scores["token_accuracy_top_5"] == pytest.approx(known["val_top_5_accuracy"])


def test_an_image_is_encoded_once_although_its_references_are_read_too(
    captioner: Captioner, tiny_examples: Path, monkeypatch: pytest.MonkeyPatch
):
    encoded: list[int] = []
    real = captioner.encoder.forward
    monkeypatch.setattr(
        captioner.encoder, "forward", lambda images: encoded.append(len(images)) or real(images)
    )
    val = Examples(tiny_examples, "val")
    evaluate(captioner, val, _settings(split="val", metrics=["exact_match", "perplexity"]))
    assert sum(encoded) == len(val)


def test_an_ensemble_has_no_perplexity(captioner: Captioner, tiny_examples: Path):
    ensemble = Ensemble([captioner, captioner])
    val = Examples(tiny_examples, "val")
    with pytest.raises(
        ValueError, match="of a single captioner, and this is an ensemble: remove them from evaluate"
    ):
        evaluate(ensemble, val, _settings(split="val", metrics=["perplexity"]))
    assert evaluate(ensemble, val, _settings(split="val", metrics=["exact_match"])).scores["exact_match"] == 0


def test_two_images_of_one_id_are_refused(captioner: Captioner, tiny_examples: Path):
    val = Examples(tiny_examples, "val")
    val.image_ids = (val.image_ids[0], *val.image_ids[:-1])
    with pytest.raises(
        ValueError, match=r"1 image ids of val occur twice, such as \['.*'\], and captions are kept by"
    ):
        decode_split(captioner, val, pixel_reader(val, captioner.device), PLAIN_BEAM)


def test_an_image_without_a_caption_is_named(captioner: Captioner, tiny_examples: Path):
    val = Examples(tiny_examples, "val")

    def read(positions: np.ndarray) -> torch.Tensor:
        features_BLD = captioner.features(pixel_reader(val, captioner.device)(positions)).clone()
        features_BLD[1] = torch.nan
        return features_BLD

    with pytest.raises(ValueError, match=f"image '{re.escape(val.image_ids[1])}' has no caption: its scores"):
        decode_split(captioner, val, read, PLAIN_BEAM)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ([], "at least 1 item"),
        (
            ["bleu", "cider", "bleu"],
            r"bleu is named more than once in \['bleu', 'cider', 'bleu'\]; name each",
        ),
        (["blue"], "no 'blue' in captioning.metrics"),
    ],
)
def test_metrics_are_one_at_least_each_once_and_known(metrics: list[str], message: str):
    with pytest.raises(ValueError, match=message):
        _settings(metrics=metrics)
    values = params.read(ROOT / "params.yaml")["train"]
    with pytest.raises(ValueError, match=message):
        TrainSettings.model_validate(values | {"validation": values["validation"] | {"metrics": metrics}})


def test_decoding_is_described_by_what_was_set():
    settings = PLAIN_BEAM.replaced(
        beam_width=5, max_words=16, bad_endings=["a", "of"], length_normalisation={"name": "wu", "alpha": 0.7}
    )
    assert describe(settings) == (
        "beam, min words 1, max words 16, bad endings a/of, beam width 5, length normalisation wu 0.7"
    )
