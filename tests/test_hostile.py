"""A real service under hostile input: refused in bounded time and memory, and good pictures are captioned on."""

import json
import os
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hostile
import httpx
import psutil
import pytest
from hostile import FILES, GOOD, REQUESTS, Sent
from local_site import Site
from local_site import serve as serve_site
from served import Served, serve
from tiny_captioner import save_captioner

PUBLIC = "127.0.0.5"
"""Stands for the public internet: the service may ask it."""
MAX_SECONDS = 60.0
"""For an answer, on a busy machine; the service's own limits are a few seconds."""
MAX_GROWN_BYTES = 500_000_000
"""Of the service and its decoders together, while input comes that would unpack to many gigabytes."""
ADDRESSES = list(hostile.addresses("http://public", "http://private:1"))


@pytest.fixture(scope="module")
def sites() -> Iterator[tuple[Site, Site]]:
    """A server that may be asked, and one that may not."""
    with serve_site(PUBLIC) as public, serve_site() as private:
        yield public, private


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, sites: tuple[Site, Site]) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("home")
    save_captioner(home / "model", seed=1)
    ports = " ".join(own.url.rpartition(":")[2] for own in sites)
    options = {
        "model": str(home / "model"),
        "max-bytes": "2000000",
        "max-request-bytes": "6000000",
        "max-pixels": "4000000",
        "decode-seconds": "5",
        "fetch-seconds": "2",
        "head-seconds": "2",
        "body-seconds": "2",
        "allowed-networks": PUBLIC,
        "fetch-ports": f"80 443 {ports}",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    with serve(*words, home=home) as running:
        caption(running)
        running.first_bytes = memory(running)  # type: ignore[attr-defined]
        yield running


def memory(service: Served) -> int:
    """Return the bytes in memory of the service and the processes it started."""
    parent = psutil.Process(service.process.pid)
    return sum(own.memory_info().rss for own in [parent, *parent.children(recursive=True)])


def caption(service: Served) -> None:
    """Have a good picture captioned."""
    answer = httpx.post(f"{service.url}/captions", json={"images": [{"base64": GOOD}]}, timeout=MAX_SECONDS)
    assert answer.status_code == 200, answer.text
    assert answer.json()["images"][0]["answers"][0]["captions"][0]["text"]


def refuse(service: Served, sent: Sent) -> None:
    began = time.monotonic()
    status = sent(service.url)
    assert 400 <= status < 500, status
    assert time.monotonic() - began < MAX_SECONDS
    caption(service)
    assert memory(service) - service.first_bytes < MAX_GROWN_BYTES  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_is_refused(service: Served, name: str) -> None:
    refuse(service, hostile.file(FILES[name]))


@pytest.mark.parametrize("name", ADDRESSES)
def test_a_hostile_address_is_refused_and_nothing_private_is_asked(
    service: Served, sites: tuple[Site, Site], name: str
) -> None:
    public, private = sites
    refuse(service, hostile.address(hostile.addresses(public.url, private.url)[name]))
    assert not private.requests


@pytest.mark.parametrize("name", REQUESTS)
def test_a_hostile_request_is_refused(service: Served, name: str) -> None:
    refuse(service, REQUESTS[name])


def test_what_starves_the_service_leaves_it_to_others(service: Served) -> None:
    """A hundred connections that say nothing further, and all decoders at work on what takes too long."""
    host, port = service.url.removeprefix("http://").split(":")
    silent = [socket.create_connection((host, int(port)), timeout=60) for _ in range(100)]
    try:
        for own in silent:
            own.sendall(b"POST /captions HTTP/1.1\r\nHost: localhost\r\n")
        with ThreadPoolExecutor(4) as pool:
            slow = [pool.submit(hostile.file(FILES["BMP of a million runs"]), service.url) for _ in range(4)]
            assert httpx.get(f"{service.url}/healthz", timeout=MAX_SECONDS).status_code == 200
            caption(service)
            assert all(400 <= own.result() < 500 for own in slow)
        assert all(own.recv(9).startswith(b"HTTP/1.1") for own in silent)
    finally:
        for own in silent:
            own.close()


def test_nothing_in_the_service_loads_a_pickle() -> None:
    """Weights are safetensors; whoever unpickles a file runs what it says."""
    package = Path(__file__).parents[1] / "captioning"
    loading = re.compile(r"\b(?:pickle\.loads?|torch\.load|joblib\.load|allow_pickle=True)")
    found = [
        f"{path.relative_to(package)}: {line.strip()}"
        for path in sorted(package.rglob("*.py"))
        for line in path.read_text().splitlines()
        if loading.search(line) and "weights_only=True" not in line
    ]
    assert found == []


def test_a_name_in_a_request_opens_no_file(service: Served, tmp_path: Path) -> None:
    """Who opens a pipe that nobody writes to waits for ever: the request would not be answered in time."""
    named = tmp_path / "secret.png"
    os.mkfifo(named)
    for sent in (
        hostile.address(str(named)),
        hostile.address(named.as_uri()),
        hostile.body(hostile.form((f'name="images"; filename="{named}"', "")), hostile.MULTIPART),
        hostile.body(json.dumps({"images": [{"base64": str(named)}]})),
        lambda url: httpx.get(f"{url}/search/thumbnails/{named}").status_code,
    ):
        assert 400 <= sent(service.url) < 500
