import json
import random
from pathlib import Path

import pytest

from captioning.comparison import Captioned, compare, read_captioned

REFERENCES = {str(number): [f"a dog runs on street {number}"] for number in range(40)}


def said(share_right: float, references: dict[str, list[str]] = REFERENCES) -> Captioned:
    """Return captions of which a share are right, in an order of their own."""
    dice = random.Random(share_right)
    image_ids = dice.sample([*references], len(references))
    hypotheses = {
        image_id: references[image_id][0] if dice.random() < share_right else "a cat sleeps"
        for image_id in image_ids
    }
    return Captioned(hypotheses=hypotheses, references=references)


def test_the_better_model_is_better_by_the_difference_of_the_scores_and_surely_so():
    good, bad = said(0.9), said(0.3)
    found = compare(good, bad, ["exact_match", "levenshtein"], num_samples=500)
    right = [sum(own.hypotheses[i] == REFERENCES[i][0] for i in REFERENCES) / 40 for own in (good, bad)]
    own = found["exact_match"]
    assert own.value == pytest.approx(right[0] - right[1])
    assert 0 < own.interval[0] < own.value < own.interval[1]
    assert own.p_value < 0.01
    assert found["levenshtein"].value < 0
    assert compare(good, good, ["exact_match"], num_samples=500)["exact_match"].p_value == 1


def test_models_of_different_images_are_not_compared():
    fewer = {image_id: own for image_id, own in REFERENCES.items() if image_id != "7"}
    message = r"and 1 were captioned by one only, such as \['7'\]; evaluate both on one split"
    with pytest.raises(ValueError, match=message):
        compare(said(0.5), said(0.5, fewer), ["exact_match"], num_samples=100)


def test_models_scored_by_different_references_are_not_compared():
    other = REFERENCES | {"3": ["a horse"]}
    message = (
        r"by the same references, and 1 images have others, such as \['3'\]; evaluate both on the same data"
    )
    with pytest.raises(ValueError, match=message):
        compare(said(0.5), said(0.5, other), ["exact_match"], num_samples=100)


def test_models_are_not_compared_on_one_image():
    one = said(1.0, {"1": ["a dog"]})
    with pytest.raises(ValueError, match="by 2 images at least, and both captioned 1; evaluate both on more"):
        compare(one, one, ["exact_match"], num_samples=100)


def test_what_the_evaluate_stage_wrote_is_read(tmp_path: Path):
    path = tmp_path / "hypotheses.jsonl"
    rows = [
        {"image_id": "1", "hypothesis": "né", "references": ["a"]},
        {"image_id": "2", "hypothesis": "", "references": ["b"]},
    ]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    assert read_captioned(path) == Captioned(
        hypotheses={"1": "né", "2": ""}, references={"1": ["a"], "2": ["b"]}
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "not json",
            r"hypotheses.jsonl: line 2 is no JSON object with image_id, hypothesis and references, as",
        ),
        ('{"image_id": "2"}', "line 2 is no JSON object"),
        ("[]", "line 2 is no JSON object"),
        ('{"image_id": 2, "hypothesis": "b", "references": ["a"]}', "line 2 is no JSON object"),
        ('{"image_id": "2", "hypothesis": null, "references": ["a"]}', "line 2 is no JSON object"),
        (
            '{"image_id": "2", "hypothesis": "b", "references": "a dog"}',
            "them: two texts and a list of texts",
        ),
        ('{"image_id": "2", "hypothesis": "b", "references": []}', "line 2 is no JSON object"),
        ('{"image_id": "2", "hypothesis": "b", "references": ["a", 1]}', "line 2 is no JSON object"),
        (
            '{"image_id": "1", "hypothesis": "b", "references": ["a"]}',
            "line 2 is the second of image '1'; expected one an image",
        ),
    ],
)
def test_damaged_lines_and_repeated_images_are_refused(line: str, message: str, tmp_path: Path):
    path = tmp_path / "hypotheses.jsonl"
    path.write_text('{"image_id": "1", "hypothesis": "a", "references": ["a"]}\n' + line + "\n")
    with pytest.raises(ValueError, match=message):
        read_captioned(path)
