"""Each data set reads the files that its users have, and says of bad ones what is wrong and where."""

import hashlib
import io
import json
import re
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from dataset_samples import (
    COMMON,
    bms_members,
    bms_settings,
    coco_json,
    coco_settings,
    flickr30k_settings,
    folder_settings,
    joined_settings,
    karpathy_splits,
    picture,
    prepared,
    urls_settings,
    write_pictures,
    write_zip,
)
from pydantic import ValidationError

from captioning.datasets import bms, coco, flickr30k, joined, urls
from captioning.datasets import folder as folder_dataset
from captioning.downloads.raw import download
from captioning.formats import json_lists
from captioning.formats.caption_tables import read_rows
from captioning.formats.large_zips import DamagedMember, read_directory, read_pieces
from captioning.records import PREDICT, Pair


def outcome(raw: Path) -> pd.DataFrame:
    return pd.read_parquet(raw / "rows.parquet").set_index("image_id")


# COCO


def test_coco_orders_captions_by_their_numbers_and_images_as_listed(tmp_path: Path) -> None:
    pairs = prepared(coco, tmp_path / "raw", coco_settings(tmp_path))
    assert [pair.image_id for pair in pairs] == [
        "COCO_train2014_000000000030",
        "COCO_train2014_000000000009",
        "COCO_val2014_000000000042",
        "COCO_val2014_000000391895",
        "COCO_test2014_000000000001",
        "COCO_test2014_000000000014",
    ]
    assert [pair.split for pair in pairs] == ["train"] * 2 + ["val"] * 2 + [PREDICT] * 2
    assert pairs[3].captions == ("Caption 1 of 391895.", "Caption 2 of 391895.")
    assert pairs[3].member == "val2014/COCO_val2014_000000391895.jpg"
    assert {pair.license for pair in pairs} == {
        "Attribution License, http://creativecommons.org/licenses/by/2.0/"
    }


def test_coco_photograph_that_its_archive_lacks_is_a_failed_row(tmp_path: Path) -> None:
    counts = download(coco_settings(tmp_path, max_failed_share=0.2), tmp_path / "raw")
    assert counts.reasons == {"not-in-archive": 1}
    assert outcome(tmp_path / "raw").loc["COCO_val2014_000000000042", "status"] == "failed"


def test_coco_fetches_only_what_its_parts_need(tmp_path: Path) -> None:
    prepared(coco, tmp_path / "raw", coco_settings(tmp_path, parts=["test"]))
    names = {path.name for path in (tmp_path / "raw").iterdir()}
    assert names == {"image_info_test2014.zip", "test2014.zip"}


@pytest.mark.parametrize("year", [2014, 2017])
def test_coco_takes_karpathys_splits_by_number_and_keeps_the_photographs_to_predict(
    year: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {
        "COCO_train2014_000000000009.jpg": "train",
        "COCO_val2014_000000000042.jpg": "restval",
        "COCO_val2014_000000391895.jpg": "test",
        "COCO_val2014_000000000007.jpg": "val",
    }
    settings = coco_settings(tmp_path, year=year, karpathy=karpathy_splits(tmp_path, names))
    pairs = prepared(coco, tmp_path / "raw", settings)
    splits = {int(pair.image_id.rpartition("_")[2]): pair.split for pair in pairs}
    assert splits == {9: "train", 42: "train", 391895: "test", 1: PREDICT, 14: PREDICT}
    said = capsys.readouterr().err
    assert "coco: 1 images that Karpathy's splits do not name are left out" in said
    assert "coco: 1 images that Karpathy's splits name are in no part of ['train', 'val', 'test']" in said


def test_coco_reads_the_published_caption_file_with_karpathys_splits(shared: Path, tmp_path: Path) -> None:
    published = json.loads((shared / "data/coco/captions_val2017.json").read_text())
    photographs = sorted((shared / "data/coco_cc_by/images").iterdir())[:3]
    write_zip(tmp_path / "val2017.zip", {f"val2017/{path.name}": path.read_bytes() for path in photographs})
    write_zip(
        tmp_path / "annotations_trainval2017.zip",
        {"annotations/captions_val2017.json": json.dumps(published)},
    )
    settings = coco.Settings.model_validate(
        COMMON
        | {"dataset": "coco", "year": 2017, "parts": ["val"], "karpathy": None, "checksums": {}}
        | {"source": tmp_path.as_uri(), "annotations": tmp_path.as_uri()}
    )
    pairs = prepared(coco, tmp_path / "raw", settings)
    assert (len(pairs), sum(len(pair.captions) for pair in pairs)) == (5000, 25014)
    assert [(pair.image_id, pair.license) for pair in pairs[:2]] == [
        ("000000397133", "Attribution License, http://creativecommons.org/licenses/by/2.0/"),
        (
            "000000037777",
            "Attribution-NonCommercial-ShareAlike License, http://creativecommons.org/licenses/by-nc-sa/2.0/",
        ),
    ]
    annotations = sorted(
        (one["id"], one["caption"]) for one in published["annotations"] if one["image_id"] == 397133
    )
    assert pairs[0].captions == tuple(caption for _, caption in annotations)
    assert sum(bool(pair.archive) for pair in pairs) == 3
    splits = settings.model_copy(update={"karpathy": str(shared / "data/coco_cc_by/dataset_coco.json")})
    assert Counter(pair.split for pair in prepared(coco, tmp_path / "split", splits)) == {
        "train": 81,
        "val": 15,
        "test": 13,
    }


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ("{}", 'captions_val2014.json has no list "licenses"; it has []'),
        ("[]", "captions_val2014.json is damaged, cut short or no JSON object: expected '{' at '[]'"),
        (json.dumps(coco_json("val", [1], 2014))[:-90], "captions_val2014.json is damaged, cut short"),
        (
            json.dumps(coco_json("val", [1], 2014)).replace("file_name", "name"),
            "an entry of images is {'license': 4, 'name': ",
        ),
        (
            json.dumps(coco_json("val", [1], 2014)).replace("COCO_val2014_000000000001", "dog"),
            "image 'dog' has no name of COCO; expected one that ends with its number",
        ),
        (
            None,
            "annotations_trainval2014.zip has no file captions_val2014.json; it has annotations/other.json",
        ),
    ],
)
def test_coco_refuses_caption_files_of_another_form(
    described: str | None, message: str, tmp_path: Path
) -> None:
    splits = karpathy_splits(tmp_path, {"COCO_val2014_000000000001.jpg": "val"})
    settings = coco_settings(tmp_path, parts=["val"], karpathy=splits)
    name = "captions_val2014.json" if described else "other.json"
    write_zip(tmp_path / "annotations_trainval2014.zip", {f"annotations/{name}": described or ""})
    with pytest.raises(ValueError, match=re.escape(message)):
        prepared(coco, tmp_path / "raw", settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parts": ["val", "val"]}, "['val', 'val'] names a part twice"),
        ({"year": 2015}, "Input should be 2014 or 2017"),
        ({"checksums": {"val2017.zip": "0"}}, "no archive is called val2017.zip; expected train2014.zip or"),
    ],
)
def test_coco_refuses_settings_that_name_nothing(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    settings = coco_settings(tmp_path)
    with pytest.raises(ValidationError, match=re.escape(message)):
        coco.Settings.model_validate(settings.model_dump() | changes)


# JSON of long lists

KINDS: dict[str, Any] = {
    "version": 1234567,
    "x": None,
    "images": [{"id": 1.5e3, "a": ["]", "\u20ac"]}, 17, "s"],
    "empty": [],
    "more": [[]],
}


@pytest.mark.parametrize("chunk", [*range(1, 12), 1000])
@pytest.mark.parametrize("indent", [None, 1])
def test_lists_are_read_alike_in_pieces_of_any_size(
    chunk: int, indent: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_lists, "CHUNK_CHARACTERS", chunk)
    file = io.StringIO(json.dumps(KINDS, indent=indent))
    read = list(json_lists.read_lists(file, "a.json", "images", "empty", "more"))
    assert read == [*(("images", entry) for entry in KINDS["images"]), ("more", [])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [1 2]}', "a.json is damaged, cut short or no JSON object: expected ',' or ']' at '2]}'"),
        ('{"images" [1]}', "expected ':' at '[1]}'"),
        ('{"images": [1, 2', "expected ',' or ']' at ''"),
        ('{"images": [' + "[" * 200_000, "nested too deeply"),
        ("", "a.json is damaged, cut short or no JSON object: expected '{' at ''"),
    ],
)
def test_damaged_lists_are_refused_with_the_place(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        list(json_lists.read_lists(io.StringIO(text), "a.json", "images"))


def test_lists_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'{"images": ["caf\xe9"]}')
    with (
        (tmp_path / "a.json").open(encoding="utf-8") as file,
        pytest.raises(ValueError, match=r"a.json is not UTF-8"),
    ):
        list(json_lists.read_lists(file, "a.json", "images"))


def test_damaged_list_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lists, "MAX_ENTRY_CHARACTERS", 1000)
    monkeypatch.setattr(json_lists, "CHUNK_CHARACTERS", 100)
    file = io.StringIO('{"images": [{"a": nonsense}, ' + "1, " * 100_000)
    with pytest.raises(ValueError, match=r"Expecting value at '\{\"a\": nonsense"):
        list(json_lists.read_lists(file, "a.json", "images"))
    assert file.tell() < 5000


# Flickr30k


def test_flickr30k_reads_captions_in_the_order_of_their_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = prepared(flickr30k, tmp_path / "raw", flickr30k_settings(tmp_path))
    assert [(pair.image_id, pair.split, pair.captions) for pair in pairs] == [
        ("1000092795", "", ("Caption 0 .", "Caption 1 .")),
        ("10002456", "", ("Caption 0 .", "Caption 1 .")),
    ]
    assert pairs[0].member == "flickr30k-images/1000092795.jpg"
    assert (
        "flickr30k: 1 files of flickr30k-images.zip without captions are left out" in capsys.readouterr().err
    )


def test_flickr30k_takes_karpathys_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = flickr30k_settings(tmp_path, karpathy=karpathy_splits(tmp_path, {"10002456.jpg": "val"}))
    pairs = prepared(flickr30k, tmp_path / "raw", settings)
    assert [(pair.image_id, pair.split) for pair in pairs] == [("10002456", "val")]
    assert "flickr30k: 1 images that Karpathy's splits do not name are left out" in capsys.readouterr().err


def test_flickr30k_says_how_to_make_a_zip_of_its_tar(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"flickr30k-images.tar.gz' is no zip.*make one: `tar xzf"):
        flickr30k_settings(tmp_path, images="/data/flickr30k-images.tar.gz")


def test_flickr30k_names_the_line_that_is_no_caption(tmp_path: Path) -> None:
    settings = flickr30k_settings(tmp_path)
    (tmp_path / "results_20130124.token").write_text("1.jpg#0\tA dog .\n1.jpg A cat .\n")
    message = "results_20130124.token: line 2 is '1.jpg A cat .'; expected name#number<tab>caption"
    with pytest.raises(ValueError, match=re.escape(message)):
        prepared(flickr30k, tmp_path / "raw", settings)


# A folder of pictures


def folder_pairs(folder: Path, table: str | bytes | None = None, **changes: Any) -> list[Pair]:
    return prepared(folder_dataset, folder / "raw", folder_settings(folder, table, **changes))


PLAIN = {"split_column": None, "license_column": None, "uncaptioned": "leave_out"}


def test_folder_puts_rows_of_one_image_together_wherever_they_stand(tmp_path: Path) -> None:
    pairs = folder_pairs(tmp_path)
    assert [(pair.image_id, pair.captions, pair.split, pair.license) for pair in pairs] == [
        ("cats/b", ("A green cat.", "Cat."), "train", "CC0"),
        ("a", ("One.",), "val", ""),
        ("c d", ("Two.",), "test", ""),
        ("cats/unnamed", (), PREDICT, ""),
    ]


def test_folder_brings_its_pictures_and_the_one_that_is_not_there_is_a_failed_row(tmp_path: Path) -> None:
    settings = folder_settings(
        tmp_path, "image,caption\ncats/b.PNG,One.\ndog.jpg,Two.\n", **PLAIN, max_failed_share=0.5
    )
    counts = download(settings, tmp_path / "raw")
    rows = outcome(tmp_path / "raw")
    assert counts.reasons == {"missing": 1}
    assert rows["status"].to_dict() == {"cats/b": "ok", "dog": "failed"}
    with zipfile.ZipFile(tmp_path / "raw" / rows.loc["cats/b", "archive"]) as archive:
        assert archive.read(rows.loc["cats/b", "member"]) == picture("green")


def test_folder_counts_the_pictures_that_no_row_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = folder_pairs(tmp_path, "image,caption\na.jpg,One.\n", **PLAIN)
    assert [pair.image_id for pair in pairs] == ["a"]
    assert re.search(
        r"folder: 3 images that \S+captions.csv does not name are left out", capsys.readouterr().err
    )


LISTS = [{"image": "a.jpg", "caption": ["One.", "Two."]}, {"image": "c d.jpg", "caption": "Three."}]


def test_folder_reads_every_form_of_table_alike(tmp_path: Path) -> None:
    forms: dict[str, str | bytes] = {
        "captions.csv": "caption,image\nOne.,a.jpg\nTwo.,a.jpg\nThree.,c d.jpg\n",
        "captions.tsv": "image\tcaption\na.jpg\tOne.\na.jpg\tTwo.\nc d.jpg\tThree.\n",
        "captions.jsonl": "\n".join(json.dumps(row) for row in LISTS),
    }
    rows = [
        {**row, "caption": [row["caption"]] if isinstance(row["caption"], str) else row["caption"]}
        for row in LISTS
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "rows.parquet")
    forms["captions.parquet"] = (tmp_path / "rows.parquet").read_bytes()
    for name, table in forms.items():
        folder = tmp_path / name
        folder.mkdir()
        captions = {pair.image_id: pair.captions for pair in folder_pairs(folder, table, name=name, **PLAIN)}
        assert captions == {"a": ("One.", "Two."), "c d": ("Three.",)}, name


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            "image,caption\n/etc/passwd,One.\n",
            "line 2 names the image '/etc/passwd'; expected the name of a file inside",
        ),
        (
            "image,caption\na.jpg,One.\ncats/../../x.jpg,One.\n",
            "line 3 names the image 'cats/../../x.jpg'; expected",
        ),
        (
            "image,caption\n,One.\n",
            "line 2 names the image ''; expected the name of a file inside the folder",
        ),
    ],
)
def test_folder_refuses_a_name_that_leads_out_of_it(table: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        folder_pairs(tmp_path, table, **PLAIN)


def test_folder_refuses_rows_that_put_one_image_into_two_splits(tmp_path: Path) -> None:
    table = "image,caption,split\na.jpg,One.,train\nc d.jpg,Two.,\na.jpg,Three.,val\n"
    message = r"captions.csv: line 4: split of 'a.jpg' is 'val', but \S+captions.csv: line 2 says 'train'"
    with pytest.raises(ValueError, match=message):
        folder_pairs(tmp_path, table, license_column=None)


def test_folder_refuses_a_split_that_does_not_exist(tmp_path: Path) -> None:
    table = "image,caption,split\na.jpg,One.,validation\nc d.jpg,Two.,holdout\n"
    message = "line 3: split is 'holdout'; expected one of train, val, test, predict"
    with pytest.raises(ValueError, match=re.escape(message)):
        folder_pairs(tmp_path, table, license_column=None)


def test_folder_refuses_two_pictures_with_one_id(tmp_path: Path) -> None:
    settings = folder_settings(tmp_path, "image,caption\na.jpg,One.\na.png,Two.\n", **PLAIN)
    with pytest.raises(ValueError, match="image_id 'a' occurs twice"):
        download(settings, tmp_path / "raw")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"images": "https://host/pictures"},
            "'https://host/pictures' is no folder on disk; for images at",
        ),
        (
            {"captions": "captions.xlsx"},
            "'captions.xlsx' is no table of captions: expected a name",
        ),
    ],
)
def test_folder_refuses_settings_that_it_cannot_read(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        folder_settings(tmp_path, **changes)


def test_folder_names_the_picture_whose_name_cannot_be_written_down(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", "caf\udce9.jpg")
    with pytest.raises(ValueError, match=r"'caf\\udce9.jpg' in \S+ is no name in UTF-8; rename the file"):
        folder_pairs(tmp_path)


def test_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"download.images: '\S+/nowhere' is no folder; /\S+ does not exist"):
        folder_pairs(tmp_path, images=str(tmp_path / "nowhere"))


# Tables of captions


def rows_of(path: Path, content: str | bytes) -> list[tuple[str, tuple[str, ...]]]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [(row.key, row.captions) for row in read_rows(path, path.name, key="image", caption="caption")]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_table_may_begin_with_a_byte_order_mark(mark: bytes, tmp_path: Path) -> None:
    assert rows_of(tmp_path / "a.csv", mark + b"image,caption\n1,One\n") == [("1", ("One",))]
    assert rows_of(tmp_path / "a.jsonl", mark + b'{"image": 1, "caption": "One"}\n') == [("1", ("One",))]


def test_table_may_mix_line_ends_and_have_empty_lines(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "a.csv", "image,caption\r\n1,One\r2,Two\n\n3,Three\r\n4,Four")
    assert rows == [("1", ("One",)), ("2", ("Two",)), ("3", ("Three",)), ("4", ("Four",))]
    lines = "\r\n".join(json.dumps({"image": str(n), "caption": "\u2028"}) for n in (1, 2)) + "\r\r\n"
    assert rows_of(tmp_path / "a.jsonl", lines) == [("1", ("\u2028",)), ("2", ("\u2028",))]


def test_quoted_field_holds_commas_quotes_and_line_ends(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "a.csv", 'image,caption\n1,"A ""red"", big\r\ndog"\n2,A 6" pipe\n')
    assert rows == [("1", ('A "red", big\r\ndog',)), ("2", ('A 6" pipe',))]


def test_control_characters_are_kept_for_the_clean_stage(tmp_path: Path) -> None:
    strange = "A\x00 dog\x07\x1b[31m\x85\u2028\u200e\x0b."
    table = "image,caption,split,license\na.jpg," + strange + ",train,\n"
    assert [pair.captions for pair in folder_pairs(tmp_path, table, uncaptioned="leave_out")] == [(strange,)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "a.csv: line 1 has no column 'image'; it has nothing: correct the table, or the column's"),
        ("a.csv", "file,caption\n1,One\n", "a.csv: line 1 has no column 'image'; it has file, caption: correct"),
        ("a.csv", "image,caption,image\n", "a.csv: line 1 has two columns 'image'; it has image, caption, image"),
        ("a.csv", 'image,caption\n1,"A\ndog"\n2,A red, big dog\n', "a.csv: line 4 has 3 fields, the first line"),
        ("a.tsv", "image,caption\n1,One\n", "a.tsv: line 1 has no column 'image'; it has image,caption: correct"),
        ("a.csv", 'image,caption\n1,One\n2,"Two\n3,Three\n', "a.csv: line 3: unexpected end of data; a quote within"),
        ("a.csv", 'image,caption\n1,"A" dog\n', "a.csv: line 2: ',' expected after '\"'; a quote within"),
        ("a.csv", 'image,caption\n1,"' + "x" * 140_000, "a.csv: line 2: field larger than field limit"),
        ("a.csv", b"image,caption\n1,One\n2,caf\xe9\n", "a.csv: line 3: caption is 'caf\\udce9', which is not UTF-8"),
        ("a.csv", "image,caption\n".encode("utf-16"), "a.csv: line 1 has no column 'image'"),
        ("a.jsonl", '{"image": 1, "caption": "One"}\n{"image": 2}\n', "a.jsonl: line 2 has no column 'caption'"),
        ("a.jsonl", '{"image": 1, "caption": "One"}\n[1]\n', "a.jsonl: line 2 is '[1]\\n'; expected an object"),
        ("a.jsonl", "image,caption\n", "a.jsonl: line 1 is not JSON (Expecting value: line 1 column 1 (char 0))"),
        ("a.jsonl", '{"image": 1, "caption": [0.5]}', "a.jsonl: line 1: caption is '0.5', a float; expected text"),
        ("a.jsonl", '{"image": 1, "caption": "\\ud83d"}', "a.jsonl: line 1: caption is '\\ud83d', which is not UTF-8"),
        ("a.parquet", "image,caption\n", "a.parquet is no Parquet file, or a damaged one: "),
    ],
)  # fmt: skip
def test_bad_table_is_refused_with_file_and_line(
    name: str, content: str | bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        rows_of(tmp_path / name, content)


def test_parquet_without_the_column_is_refused_with_those_it_has(tmp_path: Path) -> None:
    pd.DataFrame({"image": ["1"], "text": ["One"]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a.parquet has no column 'caption'; it has image, text: correct"):
        rows_of(tmp_path / "a.parquet", (tmp_path / "a.parquet").read_bytes())


# A list of addresses


def test_urls_give_ids_that_stay_and_group_captions_of_one_address(tmp_path: Path) -> None:
    pairs = prepared(urls, tmp_path / "raw", urls_settings(tmp_path))
    address = (tmp_path / "a.jpg").as_uri()
    assert [pair.captions for pair in pairs] == [("One.", "Three."), ("Two.",), ("Dead.",)]
    assert pairs[0].image_id == hashlib.sha256(address.encode()).hexdigest()[:16]


def test_urls_dead_link_and_missing_address_are_failed_rows(tmp_path: Path) -> None:
    table = f"url,caption\n{(tmp_path / 'a.jpg').as_uri()},One.\nhttp://127.0.0.1:9/x.jpg,Two.\n,Three.\nx.jpg,Four.\n"
    settings = urls_settings(tmp_path, table, max_failed_share=0.75, allow_private_addresses=True)
    counts = download(settings, tmp_path / "raw")
    assert (counts.num_images, counts.num_captions, counts.num_failed) == (4, 4, 3)
    assert list(pd.read_parquet(tmp_path / "raw/rows.parquet")["status"]) == [
        "ok",
        "failed",
        "failed",
        "failed",
    ]


def test_urls_id_with_two_addresses_is_refused_by_name(tmp_path: Path) -> None:
    table = "key,url,caption\n7,http://a/1.jpg,One.\n8,http://a/2.jpg,Two.\n7,http://a/1.jpg,Three.\n"
    table += "8,http://a/3.jpg,Four.\n"
    settings = urls_settings(tmp_path, table, id_column="key")
    message = (
        r"list.csv: line 5: url of '8' is 'http://a/3.jpg', but \S+list.csv: line 3 says 'http://a/2.jpg'"
    )
    with pytest.raises(ValueError, match=message):
        prepared(urls, tmp_path / "raw", settings)


def test_urls_take_ids_splits_and_licenses_from_their_columns(tmp_path: Path) -> None:
    table = "key,url,caption,part,rights\n7,http://a/1.jpg,One.,dev,CC0\n8,http://a/1.jpg,Two.,,\n"
    table += "7,http://a/1.jpg,Three.,validation,\n"
    columns = {"id_column": "key", "split_column": "part", "license_column": "rights"}
    settings = urls_settings(tmp_path, table, **columns)
    pairs = prepared(urls, tmp_path / "raw", settings)
    assert [(pair.image_id, pair.split, pair.license, pair.captions) for pair in pairs] == [
        ("7", "val", "CC0", ("One.", "Three.")),
        ("8", "", "", ("Two.",)),
    ]


@pytest.mark.parametrize("url", ["file:///etc/passwd", " FILE:/etc/passwd", "local:///etc/passwd"])
def test_urls_of_files_of_this_machine_are_refused_unless_allowed(url: str, tmp_path: Path) -> None:
    table = f"url,caption\nhttp://a/1.jpg,One.\n{url},Two.\n"
    settings = urls_settings(tmp_path, table)
    with pytest.raises(
        ValueError, match=r"line 3: '(?i:file|local):\S+' is a file of this machine.*allow_private_addresses"
    ):
        prepared(urls, tmp_path / "raw", settings)
    allowed = settings.model_copy(update={"allow_private_addresses": True})
    assert len(prepared(urls, tmp_path / "allowed", allowed)) == 2


def test_urls_without_an_id_are_refused_by_line(tmp_path: Path) -> None:
    settings = urls_settings(tmp_path, "key,url,caption\n,http://a/1.jpg,One.\n", id_column="key")
    with pytest.raises(ValueError, match="line 2: key is empty; expected an id for every image"):
        prepared(urls, tmp_path / "raw", settings)


# Bristol-Myers Squibb


def test_bms_packs_drawings_in_the_order_of_the_labels(tmp_path: Path) -> None:
    counts = download(bms_settings(tmp_path, max_failed_share=0.25), tmp_path / "raw")
    rows = outcome(tmp_path / "raw")
    assert counts.reasons == {"not-in-archive": 1}
    assert rows[["archive", "split", "status"]].to_numpy().tolist() == [
        ["", "", "failed"],
        ["bms-00000.zip", "", "ok"],
        ["bms-00001.zip", "", "ok"],
        ["bms-00001.zip", PREDICT, "ok"],
    ]
    with zipfile.ZipFile(tmp_path / "raw/bms-00001.zip") as archive:
        assert archive.read("000011a64c74.png") == bms_members()["train/0/0/0/000011a64c74.png"]
    captions = pd.read_parquet(tmp_path / "raw/captions.parquet")
    assert set(captions["caption"]) == {"InChI=1S/C7H9NO/c1-5-3-6(2)8-7(5)4-9/h3-4,8H,1-2H3"}
    assert {path.suffix for path in (tmp_path / "raw").iterdir()} == {".zip", ".parquet"}


def test_bms_reads_an_unpacked_folder_alike(tmp_path: Path) -> None:
    for name, content in bms_members().items():
        (tmp_path / "kaggle" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "kaggle" / name).write_bytes(content.encode() if isinstance(content, str) else content)
    zipped = prepared(bms, tmp_path / "zipped", bms_settings(tmp_path))
    unpacked = prepared(bms, tmp_path / "unpacked", bms_settings(tmp_path, source=str(tmp_path / "kaggle")))
    assert [(p.image_id, p.captions, p.split) for p in unpacked] == [
        (p.image_id, p.captions, p.split) for p in zipped
    ]
    assert unpacked[1].url == (tmp_path / "kaggle/train/0/0/0/000019cc0cd2.png").as_uri()


def test_bms_packs_no_more_than_the_limit_and_nothing_is_left_of_another_run(tmp_path: Path) -> None:
    settings = bms_settings(tmp_path)
    assert len(prepared(bms, tmp_path / "raw", settings)) == 4
    (tmp_path / "raw/packed.parquet").rename(tmp_path / "moved")
    bms.prepare(tmp_path / "raw", settings.model_copy(update={"limit": 2}), copy)
    assert len(list(bms.read_pairs(tmp_path / "raw", settings))) == 2
    assert [path.name for path in (tmp_path / "raw").glob("*.zip")] == ["bms-00000.zip"]


def copy(url: str, path: Path, sha256: str | None) -> None:
    path.write_bytes(Path(url.removeprefix("file://")).read_bytes())


def test_bms_damaged_drawing_is_a_failed_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = bms_settings(tmp_path, max_failed_share=0.5)
    drawing = bms_members()["train/0/0/0/000011a64c74.png"]
    assert isinstance(drawing, bytes)
    archive = tmp_path / "bms-molecular-translation.zip"
    archive.write_bytes(archive.read_bytes().replace(drawing, drawing[:-1] + b"?"))
    assert download(settings, tmp_path / "raw").reasons == {"not-in-archive": 2}
    assert "bms: 1 drawings are damaged in " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"train/0/0/0/000011a64c74.png": b""}, "has no file train_labels.csv; expected Kaggle's archive"),
        (
            {"train_labels.csv": "id,InChI\n"},
            "train_labels.csv: line 1 has no column 'image_id'; it has id, InChI",
        ),
    ],
)
def test_bms_refuses_another_archive(members: dict[str, Any], message: str, tmp_path: Path) -> None:
    settings = bms_settings(tmp_path)
    write_zip(tmp_path / "bms-molecular-translation.zip", members)
    with pytest.raises(ValueError, match=re.escape(message)):
        prepared(bms, tmp_path / "raw", settings)


# Zip archives of millions of members


def contents(path: Path) -> dict[str, bytes]:
    with path.open("rb") as file:
        return {member.name: b"".join(read_pieces(file, member)) for member in read_directory(path)}


def test_large_zip_reads_what_zipfile_wrote(tmp_path: Path) -> None:
    expected = {"a.txt": b"a" * 200_000, "é/b.bin": bytes(range(256)), "empty": b""}
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
            archive.comment = b"PK a comment"
            for name, content in expected.items():
                archive.writestr(name, content)
        assert contents(tmp_path / "a.zip") == expected


def test_large_zip_may_have_more_members_than_sixteen_bits_count(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(66_000):
            archive.writestr(zipfile.ZipInfo(str(number)), b"")
    assert (
        sum(member.name == str(number) for number, member in enumerate(read_directory(tmp_path / "a.zip")))
        == 66_000
    )


def test_large_zip_may_be_larger_than_four_gibibytes(tmp_path: Path) -> None:
    with (tmp_path / "a.zip").open("wb") as file:
        file.truncate(5 << 30)  # a hole, which takes no room on disk
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        archive.writestr("far.txt", b"far away")
    assert contents(tmp_path / "a.zip") == {"far.txt": b"far away"}


def test_large_zip_expands_no_further_than_its_directory_says(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", b"0" * 1_000_000)
    packed = (
        (tmp_path / "a.zip")
        .read_bytes()
        .replace((1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    )
    (tmp_path / "a.zip").write_bytes(packed)
    (bomb,) = read_directory(tmp_path / "a.zip")
    with (tmp_path / "a.zip").open("rb") as file, pytest.raises(DamagedMember, match="bomb"):
        assert next(read_pieces(file, bomb)) is None, "nothing may come out"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda content: b"<html>",
            "a.zip is a damaged zip file: it has no end of a directory; fetch it again",
        ),
        (lambda content: content.replace(b"PK\x01\x02", b"xxxx"), "its directory is not where its end says"),
        (lambda content: content[-22:], "a.zip is a damaged zip file: it is cut short"),
    ],
)
def test_large_zip_that_is_damaged_is_refused(damage: Any, message: str, tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip", {"a": b"a"})
    (tmp_path / "a.zip").write_bytes(damage((tmp_path / "a.zip").read_bytes()))
    with pytest.raises(ValueError, match=re.escape(message)):
        contents(tmp_path / "a.zip")


# Several joined


def test_joined_names_the_part_in_id_source_and_archive(tmp_path: Path) -> None:
    pairs = prepared(joined, tmp_path / "raw", joined_settings(tmp_path))
    assert [(pair.source, pair.image_id) for pair in pairs[:4]] == [
        ("flickr", "flickr/1000092795"),
        ("flickr", "flickr/10002456"),
        ("mine", "mine/cats/b"),
        ("mine", "mine/a"),
    ]
    assert pairs[0].archive == "flickr/flickr30k-images.zip"
    assert [pair.source for pair in pairs[4:]] == ["links"] * 3


def test_joined_rows_can_be_read_from_the_archives_of_their_parts(tmp_path: Path) -> None:
    counts = download(joined_settings(tmp_path, max_failed_share=0.2), tmp_path / "raw")
    rows = outcome(tmp_path / "raw")
    assert counts.reasons == {"missing": 1}
    for row in rows[rows["status"] == "ok"].itertuples():
        with zipfile.ZipFile(tmp_path / "raw" / str(row.archive)) as archive:
            assert archive.read(str(row.member)).startswith(b"\xff\xd8")
    assert rows["source"].tolist() == ["flickr"] * 2 + ["mine"] * 2 + ["links"] * 3


def test_joined_part_may_be_for_testing_alone_but_for_pictures_without_captions(tmp_path: Path) -> None:
    settings = joined_settings(tmp_path)
    parts = {name: part | {"split": "test", "limit": None} for name, part in settings.parts.items()}
    pairs = prepared(joined, tmp_path / "raw", settings.model_copy(update={"parts": parts}))
    assert {pair.split for pair in pairs if pair.captions} == {"test"}
    assert [pair.image_id for pair in pairs if pair.split == PREDICT] == ["mine/cats/unnamed"]


def test_joined_prints_license_and_source_of_each_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared(joined, tmp_path / "raw", joined_settings(tmp_path))
    assert f"joined: flickr: flickr30k. License: {flickr30k.LICENSE}. Source: {flickr30k.CITATION}" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "no parts; expected at least one NAME: {dataset: ..., its keys}"),
        ({"../up": {"dataset": "urls"}}, "part '../up': expected a name of letters, digits, - and _"),
        ({"a": {"dataset": "joined"}}, "part 'a': dataset is 'joined'; expected one of bms, coco,"),
        (
            {"a": {"dataset": "urls", "split": "tests"}},
            "part 'a': split is 'tests'; expected one of train, val, test",
        ),
        ({"a": {}}, "part 'a': dataset is None; expected one of bms, coco, flickr30k"),
        ({"a": {"dataset": "imagenet"}}, "no 'imagenet' in captioning.datasets; available: bms"),
        (
            {"a": {"dataset": "urls", "retries": 1}},
            "part 'a' has the keys ['retries'], which all parts share",
        ),
        (
            {"a": {"dataset": "bms", "source": "x", "parts": [1], "y": 2}},
            "part 'a': parts.0: Input should be 'train'",
        ),
    ],
)
def test_joined_refuses_parts_that_are_wrong(parts: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        joined.Settings.model_validate(COMMON | {"dataset": "joined", "parts": parts})
