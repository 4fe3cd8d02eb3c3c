"""Every image is in exactly one split, and stays there while the data grow."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError

from captioning.splits import SplitSettings, add_up, find_position, write_splits

EIGHT_ONE_ONE = {"train": 0.8, "val": 0.1, "test": 0.1}
NONE = {"train": 0, "val": 0, "test": 0, "predict": 0}


def settings(**changes: Any) -> SplitSettings:
    values = {"policy": "ratios", "ratios": EIGHT_ONE_ONE, "key": "k", "stratified": False}
    return SplitSettings.model_validate(values | changes)


def clean_folder(
    folder: Path,
    stated: dict[str, str],
    twins: dict[str, str] | None = None,
    sources: dict[str, str] | None = None,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame({"image_id": list(stated), "split": list(stated.values()), "width": 8})
    table["twin"] = [(twins or {}).get(image_id, "") for image_id in stated]
    table["source"] = [(sources or {}).get(image_id, "scenes") for image_id in stated]
    table.to_parquet(folder / "images.parquet", index=False)
    return folder


def unstated(num_images: int) -> dict[str, str]:
    return {f"image-{number}": "" for number in range(num_images)}


def assign(folder: Path, stated: dict[str, str], changes: SplitSettings, **clean: Any) -> dict[str, str]:
    """Write the splits of images; return them, having checked that they stand in the order of the images."""
    write_splits(clean_folder(folder / "clean", stated, **clean), folder / "splits", changes)
    table = pd.read_parquet(folder / "splits" / "images.parquet")
    assert list(table["image_id"]) == list(stated)
    return dict(zip(table["image_id"], table["split"], strict=True))


def test_dataset_policy_keeps_what_the_dataset_states_in_its_order(tmp_path: Path) -> None:
    stated = {"z": "test", "a": "train", "m": "val", "b": "train", "q": "predict"}
    assert assign(tmp_path, stated, settings(policy="dataset")) == stated


def test_counts_are_by_source(tmp_path: Path) -> None:
    stated = {"a": "train", "b": "val", "c": "test", "d": "train", "e": "predict"}
    clean = clean_folder(tmp_path / "clean", stated, sources={"d": "coco", "e": "coco"})
    counts = write_splits(clean, tmp_path / "splits", settings(policy="dataset"))
    assert counts == {
        "coco": NONE | {"train": 1, "predict": 1},
        "scenes": NONE | {"train": 1, "val": 1, "test": 1},
    }
    assert add_up(counts) == {"train": 2, "val": 1, "test": 1, "predict": 1}


def test_image_without_a_stated_split_is_refused_with_the_count_and_the_next_step(tmp_path: Path) -> None:
    stated = {"a": "train", "c": "extra", "b": "", "d": "test", "e": "predict"}
    clean = clean_folder(tmp_path / "clean", stated)
    message = (
        r"2 of 5 images state none of train, val and test, but '', 'extra', first 'c'; set split.policy to"
    )
    for policy in ("dataset", "im2txt"):
        with pytest.raises(ValueError, match=message):
            write_splits(clean, tmp_path / "splits", settings(policy=policy))
    assert not (tmp_path / "splits").exists()


def test_ratios_are_met_within_chance(tmp_path: Path) -> None:
    clean = clean_folder(tmp_path / "clean", unstated(10_000))
    counts = add_up(write_splits(clean, tmp_path / "splits", settings()))
    assert abs(counts["train"] - 8000) < 160
    assert abs(counts["val"] - 1000) < 120
    assert sum(counts.values()) == 10_000


def test_image_keeps_its_split_as_the_data_grow_and_whatever_their_order(tmp_path: Path) -> None:
    few = assign(tmp_path / "few", unstated(100), settings())
    many = assign(tmp_path / "many", dict(reversed(unstated(1000).items())), settings())
    assert all(many[image_id] == split for image_id, split in few.items())


def test_larger_val_share_moves_images_only_out_of_the_neighbouring_splits(tmp_path: Path) -> None:
    before = assign(tmp_path, unstated(1000), settings())
    after = assign(tmp_path, unstated(1000), settings(ratios={"train": 0.8, "val": 0.15, "test": 0.05}))
    moves = {(split, after[image_id]) for image_id, split in before.items()}
    assert moves == {(split, split) for split in EIGHT_ONE_ONE} | {("test", "val")}


def test_another_key_is_another_assignment(tmp_path: Path) -> None:
    own = assign(tmp_path, unstated(1000), settings())
    other = assign(tmp_path, unstated(1000), settings(key="other"))
    assert sum(other[image_id] != split for image_id, split in own.items()) > 200


def test_assignment_is_the_same_on_every_machine_and_for_ever(tmp_path: Path) -> None:
    ids = {"image-1": "val", "image-2": "train", "image-10": "test", "déjà-vu": "train"}
    assert assign(tmp_path, dict.fromkeys(ids, ""), settings(key="captioning")) == ids


def test_two_splits_can_be_enough(tmp_path: Path) -> None:
    ratios = {"train": 0.85, "val": 0.15, "test": 0.0}
    splits = assign(tmp_path, unstated(1000), settings(ratios=ratios))
    assert set(splits.values()) == {"train", "val"}
    stated = {"a": "train", "b": "val"}
    assert assign(tmp_path, stated, settings(policy="dataset", ratios=ratios)) == stated


def test_no_val_is_refused_for_training_needs_it() -> None:
    with pytest.raises(ValidationError, match=r"val is 0, but training .* set test to 0 and evaluate.split"):
        settings(ratios={"train": 0.85, "val": 0.0, "test": 0.15})


def test_im2txt_divides_the_stated_val_and_nothing_else(tmp_path: Path) -> None:
    stated = {f"val-{number}": "val" for number in range(2000)}
    stated |= {"train-1": "train", "test-1": "test", "new": "predict"}
    splits = assign(tmp_path, stated, settings(policy="im2txt"))
    assert (splits["train-1"], splits["test-1"], splits["new"]) == ("train", "test", "predict")
    divided = [split for image_id, split in splits.items() if image_id.startswith("val-")]
    shares = [divided.count(split) / 2000 for split in ("train", "val", "test")]
    assert shares == pytest.approx([0.85, 0.05, 0.10], abs=0.025)
    expected = find_position("val-7", "k")
    assert splits["val-7"] == ("train" if expected < 0.85 else "val" if expected < 0.9 else "test")


@pytest.mark.parametrize("policy", ["dataset", "ratios", "im2txt"])
def test_predict_images_stay_predict_under_every_policy(policy: str, tmp_path: Path) -> None:
    stated = {f"image-{number}": ("train", "val", "test")[number % 3] for number in range(300)}
    stated |= {f"new-{number}": "predict" for number in range(50)}
    splits = assign(tmp_path, stated, settings(policy=policy))
    assert {image_id for image_id, split in splits.items() if split == "predict"} == {
        image_id for image_id in stated if image_id.startswith("new-")
    }


@pytest.mark.parametrize("stratified", [False, True])
def test_twins_share_the_split_of_the_earliest(stratified: bool, tmp_path: Path) -> None:
    twins = {f"image-{number}": f"image-{number % 40}" for number in range(500, 600)}
    splits = assign(tmp_path, unstated(600), settings(stratified=stratified), twins=twins)
    assert all(splits[image_id] == splits[twin] for image_id, twin in twins.items())
    alone = assign(tmp_path, unstated(600), settings())
    assert any(alone[image_id] != alone[twin] for image_id, twin in twins.items())


def test_a_twin_leaves_the_split_that_its_data_set_states(tmp_path: Path) -> None:
    stated = {"a": "train", "b": "test", "c": "test", "d": "val"}
    splits = assign(tmp_path, stated, settings(policy="dataset"), twins={"b": "a"})
    assert splits == stated | {"b": "train"}


def test_stratified_divides_every_source_exactly(tmp_path: Path) -> None:
    stated = unstated(400) | {"new": "predict"}
    sources = {image_id: "small" if number < 40 else "large" for number, image_id in enumerate(stated)}
    clean = clean_folder(tmp_path / "clean", stated, sources=sources)
    counts = write_splits(clean, tmp_path / "splits", settings(stratified=True))
    assert counts == {
        "small": NONE | {"train": 32, "val": 4, "test": 4},
        "large": NONE | {"train": 288, "val": 36, "test": 36, "predict": 1},
    }
    loose = write_splits(clean, tmp_path / "splits", settings())
    assert loose != counts


def test_stratified_without_a_division_is_refused() -> None:
    with pytest.raises(
        ValidationError, match=r"stratified is true and policy 'dataset', which divides nothing"
    ):
        settings(policy="dataset", stratified=True)


def test_empty_split_is_refused_with_the_counts_and_the_next_step(tmp_path: Path) -> None:
    clean = clean_folder(tmp_path / "clean", {"a": "train", "b": "train", "c": "test", "d": "predict"})
    with pytest.raises(
        ValueError, match=r"no image in val \(2 train, 0 val, 1 test\).*set split.policy to ratios"
    ):
        write_splits(clean, tmp_path / "splits", settings(policy="dataset"))
    with pytest.raises(ValueError, match=r"no image in .*raise its share in split.ratios"):
        write_splits(clean, tmp_path / "splits", settings(ratios={"train": 0.98, "val": 0.01, "test": 0.01}))
    assert not (tmp_path / "splits").exists()


def test_no_test_images_are_refused_unless_none_are_wanted(tmp_path: Path) -> None:
    clean = clean_folder(tmp_path / "clean", {"a": "train", "b": "val"})
    with pytest.raises(ValueError, match=r"no image in test .*none is wanted, split.ratios.test to 0"):
        write_splits(clean, tmp_path / "splits", settings(policy="dataset"))


def test_ratios_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"train, val and test add up to 1.1, expected 1"):
        settings(ratios={"train": 0.8, "val": 0.2, "test": 0.1})


def test_key_that_the_hash_cannot_take_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"has 65 bytes, expected 1 to 64"):
        settings(key="k" * 65)


def test_same_images_give_the_same_bytes_and_replace_what_was_there(tmp_path: Path) -> None:
    clean = clean_folder(tmp_path / "clean", unstated(300))
    written = []
    for _ in range(2):
        write_splits(clean, tmp_path / "splits", settings(stratified=True))
        written.append((tmp_path / "splits" / "images.parquet").read_bytes())
        (tmp_path / "splits" / "stale").touch()
    assert written[0] == written[1]
    write_splits(clean, tmp_path / "splits", settings())
    assert [path.name for path in (tmp_path / "splits").iterdir()] == ["images.parquet"]
