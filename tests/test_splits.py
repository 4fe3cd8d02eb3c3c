"""Every image is in exactly one split, and stays there while the data grow."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError

from captioning.splits import SplitSettings, hashed, write_splits

EIGHT_ONE_ONE = {"train": 0.8, "val": 0.1, "test": 0.1}


def settings(**changes: Any) -> SplitSettings:
    return SplitSettings.model_validate({"policy": "ratios", "ratios": EIGHT_ONE_ONE, "key": "k"} | changes)


def clean_folder(folder: Path, splits: dict[str, str]) -> Path:
    folder.mkdir()
    table = pd.DataFrame({"image_id": list(splits), "split": list(splits.values()), "width": 8})
    table.to_parquet(folder / "images.parquet", index=False)
    return folder


def test_dataset_policy_keeps_what_the_dataset_states_in_its_order(tmp_path: Path) -> None:
    stated = {"z": "test", "a": "train", "m": "val", "b": "train"}
    counts = write_splits(
        clean_folder(tmp_path / "clean", stated), tmp_path / "splits", settings(policy="dataset")
    )
    table = pd.read_parquet(tmp_path / "splits" / "images.parquet")
    assert dict(zip(table["image_id"], table["split"], strict=True)) == stated
    assert list(table["image_id"]) == list(stated)
    assert counts == {"train": 2, "val": 1, "test": 1}


def test_image_without_a_stated_split_is_refused_with_the_count_and_the_next_step(tmp_path: Path) -> None:
    clean = clean_folder(tmp_path / "clean", {"a": "train", "b": "", "c": "extra", "d": "test"})
    message = (
        r"2 of 4 images state none of train, val and test, but '', 'extra', first 'b'; set split.policy to"
    )
    with pytest.raises(ValueError, match=message):
        write_splits(clean, tmp_path / "splits", settings(policy="dataset"))
    assert not (tmp_path / "splits").exists()


def test_ratios_are_met_within_chance(tmp_path: Path) -> None:
    clean = clean_folder(tmp_path / "clean", {f"image-{number}": "" for number in range(10_000)})
    counts = write_splits(clean, tmp_path / "splits", settings())
    assert abs(counts["train"] - 8000) < 160
    assert abs(counts["val"] - 1000) < 120
    assert sum(counts.values()) == 10_000


def test_image_keeps_its_split_as_the_data_grow_and_whatever_their_order() -> None:
    ids = pd.Series([f"image-{number}" for number in range(1000)])
    few = dict(zip(ids[:100], hashed(ids[:100], settings()), strict=True))
    many = dict(zip(ids[::-1], hashed(ids[::-1], settings()), strict=True))
    assert all(many[image_id] == split for image_id, split in few.items())


def test_larger_val_share_moves_images_only_out_of_the_neighbouring_splits() -> None:
    ids = pd.Series([f"image-{number}" for number in range(1000)])
    before = hashed(ids, settings())
    after = hashed(ids, settings(ratios={"train": 0.8, "val": 0.15, "test": 0.05}))
    assert set(zip(before, after, strict=True)) == {(s, s) for s in EIGHT_ONE_ONE} | {("test", "val")}


def test_another_key_is_another_assignment() -> None:
    ids = pd.Series([f"image-{number}" for number in range(1000)])
    assert (hashed(ids, settings()) != hashed(ids, settings(key="other"))).mean() > 0.2


def test_assignment_is_the_same_on_every_machine() -> None:
    ids = pd.Series(["image-1", "image-2", "image-10", "déjà-vu"])
    assert list(hashed(ids, settings(key="captioning"))) == ["val", "train", "test", "train"]


def test_empty_split_is_refused_with_the_counts_and_the_next_step(tmp_path: Path) -> None:
    clean = clean_folder(tmp_path / "clean", {"a": "train", "b": "train", "c": "test"})
    with pytest.raises(
        ValueError, match=r"no image in val \(2 train, 0 val, 1 test\).*set split.policy to ratios"
    ):
        write_splits(clean, tmp_path / "splits", settings(policy="dataset"))
    with pytest.raises(ValueError, match=r"no image in .*raise its share in split.ratios"):
        write_splits(clean, tmp_path / "splits", settings(ratios={"train": 0.98, "val": 0.01, "test": 0.01}))


def test_ratios_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"train, val and test add up to 1.1, expected 1"):
        settings(ratios={"train": 0.8, "val": 0.2, "test": 0.1})


def test_key_that_the_hash_cannot_take_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"has 65 bytes, expected 1 to 64"):
        settings(key="k" * 65)


def test_same_images_give_the_same_bytes_and_replace_what_was_there(tmp_path: Path) -> None:
    clean = clean_folder(tmp_path / "clean", {"a": "train", "b": "val", "c": "test"})
    written = []
    for _ in range(2):
        write_splits(clean, tmp_path / "splits", settings(policy="dataset"))
        written.append((tmp_path / "splits" / "images.parquet").read_bytes())
        (tmp_path / "splits" / "stale").touch()
    assert written[0] == written[1]
    write_splits(clean, tmp_path / "splits", settings(policy="dataset"))
    assert [path.name for path in (tmp_path / "splits").iterdir()] == ["images.parquet"]
