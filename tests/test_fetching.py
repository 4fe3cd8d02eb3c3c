"""What lies behind an address comes whole and checked, or with a reason; a long transfer goes on where it ended."""

import asyncio
import hashlib
import importlib.util
import os
import re
import socket
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from local_site import JPEG, Site, content, serve
from scratch_project import wait_until

from captioning.downloads import addresses, answers, fetching, pictures
from captioning.downloads.answers import FetchError, open_session
from captioning.downloads.fetching import fetch
from captioning.downloads.pictures import Picture, fetch_image

MEGABYTE = 1 << 20


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Serve on this machine; pauses between attempts are short."""
    monkeypatch.setattr(answers, "FIRST_PAUSE_SECONDS", 0.01)
    with serve() as site:
        yield site


def fetched(url: str, folder: Path, sha256: str | None = None, **more: Any) -> bytes:
    options = {"timeout_seconds": 5, "retries": 0, "allow_private_addresses": True} | more
    fetch(url, folder / "file.bin", sha256, **options)
    assert [path.name for path in folder.iterdir()] == ["file.bin"]
    return (folder / "file.bin").read_bytes()


def refusal(url: str, folder: Path, **more: Any) -> FetchError:
    options = {"timeout_seconds": 0.5, "retries": 0, "allow_private_addresses": True} | more
    with pytest.raises(FetchError) as error:
        fetch(url, folder / "file.bin", **options)
    assert not list(folder.iterdir())
    return error.value


def test_file_comes_over_http(site: Site, tmp_path: Path) -> None:
    assert fetched(f"{site.url}/text/hello", tmp_path) == b"hello"
    assert site.headers[0]["User-Agent"].startswith("captioning-download/")


def test_file_is_copied_from_disk_and_stays_there(tmp_path: Path) -> None:
    source = tmp_path / "a source%20#1.bin"
    source.write_bytes(content(3_000_000))
    (tmp_path / "target").mkdir()
    assert fetched(source.as_uri(), tmp_path / "target") == source.read_bytes()
    assert not source.samefile(tmp_path / "target" / "file.bin")


def test_failure_that_may_pass_is_tried_again(site: Site, tmp_path: Path) -> None:
    assert fetched(f"{site.url}/flaky/hello", tmp_path, retries=2) == JPEG + b"hello"
    assert site.requests["/flaky/hello"] == 3


def test_attempts_end_after_the_retries_allowed(site: Site, tmp_path: Path) -> None:
    assert refusal(f"{site.url}/busy/hello", tmp_path, retries=1).reason == "http-503"
    assert site.requests["/busy/hello"] == 2


def test_failure_that_will_not_pass_is_not_tried_again(site: Site, tmp_path: Path) -> None:
    error = refusal(f"{site.url}/gone/hello", tmp_path, retries=5)
    assert site.requests["/gone/hello"] == 1
    sentence = f"{site.url}/gone/hello answered 404 Not Found"
    assert str(error) == f"{sentence}; check the address in the section download, or try again later"


def test_server_that_asks_to_wait_is_left_alone_for_so_long(site: Site, tmp_path: Path) -> None:
    assert fetched(f"{site.url}/wait/1/x", tmp_path, retries=1) == JPEG + b"1/x"
    first, second = site.times
    assert second - first >= 1


@pytest.mark.parametrize(
    ("asked", "seconds"), [("3600", "3,600"), ("Fri, 31 Dec 2100 23:59:59 GMT", r"\d,\d{3},\d{3},\d{3}")]
)
def test_server_that_asks_to_wait_too_long_is_not_asked_again(
    asked: str, seconds: str, site: Site, tmp_path: Path
) -> None:
    error = refusal(f"{site.url}/wait/{quote(asked)}/x", tmp_path, retries=5)
    assert error.reason == "http-429"
    assert re.search(f"answered 429 Too Many Requests and asks to wait {seconds} seconds", str(error))
    assert site.requests.total() == 1


def test_answer_cut_short_is_a_failure(site: Site, tmp_path: Path) -> None:
    error = refusal(f"{site.url}/short/hello", tmp_path)
    assert error.reason == "cut-short"
    assert f"{site.url}/short/hello ended before its end" in str(error)


def test_silent_server_is_given_up(site: Site, tmp_path: Path) -> None:
    error = refusal(f"{site.url}/silent/hello", tmp_path)
    assert error.reason == "timeout"
    assert "was silent for 0.5 seconds" in str(error)


def test_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    error = refusal(f"http://127.0.0.1:{port}/x", tmp_path)
    assert error.reason == "connection"
    assert "Connect call failed" in str(error) or "refused" in str(error)


def test_name_that_no_server_has_is_named_and_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def look_up(name: str, *_: Any, **__: Any) -> Any:
        asked.append(name)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    error = refusal("http://no.such.example/x", tmp_path, retries=5)
    assert error.reason == "unknown-host"
    assert "the name of the server is not known" in str(error)
    assert asked == ["no.such.example"]


def test_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    error = refusal((tmp_path / "absent.zip").as_uri(), tmp_path / "target", retries=5)
    assert error.reason == "missing"
    assert "absent.zip does not exist" in str(error)


@pytest.mark.parametrize(
    "address", ["data/images.zip", "nonsense://example.org/x", "", "https://", "http://host:port/x", "://x"]
)
def test_address_that_cannot_be_opened_is_named(address: str, tmp_path: Path) -> None:
    error = refusal(address, tmp_path, retries=5)
    assert error.reason == "unusable-url"
    assert address in str(error)


@pytest.mark.skipif(importlib.util.find_spec("gcsfs") is not None, reason="gcsfs is installed")
def test_store_whose_package_is_missing_says_how_to_get_it(tmp_path: Path) -> None:
    error = refusal("gs://bucket/images.zip", tmp_path, retries=5)
    assert error.reason == "missing-package"
    assert "pip install 'captioning[cloud]'" in str(error)


def test_wrong_checksum_is_refused_with_both_and_nothing_is_kept(site: Site, tmp_path: Path) -> None:
    right, wrong = hashlib.sha256(b"hello").hexdigest(), "0" * 64
    (tmp_path / "good").mkdir()
    assert fetched(f"{site.url}/text/hello", tmp_path / "good", right.upper()) == b"hello"
    (tmp_path / "bad").mkdir()
    (tmp_path / "unfinished").mkdir()
    with pytest.raises(
        ValueError, match=f"has the sha256 {right}, expected {wrong}; it was changed or damaged"
    ):
        fetched(f"{site.url}/text/hello", tmp_path / "bad", wrong, unfinished=tmp_path / "unfinished")
    assert not [*(tmp_path / "bad").iterdir(), *(tmp_path / "unfinished").iterdir()]


def test_web_page_instead_of_a_zip_is_refused(site: Site, tmp_path: Path) -> None:
    message = r"/page/images.zip is not a zip file: it begins with b'\\n<!DOCTYPE html><html>log in first"
    with pytest.raises(ValueError, match=message):
        fetch(
            f"{site.url}/page/images.zip",
            tmp_path / "images.zip",
            timeout_seconds=1,
            retries=0,
            allow_private_addresses=True,
        )
    assert not list(tmp_path.iterdir())


def unsafe_zip(path: Path, member: str, *, is_link: bool = False) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good.jpg", JPEG)
        member_info = zipfile.ZipInfo(member)
        member_info.external_attr = ((stat.S_IFLNK if is_link else stat.S_IFREG) | 0o644) << 16
        archive.writestr(member_info, "/etc/passwd")
    return path


@pytest.mark.parametrize(
    "member", ["../out.jpg", "a/../../out.jpg", "/etc/out.jpg", "..\\out.jpg", "C:\\out.jpg"]
)
def test_archive_with_a_member_outside_the_folder_is_refused(member: str, tmp_path: Path) -> None:
    source = unsafe_zip(tmp_path / "source.zip", member)
    with pytest.raises(ValueError, match=re.escape(f"its member {member!r} is a path that leads out")):
        fetch(source.as_uri(), tmp_path / "images.zip", timeout_seconds=1, retries=0)
    assert not (tmp_path / "images.zip").exists()


def test_archive_with_a_link_is_refused(tmp_path: Path) -> None:
    source = unsafe_zip(tmp_path / "source.zip", "out.jpg", is_link=True)
    with pytest.raises(ValueError, match=r"its member 'out\.jpg' is a symbolic link"):
        fetch(source.as_uri(), tmp_path / "images.zip", timeout_seconds=1, retries=0)


def test_file_larger_than_the_disk_is_refused_before_it_is_fetched(site: Site, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"1,000,000\.0 GB are still to be fetched.* has [\d,.]+ GB free"):
        fetched(f"{site.url}/long/{10**15}", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, where nothing can be written")
def test_full_disk_is_one_clear_message(site: Site, tmp_path: Path) -> None:
    transfer = fetching._Transfer(
        f"{site.url}/text/hello", tmp_path / "file.bin", tmp_path, needs_validator=True
    )
    transfer.partial.symlink_to("/dev/full")
    with pytest.raises(ValueError, match=r"the disk of .* is full: .*free some space.*run again"):
        fetched(f"{site.url}/text/hello", tmp_path, retries=5, unfinished=tmp_path)
    assert site.requests["/text/hello"] == 1


# --- going on where a transfer ended


class Resuming:
    """A file of 3 MB at the site, and a place to fetch it to again and again."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.site, self.folder = site, folder
        self.whole = site.files["a.bin"] = content(3 * MEGABYTE)
        self.url = f"{site.url}/file/a.bin"
        (folder / "unfinished").mkdir()

    def fetch(self, retries: int = 0, sha256: str | None = None) -> bytes:
        path = self.folder / "a.bin"
        fetch(
            self.url,
            path,
            sha256,
            timeout_seconds=5,
            retries=retries,
            allow_private_addresses=True,
            unfinished=self.folder / "unfinished",
        )
        return path.read_bytes()

    def interrupt(self) -> None:
        """Fetch about two thirds."""
        self.site.cuts = [2 * MEGABYTE]
        with pytest.raises(FetchError, match=r"ended before its end|could not be read"):
            self.fetch()
        assert not (self.folder / "a.bin").exists()


@pytest.fixture
def resuming(site: Site, tmp_path: Path) -> Resuming:
    return Resuming(site, tmp_path)


def test_connection_reset_in_mid_file_goes_on_at_the_next_byte(resuming: Resuming) -> None:
    resuming.site.cuts = [2 * MEGABYTE]
    assert resuming.fetch(retries=1) == resuming.whole
    again = resuming.site.headers[1]
    assert again["If-Range"] == '"first"'
    assert re.fullmatch(r"bytes=[1-9]\d+-", again["Range"])


def test_next_run_fetches_only_what_is_missing(resuming: Resuming) -> None:
    resuming.interrupt()
    assert resuming.fetch() == resuming.whole
    start = int(resuming.site.headers[1]["Range"].removeprefix("bytes=").rstrip("-"))
    wait_until(lambda: resuming.site.num_bytes_sent == 2 * MEGABYTE + len(resuming.whole) - start)
    assert start > MEGABYTE


def test_transfer_that_gains_something_each_time_is_not_given_up(resuming: Resuming) -> None:
    resuming.whole = resuming.site.files["a.bin"] = content(8 * MEGABYTE)
    resuming.site.cuts = [int(1.5 * MEGABYTE)] * 4
    assert resuming.fetch(retries=1) == resuming.whole


FETCH = """
import sys
from pathlib import Path
from captioning.downloads.fetching import fetch
url, path, unfinished = sys.argv[1:]
fetch(url, Path(path), timeout_seconds=60, retries=0, allow_private_addresses=True, unfinished=Path(unfinished))
"""


def test_killed_process_goes_on_where_it_ended(resuming: Resuming, tmp_path: Path) -> None:
    resuming.site.stalls_at = 2 * MEGABYTE
    arguments = [resuming.url, str(tmp_path / "a.bin"), str(tmp_path / "unfinished")]
    with subprocess.Popen([sys.executable, "-c", FETCH, *arguments]) as child:
        wait_until(
            lambda: any(
                p.stat().st_size > MEGABYTE for p in (tmp_path / "unfinished").iterdir() if not p.suffix
            )
        )
        child.kill()
    resuming.site.stalls_at = None
    assert resuming.fetch() == resuming.whole
    assert int(resuming.site.headers[1]["Range"].removeprefix("bytes=").rstrip("-")) > MEGABYTE


def test_file_that_changed_meanwhile_is_fetched_anew(resuming: Resuming) -> None:
    resuming.interrupt()
    resuming.whole = resuming.site.files["a.bin"] = content(3 * MEGABYTE, "changed")
    resuming.site.etag = '"second"'
    assert resuming.fetch() == resuming.whole


def test_server_that_ignores_ranges_is_asked_for_the_whole(resuming: Resuming) -> None:
    resuming.interrupt()
    resuming.site.knows_ranges = False
    assert resuming.fetch() == resuming.whole


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_file_that_cannot_be_told_from_a_changed_one_is_fetched_anew(
    etag: str | None, resuming: Resuming
) -> None:
    resuming.site.etag = etag
    resuming.interrupt()
    assert resuming.fetch() == resuming.whole
    assert "Range" not in resuming.site.headers[1]


def test_checksum_tells_a_file_from_a_changed_one(resuming: Resuming) -> None:
    resuming.site.etag = None
    sha256 = hashlib.sha256(resuming.whole).hexdigest()
    resuming.site.cuts = [2 * MEGABYTE]
    with pytest.raises(FetchError):
        resuming.fetch(sha256=sha256)
    assert resuming.fetch(sha256=sha256) == resuming.whole
    assert "Range" in resuming.site.headers[1]


def test_other_length_of_the_rest_starts_anew(resuming: Resuming) -> None:
    resuming.interrupt()
    resuming.whole = resuming.site.files["a.bin"] = content(4 * MEGABYTE, "changed")  # and the tag is a lie
    assert resuming.fetch(retries=1) == resuming.whole


def test_finished_file_is_not_fetched_again_unless_it_changed(resuming: Resuming) -> None:
    resuming.fetch()
    assert resuming.fetch() == resuming.whole
    wait_until(lambda: resuming.site.num_bytes_sent == len(resuming.whole))
    resuming.whole = resuming.site.files["a.bin"] = content(2 * MEGABYTE, "changed")
    resuming.site.etag = '"second"'
    assert resuming.fetch() == resuming.whole


def test_finished_and_checked_file_is_not_even_asked_for(resuming: Resuming) -> None:
    sha256 = hashlib.sha256(resuming.whole).hexdigest()
    for _ in range(2):
        assert resuming.fetch(sha256=sha256) == resuming.whole
    assert resuming.site.requests.total() == 1


def test_corrected_file_of_this_machine_is_copied_again(tmp_path: Path) -> None:
    source, target, unfinished = tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "unfinished"
    unfinished.mkdir()
    for text in ("wrong", "right", "right too"):
        source.write_text(text)
        fetch(source.as_uri(), target, timeout_seconds=5, retries=0, unfinished=unfinished)
        assert target.read_text() == text


# --- single pictures


def fetch_one(
    url: str,
    max_bytes: int = 1_000_000,
    max_seconds: float = 10.0,
    timeout_seconds: float = 5.0,
    allow_private_addresses: bool = True,
) -> Picture:
    async def fetch_it() -> Picture:
        async with open_session(
            timeout_seconds=timeout_seconds, allow_private_addresses=allow_private_addresses
        ) as session:
            return await fetch_image(session, url, max_bytes=max_bytes, max_seconds=max_seconds)

    return asyncio.run(fetch_it())


def image_refusal(url: str, **limits: Any) -> FetchError:
    with pytest.raises(FetchError) as error:
        fetch_one(url, **limits)
    return error.value


def test_picture_comes_with_the_suffix_of_its_address(site: Site) -> None:
    assert fetch_one(f"{site.url}/ok/a.JPEG?size=b.png") == Picture(
        encoded=JPEG + b"a.JPEG?size=b.png", suffix=".jpeg"
    )


@pytest.mark.parametrize("name", ["photo", "photo.php", "v1.0/photo"])
def test_suffix_follows_the_content_where_the_address_has_none(name: str, site: Site) -> None:
    assert fetch_one(f"{site.url}/ok/{name}").suffix == ".jpg"


def test_known_types_of_pictures_are_those_that_can_be_decoded(shared: Path) -> None:
    files = [path for path in (shared / "data").rglob("*") if path.suffix in {".jpg", ".png"}][:200]
    assert files
    for path in files:
        assert pictures._suffix("http://host/x", path.read_bytes()[:100], "") == path.suffix


@pytest.mark.parametrize("kind", ["page/a.jpg", "html/a.jpg"])
def test_web_page_called_a_picture_is_refused(kind: str, site: Site) -> None:
    error = image_refusal(f"{site.url}/{kind}")
    assert error.reason == "web-page"
    assert f"{site.url}/{kind} is a web page, not a picture" in str(error)


def test_what_begins_like_no_picture_is_refused_with_its_first_bytes(site: Site) -> None:
    error = image_refusal(f"{site.url}/text/%25PDF-1.7")
    assert error.reason == "not-a-picture"
    assert "begins like no known picture: b'%PDF-1.7' and is called text/plain" in str(error)


def test_empty_answer_is_refused(site: Site) -> None:
    assert image_refusal(f"{site.url}/text/").reason == "empty"


@pytest.mark.parametrize("path", ["endless/a.jpg", "long/2000000"])
def test_too_large_picture_is_cut(path: str, site: Site) -> None:
    error = image_refusal(f"{site.url}/{path}")
    assert error.reason == "too-large"
    assert "has more than 1,000,000 bytes" in str(error)


@pytest.mark.parametrize("kind", ["drip", "dripping_head"])
def test_dripping_server_is_cut_although_it_is_never_silent(kind: str, site: Site) -> None:
    error = image_refusal(f"{site.url}/{kind}/a.jpg", max_seconds=0.5)
    assert error.reason == "too-slow"
    assert "was not complete after 0.5 seconds" in str(error)


def test_connection_reset_is_a_failure_that_may_pass(site: Site) -> None:
    error = image_refusal(f"{site.url}/reset/a.jpg")
    assert error.reason in {"cut-short", "connection"}
    assert not error.is_lasting


# --- redirects and private addresses


def test_redirect_is_followed(site: Site) -> None:
    assert fetch_one(f"{site.url}/to/{quote(f'{site.url}/ok/a.jpg')}").encoded == JPEG + b"a.jpg"


def test_redirect_loop_ends(site: Site) -> None:
    error = image_refusal(f"{site.url}/loop/a.jpg")
    assert error.reason == "redirect-loop"
    assert "leads through more than 10 redirects" in str(error)
    assert site.requests["/loop/a.jpg"] <= 11


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/x", "s3://bucket/key"])
def test_redirect_to_anything_but_http_is_refused(target: str, site: Site) -> None:
    error = image_refusal(f"{site.url}/to/{quote(target, safe='')}")
    assert error.reason == "bad-redirect"
    assert f"redirects to {target}" in str(error)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "224.0.0.1", "239.1.1.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "240.0.0.1", "::1", "::",
        "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1",
        "64:ff9b::a00:1", "2002:7f00:1::", "2002:a00:1::", "2001:db8::1", "::127.0.0.1", "fec0::2", "4000::1",
        "64:ff9b:1::7f00:1", "192.0.0.192", "168.63.129.16",
    ],
)  # fmt: skip
def test_address_that_is_not_of_the_public_internet_is_known(address: str) -> None:
    assert not addresses.is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"]
)
def test_public_address_is_known(address: str) -> None:
    assert addresses.is_public(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
def test_this_machine_is_refused(host: str, site: Site) -> None:
    port = site.url.rpartition(":")[2]
    error = image_refusal(f"http://{host}:{port}/ok/a.jpg", allow_private_addresses=False)
    assert error.reason == "private-address"
    assert "is not an address of the public internet; download.allow_private_addresses allows it" in str(
        error
    )
    assert not site.requests


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001", "0177.0.0.1"])
def test_this_machine_is_not_reached_by_an_odd_spelling(host: str, site: Site) -> None:
    port = site.url.rpartition(":")[2]
    error = image_refusal(f"http://{host}:{port}/ok/a.jpg", allow_private_addresses=False)
    assert error.reason in {"private-address", "unusable-url", "unknown-host"}
    assert not site.requests


def test_archive_from_a_private_address_is_refused_too(site: Site, tmp_path: Path) -> None:
    assert refusal(f"{site.url}/text/x", tmp_path, allow_private_addresses=False).reason == "private-address"


@pytest.fixture
def public_site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Serve at 127.0.0.1, the one address of this machine that counts as public here."""
    is_public = addresses.is_public
    monkeypatch.setattr(addresses, "is_public", lambda address: address == "127.0.0.1" or is_public(address))
    with serve() as site:
        yield site


@pytest.fixture
def private_site(public_site: Site) -> Iterator[Site]:
    """Serve at 127.0.0.2, on the same port."""
    with serve("127.0.0.2", int(public_site.url.rpartition(":")[2])) as site:
        yield site


def test_redirect_to_a_private_address_is_refused(public_site: Site, private_site: Site) -> None:
    assert fetch_one(f"{public_site.url}/ok/a.jpg", allow_private_addresses=False)
    for target in (f"{private_site.url}/ok/a.jpg", "http://169.254.169.254/latest/meta-data/"):
        error = image_refusal(f"{public_site.url}/to/{quote(target, safe='')}", allow_private_addresses=False)
        assert error.reason == "private-address"
    assert not private_site.requests


def resolver(*answers: str) -> tuple[Callable[..., Any], list[str]]:
    """Return a stand-in for `socket.getaddrinfo` that gives one answer after the other, and whom it was asked for."""
    asked: list[str] = []
    given = iter(answers)

    def look_up(host: str, port: int, *_: Any, **__: Any) -> Any:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (next(given), port))]

    return look_up, asked


def test_name_of_a_private_address_is_refused(
    public_site: Site, private_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up, asked = resolver("127.0.0.2")
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    url = f"http://pictures.example:{public_site.url.rpartition(':')[2]}/ok/a.jpg"
    assert image_refusal(url, allow_private_addresses=False).reason == "private-address"
    assert asked == ["pictures.example"]
    assert not private_site.requests


def test_connection_goes_to_the_very_address_that_was_checked(
    public_site: Site, private_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up, asked = resolver("127.0.0.1", "127.0.0.2", "127.0.0.2")  # a name that changes its answer
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    url = f"http://pictures.example:{public_site.url.rpartition(':')[2]}/ok/a.jpg"
    assert fetch_one(url, allow_private_addresses=False).encoded == JPEG + b"a.jpg"
    assert asked == ["pictures.example"]
    assert public_site.requests and not private_site.requests


def test_proxy_of_the_environment_may_be_private(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", site.url)
    monkeypatch.delenv("no_proxy", raising=False)
    assert image_refusal("http://pictures.example/a.jpg", allow_private_addresses=False).reason == "http-404"
    assert site.requests["http://pictures.example/a.jpg"] == 1  # asked as a proxy is


# --- object stores


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """Run an S3 server in a process of its own; return the address of an empty bucket, which this process can open."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    patch = pytest.MonkeyPatch()
    patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        patch.setenv(name, "test")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:

        def answers() -> bool:
            with socket.socket() as trial:
                return trial.connect_ex(("127.0.0.1", port)) == 0

        try:
            wait_until(answers)
            import s3fs

            s3fs.S3FileSystem(skip_instance_cache=True).mkdir("pictures")
            yield "s3://pictures"
        finally:
            server.kill()
            patch.undo()


def put(address: str, body: bytes) -> None:
    import s3fs

    s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False).pipe(address, body)


def test_file_and_picture_come_from_s3(bucket: str, tmp_path: Path) -> None:
    put(f"{bucket}/a b.jpg", JPEG + content(2 * MEGABYTE))
    assert fetched(f"{bucket}/a b.jpg", tmp_path) == JPEG + content(2 * MEGABYTE)
    assert fetch_one(f"{bucket}/a b.jpg", max_bytes=3 * MEGABYTE).suffix == ".jpg"
    assert image_refusal(f"{bucket}/a b.jpg", max_bytes=MEGABYTE).reason == "too-large"
    assert image_refusal(f"{bucket}/absent.jpg").reason == "missing"


def test_transfer_from_s3_goes_on_at_the_next_byte_unless_the_object_changed(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{bucket}/a.bin"
    whole = content(3 * MEGABYTE)
    put(url, whole)
    write = fetching.FileIO.write
    written: list[int] = []

    class Interrupted(fetching.FileIO):
        def write(self, chunk: Any) -> int:
            if sum(written) >= 2 * MEGABYTE and len(written) < 1000:
                written.append(10**9)
                raise KeyboardInterrupt
            written.append(len(chunk))
            return write(self, chunk)

    (tmp_path / "unfinished").mkdir()

    def fetch_it() -> bytes:
        fetch(url, tmp_path / "a.bin", timeout_seconds=5, retries=0, unfinished=tmp_path / "unfinished")
        return (tmp_path / "a.bin").read_bytes()

    monkeypatch.setattr(fetching, "FileIO", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch_it()
    monkeypatch.undo()
    assert os.environ["AWS_ENDPOINT_URL"]
    partial = next(path for path in (tmp_path / "unfinished").iterdir() if not path.suffix)
    assert partial.stat().st_size >= 2 * MEGABYTE
    partial.write_bytes(b"?" + partial.read_bytes()[1:])  # a mark: these bytes are not asked for again
    assert fetch_it() == b"?" + whole[1:]
    put(url, content(3 * MEGABYTE, "changed"))
    assert fetch_it() == content(3 * MEGABYTE, "changed")
