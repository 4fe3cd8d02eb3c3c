import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioning.metrics import Statistics, bleu, levenshtein, mean
from captioning.slices import cut, leading_score, object_words, parts_of, quarters


def named(values: dict[str, float]) -> dict[str, Statistics | float]:
    return {"rouge_l": mean(values.values())}


def test_slices_come_worst_first_within_their_group_without_small_and_whole_ones():
    scores = named({"1": 0.9, "2": 0.7, "3": 0.2, "4": 0.4, "5": 0.1})
    parts = {
        "source": {"good": ["1", "2"], "bad": ["3", "4"], "lonely": ["5"], "all": ["1", "2", "3", "4", "5"]},
        "object word": {"dog": ["1", "5"]},
    }
    slices = cut(parts, scores, ["1", "2", "3", "4", "5"], min_images=2, num_samples=100)
    assert [(own.group, own.name, own.num_images) for own in slices] == [
        ("source", "bad", 2),
        ("source", "good", 2),
        ("object word", "dog", 2),
    ]
    assert slices[0].scores == {"rouge_l": pytest.approx(0.3)}
    low, high = slices[0].intervals["rouge_l"]
    assert (low, high) == (pytest.approx(0.2), pytest.approx(0.4))


def test_a_high_distance_is_the_worst_one():
    texts = {"1": "abc", "2": "abc", "3": "abc", "4": "abc"}
    scores = levenshtein.score(texts, {"1": ["abc"], "2": ["abc"], "3": ["xyz"], "4": ["xyz"]})
    parts = {"source": {"right": ["1", "2"], "wrong": ["3", "4"]}}
    slices = cut(parts, scores, [*texts], min_images=1, num_samples=100)
    assert [own.name for own in slices] == ["wrong", "right"]


def test_a_slice_scores_as_its_images_scored_alone():
    hypotheses = {"1": "a dog runs fast", "2": "a cat", "3": "two men on a bench", "4": "a dog on a bed"}
    references = {
        "1": ["a dog runs"],
        "2": ["the cat sleeps"],
        "3": ["men sit on a bench"],
        "4": ["a dog on a bed"],
    }
    own = ["3", "1"]
    [found] = cut(
        {"source": {"some": own}},
        bleu.score(hypotheses, references),
        [*hypotheses],
        min_images=1,
        num_samples=100,
    )
    alone = bleu.score({name: hypotheses[name] for name in own}, {name: references[name] for name in own})
    assert found.scores == pytest.approx({name: scores.of_set for name, scores in alone.items()})


def test_slices_are_ordered_by_bleu_4_or_else_by_the_first_score_that_slices_have():
    assert leading_score(named({"1": 0.1}) | {"bleu_4": mean([0.1])}) == "bleu_4"
    assert leading_score({"diversity_distinct_1": 0.5} | named({"1": 0.1})) == "rouge_l"
    assert leading_score({"diversity_distinct_1": 0.5}) is None
    assert (
        cut({"source": {"some": ["1"]}}, {"distinct": 0.5}, ["1", "2"], min_images=1, num_samples=100) == []
    )


def test_quarters_are_named_by_their_values_and_keep_equal_ones_together():
    values = {str(number): float(value) for number, value in enumerate([1, 2, 3, 4, 5, 6, 7, 8])}
    assert quarters(values, "words") == {
        "1 to 2 words": ["0", "1"],
        "3 to 4 words": ["2", "3"],
        "5 to 6 words": ["4", "5"],
        "7 to 8 words": ["6", "7"],
    }
    assert quarters({"a": 64.0, "b": 64.0, "c": 64.0}, "pixels") == {"64 pixels": ["a", "b", "c"]}
    assert quarters({"a": 9.5, "b": 10.0, "c": 10.0, "d": 10.0}, "words") == {
        "9.5 words": ["a"],
        "10 words": ["b", "c", "d"],
    }
    assert quarters({}, "words") == {}
    large = {str(number): 1_000_000.0 + number for number in range(4)}
    assert [*quarters(large, "pixels")] == [f"{own:.0f} pixels" for own in large.values()]


def test_parts_are_by_length_size_source_and_object(tmp_path: Path):
    images = tmp_path / "images.parquet"
    rows = [("1", "coco", 640, 480), ("2", "flickr", 300, 500), ("of another split", "coco", 9, 9)]
    columns = zip(("image_id", "source", "width", "height"), zip(*rows, strict=True), strict=True)
    pq.write_table(pa.table(dict(columns)), images)
    references = {"1": ["A dog runs.", "the dog"], "2": ["A man on a big horse."]}
    parts = parts_of(references, images)
    assert [*parts] == ["caption length", "image size", "source", "object word"]
    assert parts["caption length"] == {"2.5 words": ["1"], "6 words": ["2"]}
    assert parts["image size"] == {"480 pixels": ["1"], "300 pixels": ["2"]}
    assert parts["source"] == {"coco": ["1"], "flickr": ["2"]}
    assert [*parts_of(references, None)] == ["caption length", "object word"]
    molecules = {"1": ["InChI=1S/CH4/h1H4"], "2": ["InChI=1S/H2O/h1H2"]}
    assert parts_of(molecules, None, "inchi")["caption length"] == {"7 tokens": ["1", "2"]}


def test_objects_are_nouns_that_at_least_half_of_the_captions_name():
    references = {
        "1": ["a red ball on the grass", "the ball is red", "a group of dogs"],
        "2": ["a man throws a ball", "the man is running", "the front of a house"],
        "3": ["a red and white ball", "running on the grass", "grass on a hill", "a dog"],
    }
    found = object_words(references)
    assert found["ball"] == ["1"], "of the third image one caption of four has it, of the second one of three"
    assert found["man"] == ["2"]
    assert found["grass"] == ["3"]
    assert not {"red", "group", "front", "running", "the", "is"} & {*found}


def test_objects_of_photographs_are_objects(shared: Path):
    references = json.loads((shared / "data" / "metrics" / "reference_captions.json").read_text())
    assert [*object_words(references)] == [
        *("man", "woman", "street", "table", "cat", "plate", "dog", "bathroom", "train", "field"),
        *("toilet", "beach", "pizza", "room", "clock", "kitchen", "skateboard", "sign", "bed", "person"),
    ]
