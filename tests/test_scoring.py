"""Scores of captions, good and bad input: each is a number that can be trusted, or a refusal that says what to do."""

import math
from importlib.metadata import version
from typing import Any

import pytest

from captioning import tokenization
from captioning.metrics import bleu, exact_match, mean
from captioning.scoring import Scorer, tokenizer_of

REFERENCES = {"1": ["A dog runs.", "The dog"], "2": ["A cat sleeps!"], "3": ["Two men."]}
HYPOTHESES = {"1": "a dog runs", "2": "a dog", "3": "two men"}


@pytest.fixture
def starts_of_java(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The command of each Java that was started."""
    starts: list[tuple[str, ...]] = []
    real = tokenization.java

    def counted(*command: str) -> Any:
        starts.append(command)
        return real(*command)

    monkeypatch.setattr(tokenization, "java", counted)
    return starts


def test_references_and_hypotheses_are_tokenized_by_one_java_and_references_never_again(
    starts_of_java: list[tuple[str, ...]],
):
    scorer = Scorer(REFERENCES, ["bleu", "cider"])
    scores, of_images = scorer.score(HYPOTHESES)
    assert len(starts_of_java) == 1
    assert scores["bleu_1"] == pytest.approx(6 / 7 * math.exp(1 - 8 / 7))
    assert of_images["1"]["bleu_1"] == pytest.approx(1)
    assert [*of_images] == [*HYPOTHESES]
    backward, _ = scorer.score(dict(reversed(HYPOTHESES.items())))
    assert backward == scores
    assert len(starts_of_java) == 2


def test_metrics_of_raw_text_start_no_java(starts_of_java: list[tuple[str, ...]]):
    scorer = Scorer({"1": ["InChI=1S/CH4/h1H4"]}, ["levenshtein", "exact_match"])
    scores, _ = scorer.score({"1": "InChI=1S/CH4/h1H3"})
    assert scores["levenshtein"] == 1
    assert scores["exact_match"] == 0
    assert starts_of_java == []
    assert tokenizer_of(["levenshtein", "exact_match"]) == "none"
    assert tokenizer_of(["levenshtein", "bleu"]) == "ptb"


def test_missing_and_extra_images_are_refused_by_name():
    scorer = Scorer(REFERENCES, ["bleu"])
    message = (
        r"^1 images have references but no hypothesis, such as \['3'\], and 2 have a hypothesis but no references, "
        r"such as \['4', '5'\]; each image is decoded once"
    )
    with pytest.raises(ValueError, match=message):
        scorer.score({"1": "a", "2": "b", "4": "c", "5": "d"})
    with pytest.raises(
        ValueError, match=r"^1 images .* \['3'\], and 0 have a hypothesis but no references; each"
    ):
        scorer.score({"1": "a", "2": "b"})


def test_a_split_without_images_and_images_without_references_are_refused():
    with pytest.raises(
        ValueError, match="there are no images to score: the split is empty; correct the section"
    ):
        Scorer({}, ["bleu"])
    with pytest.raises(
        ValueError, match=r"1 images have no reference caption, such as \['2'\], and cannot be scored"
    ):
        Scorer({"1": ["a dog"], "2": []}, ["bleu"])


@pytest.mark.parametrize("nothing", ["", "   ", "...", "?!", "\n"])
def test_a_caption_without_words_scores_nothing(nothing: str):
    scores, of_images = Scorer(REFERENCES, ["bleu", "rouge_l", "cider"]).score(HYPOTHESES | {"2": nothing})
    assert of_images["2"] == pytest.approx(dict.fromkeys(of_images["2"], 0), abs=1e-9)
    assert all(map(math.isfinite, scores.values()))


def test_references_without_words_match_nothing_and_one_reference_is_enough():
    references = {"1": ["..."], "2": ["a cat"]}
    _, of_images = Scorer(references, ["bleu", "rouge_l", "cider"]).score({"1": "...", "2": "a cat"})
    assert of_images["1"] == pytest.approx(dict.fromkeys(of_images["1"], 0), abs=1e-9)
    assert of_images["2"]["bleu_2"] == pytest.approx(1)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_refused_with_image_and_caption(
    number: float, monkeypatch: pytest.MonkeyPatch
):
    def broken(raw_hypotheses: dict[str, str]) -> dict[str, Any]:
        return {"exact_match": mean([1, number, number])}

    monkeypatch.setattr(exact_match, "score", broken)
    message = (
        rf"exact_match gave {number} for exact_match of 2 images, such as '2' with the hypothesis 'a dog', expected a "
        "number; correct the metric, or remove it from evaluate.metrics"
    )
    with pytest.raises(ValueError, match=message):
        Scorer(REFERENCES, ["exact_match"]).score(HYPOTHESES)


def test_a_score_of_the_set_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bleu, "score", lambda hypotheses: {"bleu_1": math.nan})
    with pytest.raises(ValueError, match="bleu gave nan for bleu_1, expected a number; correct"):
        Scorer(REFERENCES, ["bleu"]).score(HYPOTHESES)


@pytest.mark.parametrize(
    ("metric", "lacking"),
    [
        ("diversity", "train_references, vocabulary"),
        ("perplexity", "likelihoods"),
        ("token_accuracy", "likelihoods"),
    ],
)
def test_a_metric_that_reads_more_than_captions_is_refused_where_there_is_no_more(metric: str, lacking: str):
    message = f"the metric '{metric}' reads {lacking}, which is not to be had here: name it in evaluate.metrics, not in"
    with pytest.raises(ValueError, match=message):
        Scorer(REFERENCES, ["bleu", metric])


def test_a_metric_whose_program_is_missing_is_refused_before_anything_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
):
    def missing() -> None:
        raise OSError("SPICE needs something")

    monkeypatch.setattr("captioning.metrics.spice.check", missing)
    with pytest.raises(OSError, match="SPICE needs something"):
        Scorer(REFERENCES, ["spice"])


def test_a_metric_that_reads_what_there_never_is_is_a_defect(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bleu, "score", lambda captions: {})
    with pytest.raises(
        AssertionError, match=r"bleu.score reads \['captions'\]; a metric can read hypotheses, "
    ):
        Scorer(REFERENCES, ["bleu"])


def test_the_signature_says_what_was_measured_on_what_and_how():
    assert Scorer(REFERENCES, ["bleu", "cider"]).signature(decoding="beam, beam width 3") == (
        f"captioning {version('captioning')} | bleu, cider | ptb tokenizer, coco-caption (pycocoevalcap "
        f"{version('pycocoevalcap')}) | 3 images, 4 references | beam, beam width 3"
    )
    assert " | levenshtein | raw text | 3 images," in Scorer(REFERENCES, ["levenshtein"]).signature(
        decoding=""
    )
