"""What decides about a champion: evidence in, a word and every reason out; two models scored on the same images."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from registry_samples import ROOT, SETTINGS

from captioning import params
from captioning.comparison import Captioned
from captioning.promotion import Comparison, Evidence, RegisterSettings, compare, decide, is_of_captions

BETTER = Comparison(
    champion="1",
    num_images=300,
    note="The test set is the same.",
    scores={"exact_match": 0.5, "cider": 0.9},
    champion_scores={"exact_match": 0.4, "cider": 0.8},
    gain=0.1,
    interval=(0.05, 0.15),
    slice_losses={"caption length 3 words": 0.02, "object word dog": -0.2},
)
EVIDENCE = Evidence(
    version="2",
    champion="1",
    scores={"exact_match": 0.5, "cider": 0.9, "perplexity": 12.0},
    comparison=BETTER,
    seconds_per_caption=0.2,
)
NUMBERS = "exact_match 0.5000 against 0.4000 of version 1 on 300 images"


def settings(**changes: Any) -> RegisterSettings:
    return RegisterSettings.model_validate(SETTINGS.model_dump() | changes)


def compared(**changes: Any) -> Evidence:
    return replace(EVIDENCE, comparison=replace(BETTER, **changes))


def test_who_is_surely_better_by_enough_and_fit_becomes_champion() -> None:
    decision = decide(
        EVIDENCE,
        settings(
            min_gain=0.1,
            floors={"cider": 0.9, "perplexity": 12.0},
            max_slice_loss=0.02,
            max_seconds_per_caption=0.2,
        ),
    )
    assert (decision.word, decision.promotes, decision.reasons) == ("better", True, [])
    assert decision.reason == (
        f"Version 2 is the new champion: {NUMBERS} (gain +0.1000, 95 % interval +0.0500 to +0.1500). "
        "The test set is the same."
    )


@pytest.mark.parametrize(
    ("evidence", "changes", "word", "reason"),
    [
        (compared(gain=0.0, interval=(-0.1, 0.1)), {}, "not-better", f"It is not better: {NUMBERS}"),
        (compared(gain=-0.1, interval=(-0.2, 0.0)), {}, "not-better", f"It is not better: {NUMBERS}"),
        (compared(gain=1e-9, interval=(1e-9, 1e-9)), {}, "not-better", f"It is not better: {NUMBERS}"),
        (EVIDENCE, {"min_gain": 0.2}, "not-better", "It is better by less than register.min_gain, 0.2: "),
        (compared(interval=(0.0, 0.2)), {}, "not-better", "That it is better may be chance: "),
        (compared(interval=None), {}, "not-better", "How sure the gain is cannot be said, as exact_match is"),
        (
            replace(EVIDENCE, comparison=None, obstacle="It cannot be compared: so."),
            {},
            "not-comparable",
            "It cannot be compared: so.",
        ),
        (EVIDENCE, {"floors": {"cider": 1.0}}, "unfit", "cider is 0.9000, below the 1 of register.floors."),
        (
            EVIDENCE,
            {"floors": {"perplexity": 9.5}},
            "unfit",
            "perplexity is 12.0000, above the 9.5 of register.floors.",
        ),
        (
            EVIDENCE,
            {"max_slice_loss": 0.01},
            "unfit",
            "Its exact_match is worse than the champion's by more than register.max_slice_loss, 0.01, on 1 of 2 "
            "slices: caption length 3 words by 0.0200.",
        ),
        (EVIDENCE, {"max_seconds_per_caption": 0.1}, "unfit", "A caption takes 0.200 s, more than register."),
        (replace(EVIDENCE, servability="It does not answer."), {}, "unfit", "It does not answer."),
        (
            replace(EVIDENCE, rolled_back="by Ada"),
            {},
            "rolled-back",
            "It was the champion before, and was taken back: by Ada.",
        ),
    ],
)
def test_one_condition_that_does_not_hold_keeps_the_champion(
    evidence: Evidence, changes: dict[str, Any], word: str, reason: str
) -> None:
    decision = decide(evidence, settings(**changes))
    assert (decision.word, decision.promotes, len(decision.reasons)) == (word, False, 1)
    assert decision.reasons[0].startswith(reason)
    assert decision.reason == f"Version 2 is not promoted, version 1 stays: {decision.reasons[0]}"


def test_every_reason_is_given_and_the_one_that_decides_comes_first() -> None:
    evidence = replace(
        compared(gain=-0.1, interval=(-0.2, 0.0)), servability="It does not answer.", rolled_back="by Ada"
    )
    decision = decide(evidence, settings(floors={"cider": 1.0, "exact_match": 0.6}, max_slice_loss=0.0))
    starts = ["It was the", "It is not b", "cider is", "exact_match is", "Its exact_match", "It does not"]
    assert [reason[: len(start)] for reason, start in zip(decision.reasons, starts, strict=True)] == starts
    assert decision.word == "rolled-back"


def test_a_gain_without_certainty_is_enough_where_that_is_set() -> None:
    assert decide(compared(interval=(-0.1, 0.2)), settings(must_be_sure=False)).word == "better"
    assert decide(compared(gain=0.0), settings(must_be_sure=False)).word == "not-better"


def test_the_first_version_wins_and_the_champion_itself_stays() -> None:
    first = replace(EVIDENCE, champion=None, comparison=None)
    decision = decide(first, settings())
    assert (decision.word, decision.reason) == ("no-champion", "Version 2 is the champion: there was none.")
    unfit = decide(first, settings(floors={"cider": 1.0}))
    assert unfit.reason.startswith("Version 2 is not promoted, there is no champion: cider is")
    itself = decide(replace(EVIDENCE, champion="2", servability="No answer."), settings())
    assert (itself.word, itself.promotes) == ("is-champion", False)


def test_a_person_decides_only_about_what_would_win() -> None:
    assert decide(EVIDENCE, settings(approval=True)).word == "awaiting-approval"
    assert decide(EVIDENCE, settings(approval=True)).reason.startswith(
        "Version 2 would be the new champion: "
    )
    assert decide(EVIDENCE, settings(approval=True, min_gain=0.5)).word == "not-better"


# --- two models on the same images

REFERENCES = {str(number): ["a dog"] if number < 10 else ["a red cat"] for number in range(20)}


def captioned(num_right: int) -> Captioned:
    right = {image_id: own[0] for image_id, own in REFERENCES.items()}
    wrong = dict.fromkeys([*REFERENCES][num_right:], "a")
    return Captioned(hypotheses=right | wrong, references=REFERENCES)


def compare_two(first: int, second: int, metric: str, images: Path | None = None) -> Comparison:
    champion = dict(reversed(captioned(second).hypotheses.items())) | {"another image": "a"}
    return compare(
        captioned(first),
        "1",
        champion,
        settings(metric=metric, min_images=5),
        metrics=["exact_match", "levenshtein"],
        images=images,
        note="",
    )


def test_models_are_compared_on_the_challengers_images_in_whatever_order() -> None:
    found = compare_two(20, 10, "exact_match")
    assert (found.scores["exact_match"], found.champion_scores["exact_match"]) == (1.0, 0.5)
    assert (found.num_images, found.gain) == (20, 0.5)
    assert found.interval and 0.2 < found.interval[0] < 0.5 < found.interval[1] < 0.8


def test_a_gain_is_positive_where_less_is_better_and_is_less() -> None:
    better, worse = compare_two(20, 10, "levenshtein"), compare_two(10, 20, "levenshtein")
    assert (better.scores["levenshtein"], better.champion_scores["levenshtein"]) == (0.0, 4.0)
    assert (better.gain, worse.gain) == (4.0, -4.0)
    assert better.interval and worse.interval
    assert 0 < better.interval[0] < better.interval[1]
    assert worse.interval == (-better.interval[1], -better.interval[0])


def test_a_slice_may_lose_where_the_whole_wins() -> None:
    first, second = captioned(0).hypotheses, captioned(5)
    cats = {image_id: own[0] for image_id, own in REFERENCES.items() if own[0] == "a red cat"}
    found = compare(
        Captioned(hypotheses=first | cats, references=REFERENCES),
        "1",
        second.hypotheses,
        settings(min_images=5),
        metrics=["exact_match"],
        images=None,
        note="",
    )
    assert found.gain == 0.25
    assert found.slice_losses == {
        "caption length 2 words": 0.5,
        "caption length 3 words": -1.0,
        "object word cat": -1.0,
        "object word dog": 0.5,
    }
    assert "on 2 of 4 slices: caption length 2 words by 0.5000, object word dog by 0.5000." in str(
        decide(replace(EVIDENCE, comparison=found), settings(max_slice_loss=0.1)).reasons
    )


def test_molecules_are_long_or_short_by_their_tokens() -> None:
    texts = ["InChI=1S/CH4/h1H4"] * 10 + ["InChI=1S/C2H6/c1-2/h1-2H3"] * 10
    references = {str(number): [text] for number, text in enumerate(texts)}
    found = compare(
        Captioned(hypotheses=dict(zip(references, texts, strict=True)), references=references),
        "1",
        dict.fromkeys(references, texts[0]),
        settings(min_images=5),
        metrics=["exact_match"],
        images=None,
        tokens="inchi",
        note="",
    )
    assert found.slice_losses == {"caption length 7 tokens": 0.0, "caption length 14 tokens": -1.0}


# --- settings


def test_only_a_score_that_captions_are_enough_for_decides() -> None:
    assert [own for own in ("bleu_4", "cider", "levenshtein", "meteor") if is_of_captions(own)] == [
        "bleu_4",
        "cider",
        "levenshtein",
        "meteor",
    ]
    for metric in ("perplexity", "token_accuracy", "diversity_self_bleu", "cider_d", "no_such"):
        with pytest.raises(
            ValueError, match=f"'{metric}' cannot decide between two models: expected a score"
        ):
            settings(metric=metric)


def test_settings_refuse_a_name_that_mlflow_or_a_folder_would_not_take() -> None:
    assert settings(model_name="scenes-2").model_name == "scenes-2"
    with pytest.raises(ValueError, match="model_name"):
        settings(model_name="a/b")


def test_the_default_wants_a_sure_gain_and_no_lost_slice() -> None:
    default = RegisterSettings.model_validate(params.read(ROOT / "params.yaml")["register"])
    assert (default.min_gain, default.must_be_sure, default.approval, default.floors) == (
        0.0,
        True,
        False,
        {},
    )
    assert default.max_slice_loss == 0.2
