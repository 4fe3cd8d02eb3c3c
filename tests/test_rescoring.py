"""A model of old on the test set of today: which images it has seen, and what it says about the others."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from registry_samples import GENERATION, split_data, write_model

from captioning.captioner import Captioner
from captioning.examples import Examples
from captioning.generation import read_settings
from captioning.images import ImageFolder, decode
from captioning.registry import DataFolders
from captioning.rescoring import Rescored, captions_of
from captioning.seen_images import CleanImage, find_seen, read_images, read_seen, write_seen


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTIONING_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def data(tiny_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> DataFolders:
    folder = tmp_path_factory.mktemp("rescoring")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPTIONING_HOME", str(folder / "home"))
        return split_data(
            tiny_tables, folder / "data", {"train": range(30), "val": range(30, 40), "test": range(40, 48)}
        )


def old_model(folder: Path, side: int) -> Rescored:
    return Rescored(
        name="captioner/3", captioner=write_model(folder, "abc", side), generation=dict(GENERATION)
    )


@pytest.mark.parametrize("side", [64, 32])
def test_captions_are_those_that_the_served_model_gives_to_the_pictures(
    side: int, data: DataFolders, tmp_path: Path
) -> None:
    model, images = old_model(tmp_path / "model", side), read_images(data.clean, data.splits, "test")
    captions = captions_of(model, "today", Examples(data.examples, "test"), data.raw, images)
    captioner, raw = Captioner.load(model.captioner), ImageFolder(data.raw)
    pictures = [decode(raw.read(image.archive, image.member)) for image in images.values()]
    expected = captioner.caption(pictures, read_settings(GENERATION))
    assert captions == {image_id: own[0].text for image_id, own in zip(images, expected, strict=True)}
    assert len(captions) == 8


def test_a_version_is_decoded_once_a_test_set_and_settings(
    data: DataFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, examples = old_model(tmp_path / "model", 64), Examples(data.examples, "test")
    captions = captions_of(model, "today", examples, data.raw, {})
    monkeypatch.setattr(Captioner, "load", None)
    assert captions_of(model, "today", examples, data.raw, {}) == captions
    for other in (
        (model, "tomorrow"),
        (Rescored(name=model.name, captioner=model.captioner, generation={"beam_width": 1}), "today"),
    ):
        with pytest.raises(TypeError):  # it is loaded
            captions_of(*other, examples, data.raw, {})


def test_a_picture_that_cannot_be_read_any_more_is_named(data: DataFolders, tmp_path: Path) -> None:
    images = read_images(data.clean, data.splits, "test")
    lost = {key: CleanImage(archive="", member="gone.png", sha256="", group="") for key in images}
    with pytest.raises(
        ValueError,
        match=r"picture gone\.png \(a file\) was readable when it was cleaned and is not now: .*clean",
    ):
        captions_of(
            old_model(tmp_path / "model", 32), "today", Examples(data.examples, "test"), data.raw, lost
        )


def test_a_version_has_seen_the_images_of_train_and_val(data: DataFolders, tmp_path: Path) -> None:
    write_seen(data.clean, data.splits, tmp_path / "seen.npy")
    seen = read_seen(tmp_path / "seen.npy")
    assert (len(seen), seen.dtype) == (40, np.uint64)
    assert (np.diff(seen) > 0).all()
    for split, is_seen in (("train", True), ("val", True), ("test", False)):
        images = read_images(data.clean, data.splits, split)
        assert find_seen(images, seen) == (set(images) if is_seen else set())


def test_an_image_that_looks_like_a_seen_one_is_seen() -> None:
    def image(number: int, group: str) -> CleanImage:
        return CleanImage(archive="", member="", sha256=f"{number:064x}"[::-1], group=group)

    images = {"a": image(1, "a"), "b": image(2, "a"), "c": image(3, "c"), "d": image(4, "d")}
    first, second = (np.array([int(images[own].sha256[:16], 16)], np.uint64) for own in "bd")
    assert find_seen(images, first) == {"a", "b"}
    assert find_seen(images, first, second) == {"a", "b", "d"}
    assert find_seen(images, np.array([], np.uint64)) == set()
    assert find_seen({}, first) == set()


def test_tables_of_different_runs_are_refused(data: DataFolders, tmp_path: Path) -> None:
    table = pq.read_table(data.splits / "images.parquet")
    pq.write_table(
        table.take(pa.array(range(len(table) - 1, -1, -1))).replace_schema_metadata(),
        tmp_path / "images.parquet",
    )
    with pytest.raises(ValueError, match=r"does not list the images of .*; run `dvc repro --force split`"):
        read_images(data.clean, tmp_path, "test")
