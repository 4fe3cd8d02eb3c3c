"""What is seen of a source: the same as long as nothing is new there, something else as soon as anything is."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from dataset_samples import (
    SMALL,
    bms_members,
    bms_settings,
    flickr8k_settings,
    folder_settings,
    scenes_settings,
    urls_settings,
)
from local_site import Site, serve

from captioning import lookup, source_state
from captioning.cli import main
from captioning.datasets import DatasetSettings, Source
from captioning.downloads.answers import FetchError
from captioning.formats.sources import address, local_path
from captioning.source_state import changes, observe

ROOT = Path(__file__).parents[1]


@pytest.fixture
def site() -> Iterator[Site]:
    with serve() as site:
        yield site


def sources(settings: DatasetSettings) -> list[Source]:
    return list(lookup.find("datasets", settings.dataset).sources(settings))


def add_to(source: Source) -> None:
    """Make new data of the smallest kind: a file in a folder, a line in a file."""
    path = local_path(source.place)
    assert path
    if source.kind == "folder":
        (path / "cats").mkdir(exist_ok=True)
        (path / "cats" / "new.jpg").write_bytes(b"")
    elif path.suffix == ".parquet":
        table = pd.read_parquet(path)
        pd.concat([table, table]).to_parquet(path)
    else:
        with path.open("a") as file:
            file.write("\n")


def list_at(url: str, folder: Path, **changed: Any) -> DatasetSettings:
    settings = {"source": f"{url}/file/list.csv", "allow_private_addresses": True, **changed}
    return urls_settings(folder, table="", **settings)


def archives_at(url: str, folder: Path, **changed: Any) -> DatasetSettings:
    return flickr8k_settings(folder, source=f"{url}/file", allow_private_addresses=True, **changed)


# every data set


@pytest.mark.parametrize("name", lookup.names("datasets"))
class TestEveryDataSet:
    def test_what_is_fetched_is_looked_at(self, name: str, tmp_path: Path) -> None:
        settings = SMALL[name](tmp_path)
        dataset = lookup.find("datasets", name)
        fetched: list[str] = []

        def fetch(url: str, path: Path, sha256: str | None) -> None:
            fetched.append(url)
            source = local_path(url)
            assert source
            path.write_bytes(source.read_bytes())

        (tmp_path / "raw").mkdir()
        dataset.prepare(tmp_path / "raw", settings, fetch)
        assert set(fetched) <= {address(source.place) for source in sources(settings)}

    def test_nothing_new_is_seen_twice_alike(self, name: str, tmp_path: Path) -> None:
        settings = SMALL[name](tmp_path)
        assert observe(settings) == observe(settings)
        assert set(observe(settings)) == {source.place for source in sources(settings)}

    def test_new_data_in_any_place_is_seen_there(self, name: str, tmp_path: Path) -> None:
        settings = SMALL[name](tmp_path)
        for source in sources(settings):
            before = observe(settings)
            add_to(source)
            (sentence,) = changes(before, observe(settings))
            assert sentence.startswith(f"{source.place}: ")


# folders, lists and files on disk


def test_molecules_that_were_unpacked_are_seen_by_their_labels_and_drawings(tmp_path: Path) -> None:
    for name, content in bms_members().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    settings = bms_settings(tmp_path).model_copy(update={"source": str(tmp_path)})
    assert [Path(source.place).name for source in sources(settings)] == [
        "train_labels.csv",
        "sample_submission.csv",
        tmp_path.name,
    ]
    assert [sorted(seen) for seen in observe(settings).values()] == [
        ["bytes", "digest", "files"],
        ["lines", "sha256"],
        ["lines", "sha256"],
    ]


def test_a_picture_that_is_replaced_in_place_is_seen(tmp_path: Path) -> None:
    settings = folder_settings(tmp_path)
    before = observe(settings)
    os.utime(tmp_path / "pictures" / "cats" / "b.PNG", ns=(0, 1))
    assert changes(before, observe(settings)) == [f"{tmp_path}/pictures: another digest"]


def test_a_picture_that_is_renamed_is_seen(tmp_path: Path) -> None:
    settings = folder_settings(tmp_path)
    before = observe(settings)
    (tmp_path / "pictures" / "a.jpg").rename(tmp_path / "pictures" / "z.jpg")
    assert changes(before, observe(settings)) == [f"{tmp_path}/pictures: another digest"]


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    settings = folder_settings(tmp_path)
    before = observe(settings)
    (tmp_path / "pictures" / ".new.jpg").write_bytes(b"")
    (tmp_path / "pictures" / ".git").mkdir()
    (tmp_path / "pictures" / ".git" / "new.jpg").write_bytes(b"")
    assert observe(settings) == before


def test_a_folder_may_be_linked_to_itself(tmp_path: Path) -> None:
    settings = folder_settings(tmp_path)
    before = observe(settings)
    (tmp_path / "pictures" / "again").symlink_to(tmp_path / "pictures")
    assert observe(settings) == before


def test_a_folder_is_the_same_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = folder_settings(tmp_path)
    (absolute,) = [seen for place, seen in observe(settings).items() if place.endswith("pictures")]
    monkeypatch.chdir(tmp_path / "pictures")
    assert observe(settings.model_copy(update={"images": "."}))["."] == absolute


def test_the_rows_of_a_list_are_counted(tmp_path: Path) -> None:
    settings = folder_settings(tmp_path)
    before = observe(settings)
    add_to(Source(place=str(tmp_path / "captions.csv"), kind="list"))
    assert changes(before, observe(settings)) == [
        f"{tmp_path}/captions.csv: lines 5 -> 6, another sha256",
    ]
    table = tmp_path / "captions.parquet"
    pd.DataFrame({"image": ["a.jpg", "c d.jpg"]}).to_parquet(table)
    assert observe(settings.model_copy(update={"captions": str(table)}))[str(table)]["rows"] == 2


def test_a_list_that_is_written_anew_with_the_same_rows_is_nothing_new(tmp_path: Path) -> None:
    settings = folder_settings(tmp_path)
    before = observe(settings)
    os.utime(tmp_path / "captions.csv", ns=(0, 1))
    assert observe(settings) == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"captions": "gone.csv"}, "'gone.csv' is no file that is there; correct the section download"),
        ({"images": "gone"}, "'gone' is no folder that is there; correct the section download"),
    ],
)
def test_a_place_that_is_not_there_is_refused(changed: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=re.escape(message)):
        observe(folder_settings(tmp_path).model_copy(update=changed))


# addresses


def test_an_address_is_seen_by_its_entity_tag_and_size_and_not_fetched(site: Site, tmp_path: Path) -> None:
    site.files["list.csv"] = b"x" * 50_000_000
    settings = list_at(site.url, tmp_path)
    assert observe(settings) == {f"{site.url}/file/list.csv": {"validator": '"first"', "bytes": 50_000_000}}
    assert site.num_bytes_sent < 50_000_000
    before = observe(settings)
    site.etag = '"second"'
    assert changes(before, observe(settings)) == [f"{site.url}/file/list.csv: another validator"]


def test_a_list_without_entity_tag_or_date_is_read(site: Site, tmp_path: Path) -> None:
    site.etag = None
    site.files["list.csv"] = b"one"
    settings = list_at(site.url, tmp_path)
    before = observe(settings)
    assert observe(settings) == before
    site.files["list.csv"] = b"two"
    assert changes(before, observe(settings)) == [f"{site.url}/file/list.csv: another sha256"]


def test_an_archive_without_entity_tag_or_date_is_seen_by_its_size(site: Site, tmp_path: Path) -> None:
    site.etag = None
    site.files = {"Flickr8k_text.zip": b"123", "Flickr8k_Dataset.zip": b"1234"}
    assert list(observe(archives_at(site.url, tmp_path)).values()) == [{"bytes": 4}, {"bytes": 3}]


def test_what_has_a_stated_checksum_is_not_asked_for(site: Site, tmp_path: Path) -> None:
    site.files = {"Flickr8k_text.zip": b"123"}
    settings = archives_at(site.url, tmp_path, checksums={"Flickr8k_Dataset.zip": "A" * 64})
    assert observe(settings)[f"{site.url}/file/Flickr8k_Dataset.zip"] == {"sha256": "a" * 64}
    assert set(site.requests) == {"/file/Flickr8k_text.zip"}


def test_a_failure_that_may_pass_is_tried_again(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("captioning.downloads.answers.FIRST_PAUSE_SECONDS", 0.01)
    settings = list_at(site.url, tmp_path, source=f"{site.url}/flaky/list.csv", retries=2)
    assert observe(settings)
    assert site.requests["/flaky/list.csv"] == 3


def test_an_address_that_does_not_answer_is_refused(site: Site, tmp_path: Path) -> None:
    settings = list_at(site.url, tmp_path, source=f"{site.url}/gone/list.csv")
    with pytest.raises(FetchError, match=r"/gone/list\.csv answered 404"):
        observe(settings)


# the file


def test_a_fresh_checkout_has_the_file_of_the_default_data_set(tmp_path: Path) -> None:
    committed = ROOT / "source.json"
    source_state.write(observe(scenes_settings(tmp_path)), tmp_path / "source.json")
    assert (tmp_path / "source.json").read_bytes() == committed.read_bytes()


def test_equal_sights_are_equal_bytes_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "source.json"
    source_state.write({"b": {"lines": 1, "digest": "x"}, "a": {}}, path)
    first = path.read_bytes()
    source_state.write({"a": {}, "b": {"digest": "x", "lines": 1}}, path)
    assert path.read_bytes() == first
    assert source_state.read(path) == {"a": {}, "b": {"digest": "x", "lines": 1}}


@pytest.mark.parametrize("text", ["<<<<<<< HEAD", "[]", '{"place": 1}'])
def test_a_file_that_is_not_ours_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "source.json").write_text(text)
    with pytest.raises(
        ValueError, match=r"source\.json is not what a look at the source leaves; write \{\} "
    ):
        source_state.read(tmp_path / "source.json")


def test_places_that_come_and_go_are_named() -> None:
    assert changes({"a": {}, "c": {"bytes": 1}}, {"b": {}, "c": {"bytes": 1_000}}) == [
        "a: no longer used",
        "b: seen for the first time",
        "c: bytes 1 -> 1,000",
    ]


def test_the_command_says_what_is_new_and_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = folder_settings(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("captioning.params.load", lambda section: settings)
    for expected in (f"{tmp_path}/captions.csv: seen for the first time", "nothing is new"):
        with pytest.raises(SystemExit) as ended:
            main(["probe"])
        assert ended.value.code == 0
        assert expected in capsys.readouterr().out
    assert source_state.read() == observe(settings)
