"""Files and images come over http or from files: whole, checked, or with a reason."""

import contextlib
import hashlib
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from captioning import fetching
from captioning.datasets import karpathy
from captioning.downloads import download, fetch_images, read_settings
from captioning.fetching import FetchError, fetch, fetch_image
from captioning.records import Pair

SCENES = {
    "dataset": "scenes",
    "num_images": 10,
    "image_side_pixels": 32,
    "seed": 0,
    "limit": None,
    "max_failed_share": 0.0,
    "timeout_seconds": 5.0,
    "retries": 0,
    "num_connections": 2,
}


class Answers(BaseHTTPRequestHandler):
    """/ok/NAME answers NAME; the other first words of a path fail in their own way."""

    requests: Counter[str]

    def do_GET(self) -> None:
        kind, _, name = self.path.strip("/").partition("/")
        self.requests[self.path] += 1
        body = name.encode()
        status, length = 200, len(body)
        match kind:
            case "flaky" if self.requests[self.path] <= 2:
                status = 503
            case "busy":
                status = 503
            case "short":
                length += 100
            case "page":
                body = b"\n<!DOCTYPE html><html>log in first</html>"
                length = len(body)
            case "silent":
                time.sleep(2)
            case "slow":
                time.sleep(0.2)
            case "ok" | "flaky":
                pass
            case _:
                status = 404
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):  # the other side did not wait
            self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve `Answers` on a free port; pauses between attempts are short."""
    monkeypatch.setattr(fetching, "FIRST_PAUSE_SECONDS", 0.01)
    Answers.requests = Counter()
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def fetched(url: str, folder: Path, sha256: str | None = None, retries: int = 0) -> bytes:
    fetch(url, folder / "file.bin", sha256, timeout_seconds=0.5, retries=retries)
    assert [path.name for path in folder.iterdir()] == ["file.bin"]
    return (folder / "file.bin").read_bytes()


def refusal(url: str, folder: Path, retries: int = 0) -> FetchError:
    with pytest.raises(FetchError) as error:
        fetch(url, folder / "file.bin", timeout_seconds=0.5, retries=retries)
    assert not list(folder.iterdir())
    return error.value


def test_file_comes_over_http(site: str, tmp_path: Path) -> None:
    assert fetched(f"{site}/ok/hello", tmp_path) == b"hello"


def test_file_is_copied_from_disk_and_stays_there(tmp_path: Path) -> None:
    source = tmp_path / "a source.bin"
    source.write_bytes(b"x" * 3_000_000)
    (tmp_path / "target").mkdir()
    assert fetched(source.as_uri(), tmp_path / "target") == source.read_bytes()
    assert not source.samefile(tmp_path / "target" / "file.bin")


def test_failure_that_may_pass_is_tried_again(site: str, tmp_path: Path) -> None:
    assert fetched(f"{site}/flaky/hello", tmp_path, retries=2) == b"hello"
    assert Answers.requests["/flaky/hello"] == 3


def test_attempts_end_after_the_retries_allowed(site: str, tmp_path: Path) -> None:
    assert refusal(f"{site}/busy/hello", tmp_path, retries=1).reason == "http-503"
    assert Answers.requests["/busy/hello"] == 2


def test_failure_that_will_not_pass_is_not_tried_again(site: str, tmp_path: Path) -> None:
    error = refusal(f"{site}/gone/hello", tmp_path, retries=5)
    assert Answers.requests["/gone/hello"] == 1
    sentence = f"{site}/gone/hello answered 404 Not Found"
    assert str(error) == f"{sentence}; check the address in the section download, or try again later"


def test_answer_cut_short_is_a_failure(site: str, tmp_path: Path) -> None:
    error = refusal(f"{site}/short/hello", tmp_path)
    assert error.reason == "cut-short"
    assert "ended after 5 of 105 bytes" in str(error)


def test_silent_server_is_given_up(site: str, tmp_path: Path) -> None:
    error = refusal(f"{site}/silent/hello", tmp_path)
    assert error.reason == "timeout"
    assert "0.5 seconds" in str(error)


def test_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        port = server.server_port
    error = refusal(f"http://127.0.0.1:{port}/x", tmp_path)
    assert error.reason == "connection"
    assert "Connection refused" in str(error)


def test_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    error = refusal((tmp_path / "absent.zip").as_uri(), tmp_path / "target", retries=5)
    assert error.reason == "missing"
    assert "absent.zip does not exist" in str(error)


@pytest.mark.parametrize(
    "address", ["data/images.zip", "ftp://example.org/x", "", "https://", "http://host:port/x"]
)
def test_address_that_cannot_be_opened_is_named(address: str, tmp_path: Path) -> None:
    error = refusal(address, tmp_path, retries=5)
    assert error.reason in {"unusable-url", "connection"}
    assert address in str(error)


def test_wrong_checksum_is_refused_with_both(site: str, tmp_path: Path) -> None:
    right, wrong = hashlib.sha256(b"hello").hexdigest(), "0" * 64
    assert fetched(f"{site}/ok/hello", tmp_path, right.upper()) == b"hello"
    (tmp_path / "file.bin").unlink()
    with pytest.raises(
        ValueError, match=f"has the sha256 {right}, expected {wrong}; it was changed or damaged"
    ):
        fetched(f"{site}/ok/hello", tmp_path, wrong)
    assert not list(tmp_path.iterdir())


def test_web_page_instead_of_a_zip_is_refused(site: str, tmp_path: Path) -> None:
    message = r"/page/images.zip is not a zip file: it begins with b'\\n<!DOCTYPE html><html>log in first"
    with pytest.raises(ValueError, match=message):
        fetch(f"{site}/page/images.zip", tmp_path / "images.zip", timeout_seconds=1, retries=0)
    assert not list(tmp_path.iterdir())


def pairs_at(site: str, *paths: str) -> list[Pair]:
    return [
        Pair(image_id=f"image-{n}", url=f"{site}/{path}", captions=("a",)) for n, path in enumerate(paths)
    ]


def test_each_failed_image_is_a_row_with_a_reason(site: str, tmp_path: Path) -> None:
    pairs = pairs_at(
        site, "ok/one.jpg", "gone/two.jpg", "page/three.jpg", "short/four.jpg", "silent/five.jpg"
    )
    pairs += [Pair(image_id="nowhere"), Pair(image_id="inside", archive="some.zip", member="m.jpg")]
    outcomes = fetch_images(pairs, tmp_path / "images.zip", timeout_seconds=0.5, retries=0, num_connections=2)
    rows = {pair.image_id: row for pair, row in outcomes}
    reasons = {image_id: row.error.split(":")[0] for image_id, row in rows.items()}
    assert reasons == {
        "image-0": "",
        "image-1": "http-404",
        "image-2": "web-page",
        "image-3": "cut-short",
        "image-4": "timeout",
        "nowhere": "not-in-archive",
        "inside": "",
    }
    assert [row.status for row in rows.values()] == ["ok", *["failed"] * 5, "ok"]
    assert rows["image-1"].error == f"http-404: {site}/gone/two.jpg answered 404 Not Found"
    good = rows["image-0"]
    assert (good.archive, good.member, good.num_bytes) == ("images.zip", "image-0.jpg", 7)
    assert good.sha256 == hashlib.sha256(b"one.jpg").hexdigest()
    assert (rows["inside"].archive, rows["inside"].member) == ("some.zip", "m.jpg")


def test_images_are_fetched_at_the_same_time_and_stored_in_order(site: str, tmp_path: Path) -> None:
    paths = [f"{'slow' if number % 3 == 0 else 'ok'}/{number}.jpg" for number in range(30)]
    archives = []
    for num_connections in (10, 3):
        archive = tmp_path / f"{num_connections}.zip"
        began = time.monotonic()
        outcomes = list(
            fetch_images(
                pairs_at(site, *paths), archive, timeout_seconds=5, retries=0, num_connections=num_connections
            )
        )
        if num_connections == 10:
            assert time.monotonic() - began < 1.5  # ten answers of 0.2 s, one after the other, take 2 s
        assert [row.status for _, row in outcomes] == ["ok"] * 30
        archives.append(archive.read_bytes())
    assert archives[0] == archives[1]
    with zipfile.ZipFile(tmp_path / "10.zip") as images:
        assert images.namelist() == [f"image-{number}.jpg" for number in range(30)]
        assert images.read("image-3.jpg") == b"3.jpg"
        assert {member.date_time for member in images.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_too_large_image_is_not_fetched(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "MAX_IMAGE_BYTES", 4)
    with pytest.raises(FetchError, match="has more than 4 bytes"):
        fetch_image(f"{site}/ok/hello", timeout_seconds=5, retries=0)


def karpathy_settings(site: str, folder: Path, filenames: list[str], **changes: Any) -> karpathy.Settings:
    images = ",".join(
        f'{{"filename": "{name}", "split": "train", "sentences": [{{"raw": "a"}}]}}' for name in filenames
    )
    (folder / "dataset.json").write_text(f'{{"images": [{images}]}}')
    section = {
        key: value for key, value in SCENES.items() if key not in {"num_images", "image_side_pixels", "seed"}
    }
    section |= {"dataset": "karpathy", "source": str(folder / "dataset.json"), "images": site}
    return karpathy.Settings.model_validate(section | changes)


def test_too_many_failures_are_refused_with_counts_by_reason(site: str, tmp_path: Path) -> None:
    names = ["ok/a.jpg", "ok/b.jpg", "gone/c.jpg", "gone/d.jpg", "page/e.jpg"]
    settings = karpathy_settings(site, tmp_path, names, max_failed_share=0.5)
    message = (
        r"3 of 5 images could not be fetched \(2 http-404, 1 web-page\): a share of 0.6000, at most 0.5 is"
    )
    with pytest.raises(ValueError, match=message):
        download(settings, tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


def test_few_failures_are_rows_and_the_rest_goes_on(site: str, tmp_path: Path) -> None:
    settings = karpathy_settings(site, tmp_path, ["ok/a.jpg", "gone/b.jpg", "ok/c.jpg"], max_failed_share=0.4)
    counts = download(settings, tmp_path / "raw")
    rows = pd.read_parquet(tmp_path / "raw" / "rows.parquet")
    assert list(rows["status"]) == ["ok", "failed", "ok"]
    assert (counts.num_images, counts.num_captions, counts.reasons) == (3, 3, {"http-404": 1})


def test_image_id_that_occurs_twice_is_refused(site: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="image_id 'a' occurs twice; every image needs its own id"):
        download(karpathy_settings(site, tmp_path, ["ok/a.jpg", "ok/a.png"]), tmp_path / "raw")


def test_no_images_are_refused(site: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="data set 'karpathy' has no images; check its settings"):
        download(karpathy_settings(site, tmp_path, []), tmp_path / "raw")


def test_tables_have_the_columns_that_the_next_stages_read(tmp_path: Path) -> None:
    download(read_settings(SCENES), tmp_path / "raw")
    rows = pd.read_parquet(tmp_path / "raw" / "rows.parquet")
    captions = pd.read_parquet(tmp_path / "raw" / "captions.parquet")
    columns = [
        "image_id",
        "archive",
        "member",
        "url",
        "split",
        "license",
        "status",
        "error",
        "num_bytes",
        "sha256",
    ]
    assert list(rows) == columns
    assert rows["num_bytes"].dtype == "int64"
    assert not rows.isna().any(axis=None)
    assert {name: str(kind) for name, kind in captions.dtypes.items()} == {
        "image_id": "str",
        "position": "int32",
        "caption": "str",
    }
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
