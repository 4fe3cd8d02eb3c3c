"""A data set comes whole, in parts that outlive a killed run; every image ends as one row with a status."""

import asyncio
import hashlib
import itertools
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from local_site import JPEG, Site, serve
from scratch_project import wait_until

from captioning import home, progress
from captioning.datasets import karpathy
from captioning.downloads import answers, connections, parts, pictures
from captioning.downloads.raw import Counts, download, read_settings

COMMON = {
    "limit": None,
    "max_failed_share": 0.0,
    "timeout_seconds": 5.0,
    "retries": 0,
    "num_connections": 4,
    "connections_per_host": 4,
    "images_per_archive": 10,
    "max_image_bytes": 1_000_000,
    "max_image_seconds": 30.0,
    "allow_private_addresses": True,
}
SCENES = COMMON | {"dataset": "scenes", "num_images": 10, "image_side_pixels": 32, "seed": 0}


@pytest.fixture(autouse=True)
def home_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTIONING_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setattr(answers, "FIRST_PAUSE_SECONDS", 0.01)


@pytest.fixture
def site() -> Iterator[Site]:
    with serve() as site:
        yield site


class Source:
    """A list of images at the site, in Karpathy's form, and the raw folder to bring them to."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.site, self.folder = site, folder
        self.raw = folder / "raw"

    def settings(self, *paths: str, **changes: Any) -> karpathy.Settings:
        if paths:
            captions = [{"raw": "a picture"}, {"raw": "another"}]
            images = [{"filename": path, "split": "train", "sentences": captions} for path in paths]
            (self.folder / "dataset.json").write_text(json.dumps({"images": images}))
        section = {
            "dataset": "karpathy",
            "source": str(self.folder / "dataset.json"),
            "images": self.site.url,
        }
        return karpathy.Settings.model_validate(COMMON | section | changes)

    def download(self, *paths: str, **changes: Any) -> Counts:
        return download(self.settings(*paths, **changes), self.raw)

    def rows(self) -> pd.DataFrame:
        return pd.read_parquet(self.raw / "rows.parquet")

    def reasons(self) -> list[str]:
        return [error.partition(":")[0] for error in self.rows()["error"]]

    def read(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.raw.iterdir()}


@pytest.fixture
def source(site: Site, tmp_path: Path) -> Source:
    return Source(site, tmp_path)


def test_each_failed_image_is_a_row_with_a_reason(source: Source) -> None:
    source.site.files["none"] = b""
    bad = {
        "gone/b.jpg": "http-404",
        "busy/c.jpg": "http-503",
        "page/d.jpg": "web-page",
        "html/e.jpg": "web-page",
        "text/f.jpg": "not-a-picture",
        "short/g.jpg": "cut-short",
        "loop/h.jpg": "redirect-loop",
        "to/file:%2F%2F%2Fetc%2Fi": "bad-redirect",
        "drip/j.jpg": "too-slow",
        "long/2000000": "too-large",
        "text/": "empty",
    }
    paths = ["ok/a.jpg", *bad]
    images = [
        {"filename": path, "split": "train", "sentences": [], "imgid": number}
        for number, path in enumerate(paths)
    ]
    (source.folder / "dataset.json").write_text(json.dumps({"images": images}))
    counts = source.download(max_failed_share=0.99, max_image_seconds=5.0)
    assert source.reasons() == ["", *bad.values()]
    rows = source.rows()
    assert list(rows["status"]) == ["ok", *["failed"] * len(bad)]
    assert rows["error"][1] == f"http-404: {source.site.url}/gone/b.jpg answered 404 Not Found"
    assert (rows["archive"][0], rows["member"][0], rows["num_bytes"][0]) == ("images-00000.zip", "a.jpg", 9)
    assert rows["sha256"][0] == hashlib.sha256(JPEG + b"a.jpg").hexdigest()
    assert counts.num_failed == len(bad)
    assert counts.reasons["web-page"] == 2


def test_failure_that_may_pass_is_tried_again(source: Source) -> None:
    source.download("flaky/a.jpg", "ok/b.jpg", "reset/c.jpg", retries=2, max_failed_share=0.5)
    assert list(source.rows()["status"]) == ["ok", "ok", "failed"]
    assert source.site.requests["/flaky/a.jpg"] == 3
    assert source.site.requests["/reset/c.jpg"] == 3


def test_private_address_is_refused_unless_allowed(source: Source) -> None:
    source.download("ok/a.jpg", allow_private_addresses=False, max_failed_share=1.0)
    assert source.reasons() == ["private-address"]
    assert not source.site.requests


def test_server_that_asks_to_wait_is_left_alone_by_all_connections(source: Source) -> None:
    source.download("wait/1/a.jpg", *[f"slow/{number}.jpg" for number in range(30)], retries=1)
    asked = source.site.times
    longest = max(later - earlier for earlier, later in itertools.pairwise(asked))
    assert longest >= 0.8  # but for the answers under way


def test_images_are_stored_in_order_however_they_come(source: Source) -> None:
    paths = [f"{'slow' if number % 3 == 0 else 'ok'}/{number}.jpg" for number in range(25)]
    whole = []
    for num_connections in (10, 3):
        settings = {"num_connections": num_connections, "connections_per_host": num_connections}
        source.download(*paths, **settings)
        whole.append(source.read())
    assert whole[0] == whole[1]
    assert list(source.rows()["image_id"]) == [str(number) for number in range(25)]
    assert source.rows()["archive"].value_counts(sort=False).to_dict() == {
        "images-00000.zip": 10,
        "images-00001.zip": 10,
        "images-00002.zip": 5,
    }
    with zipfile.ZipFile(source.raw / "images-00001.zip") as images:
        assert images.namelist() == [f"{number}.jpg" for number in range(10, 20)]
        assert images.read("13.jpg") == JPEG + b"13.jpg"
        assert {member.date_time for member in images.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize("connections_per_host", [1, 3])
def test_no_host_has_more_connections_than_allowed_and_all_work(
    connections_per_host: int, source: Source
) -> None:
    paths = [f"slow/{number}.jpg" for number in range(12)]
    source.download(*paths, num_connections=8, connections_per_host=connections_per_host)
    assert source.site.most_slow == connections_per_host


def test_host_that_does_not_answer_does_not_hold_up_others(site: Site) -> None:
    with serve("127.0.0.2") as other:
        held = [f"{site.url}/held/{number}" for number in range(4)]
        fast = [f"{other.url}/ok/{number}" for number in range(20)]

        async def attempt(url: str) -> pictures.Picture:
            if url == held[-1]:
                assert other.requests.total() == len(fast)
            async with answers.open_session(timeout_seconds=20, allow_private_addresses=True) as session:
                picture = await pictures.fetch_image(session, url, max_bytes=100, max_seconds=20)
            if other.requests.total() == len(fast):
                site.go_on.set()  # only now the first host answers
            return picture

        async def fetch_all() -> list[connections.Outcome]:
            queue = connections.Connections(attempt, retries=0, num_connections=3, connections_per_host=2)
            return [outcome async for outcome in queue.fetch([*held, *fast])]

        outcomes = asyncio.run(fetch_all())
    assert all(isinstance(outcome, pictures.Picture) for outcome in outcomes)


def test_pictures_that_wait_for_an_earlier_one_do_not_fill_the_memory(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_BYTES_AHEAD", 25)
    most = 0

    class Watched(connections.Connections):
        def _start(self) -> None:
            nonlocal most
            most = max(most, self._num_bytes)
            if most >= connections.MAX_BYTES_AHEAD:
                source.site.go_on.set()
            super()._start()

    monkeypatch.setattr(parts, "Connections", Watched)
    source.download("held/a.jpg", *[f"ok/{number}.jpg" for number in range(10, 40)])
    assert 25 <= most <= 25 + 4 * len(JPEG + b"10.jpg")
    assert set(source.reasons()) == {""}


def test_picture_that_all_others_wait_for_is_fetched_although_the_memory_is_full(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_BYTES_AHEAD", 25)
    monkeypatch.setattr(answers, "FIRST_PAUSE_SECONDS", 0.2)  # in which the others fill it
    source.download("flaky/a.jpg", *[f"ok/{number}.jpg" for number in range(10, 40)], retries=2)
    assert set(source.reasons()) == {""}


def test_member_is_named_by_the_id_and_the_content(source: Source) -> None:
    settings = source.settings("ok/..%2Fa b.php", "ok/ä.jpg")
    download(settings, source.raw)
    with zipfile.ZipFile(source.raw / "images-00000.zip") as images:
        names = images.namelist()
    assert not any("/" in name or " " in name for name in names)
    assert [name[-4:] for name in names] == [".jpg", ".jpg"]
    assert list(source.rows()["member"]) == names


def test_one_in_ten_dead_links_are_rows_and_the_rest_goes_on(source: Source) -> None:
    paths = [f"{'gone' if number % 10 == 7 else 'ok'}/{number}.jpg" for number in range(100)]
    counts = source.download(*paths, max_failed_share=0.1)
    assert (counts.num_images, counts.num_captions, counts.reasons) == (100, 200, {"http-404": 10})
    assert source.rows()["status"].value_counts().to_dict() == {"ok": 90, "failed": 10}


def test_too_many_failures_are_refused_with_counts_by_reason(source: Source) -> None:
    message = (
        r"3 of 5 images could not be fetched \(2 http-404, 1 web-page\): a share of 0.6000, at most 0.5 is"
    )
    with pytest.raises(ValueError, match=message):
        source.download(
            "ok/a.jpg", "ok/b.jpg", "gone/c.jpg", "gone/d.jpg", "page/e.jpg", max_failed_share=0.5
        )
    assert not source.raw.exists()


def test_refused_download_tries_only_what_failed_when_it_is_run_again(source: Source) -> None:
    paths = [f"ok/{number}.jpg" for number in range(25)]
    paths[3] = paths[23] = "flaky/x.jpg"
    paths[23] = "flaky/y.jpg"
    for _ in range(2):
        with pytest.raises(ValueError, match=r"2 of 25 images could not be fetched \(2 http-500\)"):
            source.download(*paths)
    assert source.download(*paths).num_failed == 0
    assert {path: num for path, num in source.site.requests.items() if num > 1} == {
        "/flaky/x.jpg": 3,
        "/flaky/y.jpg": 3,
    }
    assert source.site.requests.total() == 23 + 6
    with zipfile.ZipFile(source.raw / "images-00000.zip") as images:
        assert images.read("x.jpg") == JPEG + b"x.jpg"
    again = source.read()
    source.site.requests.clear()
    source.site.requests.update({"/flaky/x.jpg": 5, "/flaky/y.jpg": 5})
    source.download(*paths)
    assert source.read() == again


def test_refused_download_is_accepted_without_fetching_when_more_failures_are_allowed(source: Source) -> None:
    paths = [f"ok/{number}.jpg" for number in range(19)]
    with pytest.raises(ValueError, match="1 of 20 images"):
        source.download(*paths, "gone/x.jpg")
    source.download(*paths, "gone/x.jpg", max_failed_share=0.05)
    assert source.site.requests.total() == 21  # the failed one once more


DOWNLOAD = """
import json, sys
from pathlib import Path
from captioning.downloads.raw import download, read_settings
download(read_settings(json.loads(sys.argv[1])), Path(sys.argv[2]))
"""


def start_download(source: Source, settings: karpathy.Settings) -> subprocess.Popen[bytes]:
    arguments = [settings.model_dump_json(), str(source.raw)]
    return subprocess.Popen([sys.executable, "-c", DOWNLOAD, *arguments])


def test_killed_run_goes_on_at_the_next_part_and_ends_with_the_same_bytes(source: Source) -> None:
    paths = [f"{'gone' if number == 4 else 'ok'}/{number}.jpg" for number in range(45)]
    paths[24] = "held/24.jpg"
    settings = source.settings(*paths, max_failed_share=0.1)
    with start_download(source, settings) as child:
        wait_until(lambda: len(list(home.work("download").glob("*/.unfinished/*.parquet"))) >= 3)
        # then nothing but the one that is held is under way
        wait_until(lambda: source.site.requests.total() == len(paths))
        child.kill()
    assert not source.raw.exists()
    source.site.go_on.set()
    first = source.site.requests.copy()
    source.download(max_failed_share=0.1)
    finished = [f"/{path}" for path in paths[:20]]
    assert {path: source.site.requests[path] for path in finished} == dict.fromkeys(finished, 1)
    assert source.site.requests.total() - first.total() == 25
    killed = source.read()
    assert not list(home.work("download").iterdir())
    source.download(max_failed_share=0.1)
    assert source.site.requests["/ok/0.jpg"] == 2
    assert source.read() == killed


def test_changed_list_keeps_only_parts_that_it_still_has(source: Source) -> None:
    paths = [f"ok/{number}.jpg" for number in range(25)]
    with pytest.raises(ValueError, match="could not be fetched"):
        source.download(*paths, "gone/x.jpg")
    fewer = [*paths[:9], "ok/new.jpg", *paths[10:15]]
    source.download(*fewer)
    assert sorted(source.read()) == [
        "captions.parquet", "dataset.json", "images-00000.zip", "images-00001.zip", "rows.parquet"
    ]  # fmt: skip
    again = source.read()
    source.download(*fewer)
    assert source.read() == again


def test_run_again_asks_for_no_byte_of_a_finished_file_and_writes_the_others_anew(source: Source) -> None:
    settings = source.settings("gone/a.jpg", "ok/b.jpg", source=f"{source.site.url}/file/list.json")
    listed = source.site.files["list.json"] = (source.folder / "dataset.json").read_bytes()
    with pytest.raises(ValueError, match="1 of 2 images"):
        download(settings, source.raw)
    (unfinished,) = home.work("download").iterdir()
    (unfinished / "stale.csv").touch()
    settings = settings.model_copy(update={"max_failed_share": 0.5})
    download(settings, source.raw)
    wait_until(lambda: source.site.num_bytes_sent == len(listed))
    assert sorted(source.read()) == ["captions.parquet", "dataset.json", "images-00000.zip", "rows.parquet"]


def test_second_download_of_the_same_is_refused_while_one_runs(source: Source) -> None:
    settings = source.settings("held/a.jpg")
    with start_download(source, settings) as child:
        wait_until(lambda: bool(source.site.requests))
        with pytest.raises(ValueError, match="is being written by another process"):
            source.download()
        source.site.go_on.set()
        assert child.wait() == 0
    assert source.reasons() == [""]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, where nothing can be written")
def test_full_disk_is_one_clear_message_and_the_run_can_be_repeated(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    zip_file = zipfile.ZipFile

    def open_full(path: Path, *arguments: Any) -> zipfile.ZipFile:
        opened = zip_file(path, *arguments)
        if "w" in arguments:
            full = os.open("/dev/full", os.O_WRONLY)
            os.dup2(full, opened.fp.fileno())  # type: ignore[union-attr]
            os.close(full)
        return opened

    monkeypatch.setattr(parts.zipfile, "ZipFile", open_full)
    with pytest.raises(ValueError, match=r"the disk of .* is full: .*free some space.*run again"):
        source.download("ok/a.jpg")
    monkeypatch.setattr(parts.zipfile, "ZipFile", zip_file)
    source.download("ok/a.jpg")
    assert source.reasons() == [""]


def test_progress_says_how_many_failed_and_why(
    source: Source, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    source.download("ok/a.jpg", "gone/b.jpg", "page/c.jpg", "ok/d.jpg", max_failed_share=0.5)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("download: ")]
    assert "download: 4 of 4 images, 2 ok, 2 failed (1 http-404, 1 web-page), " in lines[-1]


def test_list_cannot_name_files_of_this_machine(source: Source) -> None:
    pictures = source.folder / "pictures"
    pictures.mkdir()
    (pictures / "in.jpg").write_bytes(JPEG)
    (source.folder.parent / "secret.jpg").write_bytes(JPEG)
    settings = source.settings(
        "in.jpg", "../../secret.jpg", "..%2Fb.jpg", images=pictures.as_uri(), allow_private_addresses=False
    )
    with pytest.raises(ValueError, match=r"2 of 3 images could not be fetched \(1 missing, 1 not-allowed\)"):
        download(settings, source.raw)
    download(settings.model_copy(update={"max_failed_share": 0.7}), source.raw)
    assert source.reasons() == ["", "not-allowed", "missing"]
    assert "lies in no folder that the section download names" in source.rows()["error"][1]


def test_image_id_that_occurs_twice_is_refused_before_anything_is_fetched(source: Source) -> None:
    with pytest.raises(ValueError, match="image_id 'a' occurs twice; every image needs its own id"):
        source.download("ok/a.jpg", "ok/a.png")
    assert not source.site.requests


def test_no_images_are_refused(source: Source) -> None:
    (source.folder / "dataset.json").write_text('{"images": []}')
    with pytest.raises(ValueError, match="data set 'karpathy' has no images; check its settings"):
        source.download()


def test_tables_have_the_columns_that_the_next_stages_read(source: Source, tmp_path: Path) -> None:
    download(read_settings(SCENES), tmp_path / "drawn")
    source.download("ok/a.jpg", "gone/b.jpg", max_failed_share=0.5)
    for raw, name in ((tmp_path / "drawn", "scenes"), (source.raw, "karpathy")):
        schema = pq.read_schema(raw / "rows.parquet")
        texts = ("image_id", "source", "archive", "member", "url", "split", "license", "status", "error")
        kinds = {**dict.fromkeys(texts, "string"), "num_bytes": "int64", "sha256": "string"}
        assert {column.name: str(column.type) for column in schema} == kinds
        rows = pd.read_parquet(raw / "rows.parquet")
        assert set(rows["source"]) == {name}
        assert not rows.isna().any(axis=None)
        schema = pq.read_schema(raw / "captions.parquet")
        kinds = {"image_id": "string", "position": "int32", "caption": "string"}
        assert {column.name: str(column.type) for column in schema} == kinds
    captions = pd.read_parquet(tmp_path / "drawn" / "captions.parquet")
    assert list(captions["position"]) == [0, 1, 2, 3, 4] * 10


def test_limit_takes_the_first_images(tmp_path: Path) -> None:
    download(read_settings(SCENES), tmp_path / "all")
    counts = download(read_settings(SCENES | {"limit": 3}), tmp_path / "some")
    every = pd.read_parquet(tmp_path / "all" / "rows.parquet")
    assert counts.num_images == 3
    assert pd.read_parquet(tmp_path / "some" / "rows.parquet").equals(every[:3])


def test_same_settings_give_the_same_bytes_and_replace_what_was_there(tmp_path: Path) -> None:
    folders = []
    for _ in range(2):
        download(read_settings(SCENES), tmp_path / "raw")
        folders.append({path.name: path.read_bytes() for path in (tmp_path / "raw").iterdir()})
        (tmp_path / "raw" / "stale").touch()
    assert folders[0] == folders[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]


def test_unknown_dataset_is_refused_with_those_that_exist() -> None:
    with pytest.raises(
        ValueError, match=r"no 'imagenet' in captioning.datasets; available: .*flickr8k.*scenes"
    ):
        read_settings(SCENES | {"dataset": "imagenet"})
    with pytest.raises(ValueError, match=r"dataset: expected one of .*scenes.*, got None"):
        read_settings({})
