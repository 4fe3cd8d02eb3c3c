from pathlib import Path

from captioning.evaluation import coco_results
from captioning.examples import split_names
from captioning.records import Hypothesis


def test_coco_results_carry_the_number_at_the_end_of_the_image_id():
    ids = ["COCO_test2014_000000000001", "000000391895", "coco/COCO_test2014_000000000016", "kitchen"]
    said = Hypothesis(text="a man", log_probability=-1.0)
    assert coco_results(dict.fromkeys(ids, said)) == [
        {"image_id": 1, "caption": "a man"},
        {"image_id": 391895, "caption": "a man"},
        {"image_id": 16, "caption": "a man"},
        {"image_id": "kitchen", "caption": "a man"},
    ]


def test_splits_with_images_are_named(tiny_examples: Path):
    assert split_names(tiny_examples) == ["train", "val", "test"]
