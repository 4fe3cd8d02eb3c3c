"""Every data set keeps the contract of captioning/datasets; those of archives and files read their form rightly."""

import re
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from dataset_samples import (
    SMALL,
    flickr8k_settings,
    karpathy_image,
    karpathy_settings,
    prepared,
    write_zip,
)
from pydantic import ValidationError

from captioning import lookup
from captioning.datasets import flickr8k, karpathy
from captioning.downloads.raw import download
from captioning.formats import json_lists
from captioning.records import PREDICT, SPLITS, Pair


@pytest.mark.parametrize("name", lookup.names("datasets"))
class TestContract:
    def test_says_its_license_and_source(self, name: str) -> None:
        dataset = lookup.find("datasets", name)
        assert all(isinstance(text, str) and text for text in (dataset.LICENSE, dataset.CITATION))

    def test_settings_refuse_unknown_and_missing_keys(self, name: str, tmp_path: Path) -> None:
        assert name in SMALL, (
            f"write a small source of {name!r} for the contract tests, as SMALL has for the others"
        )
        section = SMALL[name](tmp_path).model_dump()
        settings_class = lookup.find("datasets", name).Settings
        with pytest.raises(ValidationError, match="nonsense"):
            settings_class.model_validate(section | {"nonsense": 1})
        for key in section:
            with pytest.raises(ValidationError, match=key):
                settings_class.model_validate({other: section[other] for other in section if other != key})

    def test_pairs_are_unique_and_say_where_their_image_is(self, name: str, tmp_path: Path) -> None:
        settings = SMALL[name](tmp_path)
        pairs = prepared(lookup.find("datasets", name), tmp_path / "raw", settings)
        assert pairs
        assert len({pair.image_id for pair in pairs}) == len(pairs)
        assert {pair.split for pair in pairs} <= {*SPLITS, PREDICT, ""}
        assert all(not pair.captions for pair in pairs if pair.split == PREDICT)
        for pair in pairs:
            if pair.archive:
                with zipfile.ZipFile(tmp_path / "raw" / pair.archive) as archive:
                    assert archive.read(pair.member)

    def test_equal_settings_give_equal_bytes_and_equal_pairs(self, name: str, tmp_path: Path) -> None:
        settings = SMALL[name](tmp_path)
        dataset = lookup.find("datasets", name)
        first, second = (prepared(dataset, tmp_path / which, settings) for which in ("first", "second"))
        assert first == second
        contents = [
            {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
            for folder in (tmp_path / "first", tmp_path / "second")
        ]
        assert contents[0] == contents[1]

    def test_small_source_can_be_downloaded(self, name: str, tmp_path: Path) -> None:
        settings = SMALL[name](tmp_path).model_copy(update={"max_failed_share": 0.5})
        counts = download(settings, tmp_path / "raw")
        assert counts.num_images > counts.num_failed


# Flickr8k


def test_flickr8k_reads_captions_and_splits_in_the_order_of_the_caption_file(tmp_path: Path) -> None:
    pairs = prepared(flickr8k, tmp_path / "raw", flickr8k_settings(tmp_path))
    assert [(pair.image_id, pair.split, pair.captions) for pair in pairs] == [
        ("green", "test", ("A green picture .",)),
        ("red", "train", ("A red picture .", "It is red .")),
        ("white", "train", ("Not in the archive .",)),
        ("blue", "val", ()),
    ]


def test_flickr8k_image_that_the_archive_lacks_is_a_failed_row(tmp_path: Path) -> None:
    counts = download(flickr8k_settings(tmp_path, max_failed_share=0.25), tmp_path / "raw")
    rows = pd.read_parquet(tmp_path / "raw" / "rows.parquet").set_index("image_id")
    assert counts.reasons == {"not-in-archive": 1}
    assert rows.loc["white", "status"] == "failed"
    assert rows.loc["red", "member"] == "Flicker8k_Dataset/red.jpg"


def test_flickr8k_says_how_many_images_are_in_no_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared(flickr8k, tmp_path / "raw", flickr8k_settings(tmp_path))
    assert "flickr8k: 2 images in no split list are left out" in capsys.readouterr().err


def test_flickr8k_refuses_a_checksum_of_an_unknown_archive(tmp_path: Path) -> None:
    with pytest.raises(
        ValidationError, match=r"no archive is called images.zip; expected Flickr8k_Dataset.zip or"
    ):
        flickr8k_settings(tmp_path, checksums={"images.zip": "0" * 64})


def test_flickr8k_checks_the_checksums_given(tmp_path: Path) -> None:
    settings = flickr8k_settings(tmp_path, checksums={"Flickr8k_text.zip": "0" * 64})
    with pytest.raises(ValueError, match=r"Flickr8k_text.zip has the sha256 [0-9a-f]{64}, expected 0000"):
        prepared(flickr8k, tmp_path / "raw", settings)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"Flickr_8k.devImages.txt": None}, "Flickr8k_text.zip has no file Flickr_8k.devImages.txt; it has "),
        (
            {"Flickr8k.token.txt": "a red picture"},
            "line 1 is 'a red picture'; expected name#number<tab>caption",
        ),
        ({"Flickr_8k.devImages.txt": "red.jpg"}, "red.jpg is listed for train and for val; expected one"),
    ],
)
def test_flickr8k_refuses_texts_in_another_form(
    changed: dict[str, str | None], message: str, tmp_path: Path
) -> None:
    settings = flickr8k_settings(tmp_path)
    with zipfile.ZipFile(tmp_path / "Flickr8k_text.zip") as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist()} | changed
    write_zip(
        tmp_path / "Flickr8k_text.zip", {name: text for name, text in texts.items() if text is not None}
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        prepared(flickr8k, tmp_path / "raw", settings)


def test_flickr8k_reads_the_authors_archives(shared: Path, tmp_path: Path) -> None:
    source = (shared / "data" / "flickr8k").as_uri()
    settings = flickr8k_settings(tmp_path, source=source)
    pairs = prepared(flickr8k, tmp_path / "raw", settings)
    assert [sum(pair.split == split for pair in pairs) for split in SPLITS] == [6000, 500, 500]
    assert {len(pair.captions) for pair in pairs} == {5}
    assert all(pair.archive for pair in pairs)


# Karpathy's form


def karpathy_pairs(folder: Path, *images: dict[str, Any], **changes: Any) -> list[Pair]:
    return prepared(karpathy, folder / "raw", karpathy_settings(folder, *images, **changes))


def test_karpathy_counts_restval_as_train(tmp_path: Path) -> None:
    splits = {pair.image_id: pair.split for pair in karpathy_pairs(tmp_path)}
    assert splits == {"train": "train", "restval": "train", "val": "val", "test": "test"}


def test_karpathy_joins_tokens_where_the_raw_caption_is_missing(tmp_path: Path) -> None:
    image = karpathy_image("a.jpg", "train") | {"sentences": [{"tokens": ["a", "dog"]}, {"raw": "A cat."}]}
    assert karpathy_pairs(tmp_path, image)[0].captions == ("a dog", "A cat.")


def test_karpathy_uses_the_file_path_only_where_the_address_lacks_it(tmp_path: Path) -> None:
    image = karpathy_image("a b.jpg", "train", filepath="val2014")
    with_path = karpathy_pairs(tmp_path, image)[0].url
    assert with_path == (tmp_path / "images" / "val2014" / "a b.jpg").as_uri()
    settings = karpathy_settings(tmp_path, image, images=(tmp_path / "images" / "val2014").as_uri() + "/")
    assert next(karpathy.read_pairs(tmp_path / "raw", settings)).url == with_path


def test_karpathy_keeps_the_license_of_each_image(tmp_path: Path) -> None:
    image = karpathy_image(
        "a.jpg", "train", license="CC BY", license_url="http://cc/by", photo_page="http://f/1"
    )
    pairs = karpathy_pairs(tmp_path, image, karpathy_image("b.jpg", "val"))
    assert [pair.license for pair in pairs] == ["CC BY, http://cc/by, http://f/1", ""]


@pytest.mark.parametrize("chunk_characters", [50, 90, 1000])
def test_karpathy_reads_a_file_of_any_length_in_pieces(
    chunk_characters: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_lists, "CHUNK_CHARACTERS", chunk_characters)
    images = [karpathy_image(f"{number}.jpg", "train", note='] } "images": [') for number in range(20)]
    assert [pair.image_id for pair in karpathy_pairs(tmp_path, *images)] == [
        str(number) for number in range(20)
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"annotations": []}', 'dataset.json has no list "images"; it has ["annotations"]'),
        ('{"images": [{"filename": "a.jpg", "sp', "dataset.json is damaged, cut short or no JSON object"),
        (
            '{"images": [{"file_name": "a.jpg"}]}',
            "expected filename, split and sentences, each with raw or tokens",
        ),
        ('{"images": [7]}', "expected filename, split and sentences"),
    ],
)
def test_karpathy_refuses_another_form(text: str, message: str, tmp_path: Path) -> None:
    settings = karpathy_settings(tmp_path)
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        prepared(karpathy, tmp_path / "raw", settings)


def test_karpathy_refuses_a_folder_that_is_no_address(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"'data/images' is no address: expected https://"):
        karpathy_settings(tmp_path, images="data/images")


def test_karpathy_fetches_real_photographs_with_their_licenses(shared: Path, tmp_path: Path) -> None:
    coco = shared / "data" / "coco_cc_by"
    settings = karpathy_settings(
        tmp_path, source=str(coco / "dataset_coco.json"), images=(coco / "images").as_uri()
    )
    counts = download(settings, tmp_path / "raw")
    rows = pd.read_parquet(tmp_path / "raw" / "rows.parquet")
    assert (counts.num_images, counts.num_failed) == (109, 0)
    assert rows["license"].str.startswith("Attribution").all()
    with zipfile.ZipFile(tmp_path / "raw" / rows["archive"].iloc[0]) as archive:
        first = archive.read(rows["member"].iloc[0])
    assert first == (coco / "images" / "000000000285.jpg").read_bytes()
