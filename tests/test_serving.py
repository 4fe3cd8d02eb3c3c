"""`captioning serve` as a real process: what it answers, refuses, counts and logs."""

import base64
import io
import json
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tantivy
from PIL import Image
from served import ROOT, Served, serve
from tiny_captioner import save_captioner

from captioning.captioner import Captioner
from captioning.cli import main
from captioning.collection import Collection, picture_id
from captioning.images import decode
from captioning.serving.settings import ServiceSettings

MAX_IMAGES, MAX_REQUEST_BYTES = 8, 200_000


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    save_captioner(folder / "first", seed=1)
    save_captioner(folder / "second", seed=2)
    return folder


@pytest.fixture(scope="module")
def service(home: Path) -> Iterator[Served]:
    limits = {
        "images": MAX_IMAGES,
        "request-bytes": MAX_REQUEST_BYTES,
        "memory-bytes": MAX_REQUEST_BYTES,
    }
    stop = ["--stop-seconds", "1"]
    options = [word for name, value in limits.items() for word in (f"--max-{name}", str(value))]
    models = ["--model", str(home / "first"), "--challenger", str(home / "second")]
    with serve(*models, *options, *stop, home=home) as running:
        yield running


def picture(seed: int, form: str = "PNG") -> bytes:
    """Return the file of a picture of 40 x 30 random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, form)
    return written.getvalue()


def as_base64(seed: int) -> dict[str, str]:
    return {"base64": base64.b64encode(picture(seed)).decode()}


def post(service: Served, **body: Any) -> httpx.Response:
    return httpx.post(f"{service.url}/captions", json=body, timeout=60)


def captions(answer: httpx.Response) -> list[list[str]]:
    """Return the captions of the first model for each picture."""
    assert answer.status_code == 200, answer.text
    return [[own["text"] for own in image["answers"][0]["captions"]] for image in answer.json()["images"]]


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Return status and detail of a refusal."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body = answer.json()
    assert body["status"] == answer.status_code and body["type"] == "about:blank" and body["title"]
    return answer.status_code, body["detail"]


# --- captions


def test_a_request_gets_the_captions_that_the_model_itself_makes(service: Served, home: Path) -> None:
    images = [decode(picture(seed)) for seed in range(3)]
    expected = Captioner.load(home / "first").caption(images, top=2)
    answer = post(service, images=[as_base64(seed) for seed in range(3)], top=2)
    assert captions(answer) == [[own.text for own in each] for each in expected]
    first = answer.json()["images"][0]
    assert first["image"] == "image 1" and first["error"] is None and first["preview"] is None
    assert first["answers"][0]["name"] == "first" and first["answers"][0]["version"] is None
    made = [own["probability"] for own in first["answers"][0]["captions"]]
    assert made == pytest.approx([np.exp(own.log_probability) for own in expected[0]], rel=1e-4)


def test_a_form_with_files_gets_the_same_answer(service: Served) -> None:
    files = [("images", (f"{seed}.jpg", picture(seed), "image/png")) for seed in range(3)]
    answer = httpx.post(f"{service.url}/captions", files=files, data={"top": "2"}, timeout=60)
    assert [own["image"] for own in answer.json()["images"]] == ["0.jpg", "1.jpg", "2.jpg"]
    assert captions(answer) == captions(post(service, images=[as_base64(seed) for seed in range(3)], top=2))


def test_concurrent_requests_share_batches_and_each_gets_its_own_captions(service: Served) -> None:
    alone = {seed: captions(post(service, images=[as_base64(seed)], top=3)) for seed in range(6)}
    with ThreadPoolExecutor(6) as pool:
        seeds = [*range(6)] * 5
        asked = pool.map(lambda seed: post(service, images=[as_base64(seed)], top=3), seeds)
        for seed, answer in zip(seeds, asked, strict=True):
            assert captions(answer) == alone[seed]


def test_attention_says_where_the_model_looked_at_each_word(service: Served) -> None:
    answer = post(service, images=[as_base64(0)], attention=True, top=2)
    for caption in answer.json()["images"][0]["answers"][0]["captions"]:
        assert caption["words"] == caption["text"].split()
        weights = np.array(caption["attention"]["weights"])
        assert weights.shape == (len(caption["words"]), 16)
        assert (caption["attention"]["height"], caption["attention"]["width"]) == (4, 4)
        assert weights.sum(axis=1) == pytest.approx(1, abs=1e-3)
    plain = post(service, images=[as_base64(0)]).json()["images"][0]["answers"][0]["captions"][0]
    assert plain["words"] is None and plain["attention"] is None


def test_the_challenger_answers_beside_the_champion_in_the_order_asked(service: Served, home: Path) -> None:
    answer = post(service, images=[as_base64(0)], models=["challenger", "champion"])
    first, second = answer.json()["images"][0]["answers"]
    assert (first["model"], first["name"], second["model"], second["name"]) == (
        "challenger",
        "second",
        "champion",
        "first",
    )
    (expected,) = Captioner.load(home / "second").caption([decode(picture(0))])
    assert first["captions"][0]["text"] == expected[0].text


def test_a_broken_picture_says_why_and_the_others_are_captioned(service: Served) -> None:
    broken = {"base64": base64.b64encode(b"<html>").decode(), "name": "page.jpg"}
    answer = post(service, images=[as_base64(0), broken, as_base64(1)])
    first, second, third = answer.json()["images"]
    assert answer.status_code == 200 and first["answers"] and third["answers"]
    assert second["image"] == "page.jpg" and second["answers"] == []
    assert second["error"]["status"] == 415 and "not a picture" in second["error"]["detail"]


def test_a_request_of_broken_pictures_alone_is_a_problem_with_each_reason(service: Served) -> None:
    broken = {"base64": base64.b64encode(b"<html>").decode()}
    answer = post(service, images=[broken, {"base64": "no base64!"}])
    status, detail = problem(answer)
    assert status == 415 and "not a picture" in detail and "send a JPEG" in detail
    assert [own["error"]["status"] for own in answer.json()["images"]] == [415, 422]


# --- refusals


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 422, "images: Field required"),
        ({"images": []}, 422, "images: List should have at least 1 item"),
        ({"images": [{}]}, 422, "give either url or base64"),
        (
            {"images": [{"url": "https://a.example/b.jpg", "base64": "aaaa"}]},
            422,
            "give either url or base64",
        ),
        (
            {"images": [{"base64": "aaaa"}], "top": 0},
            422,
            "top: Input should be greater than or equal to 1, got 0",
        ),
        (
            {"images": [{"base64": "aaaa"}], "top": 11},
            422,
            "top is 11; at most 10 captions a picture are made",
        ),
        ({"images": [{"base64": "aaaa"}], "tpo": 1}, 422, "tpo: Extra inputs are not permitted"),
        (
            {"images": [{"base64": "aaaa"}], "models": ["best"]},
            422,
            "no model 'best' is in service; there are: champion, challenger",
        ),
        (
            {"images": [{"base64": "aaaa"}] * 9},
            413,
            "9 pictures in one request, more than 8; send several requests",
        ),
        (
            {"images": [{"base64": "a" * MAX_REQUEST_BYTES}]},
            413,
            "the request has more than 200,000 bytes; send fewer or smaller pictures",
        ),
    ],
)
def test_what_is_out_of_range_is_refused_with_what_to_do(
    service: Served, body: dict[str, Any], status: int, words: str
) -> None:
    found, detail = problem(post(service, **body))
    assert found == status and words in detail


@pytest.mark.parametrize(
    ("content", "kind", "status", "words"),
    [
        (b"{", "application/json", 400, "Invalid JSON"),
        (b"[" * 1_000, "application/json", 400, "Invalid JSON: recursion limit exceeded"),
        (b"[" * 50_000, "application/json", 413, "the JSON has more than 1,800 values; send fewer pictures"),
        (
            b"hello",
            "text/plain",
            415,
            "a body of type 'text/plain'; send application/json, or multipart/form-data",
        ),
        (b"hello", "multipart/form-data", 400, "the form cannot be read: Missing boundary"),
        (
            b'--x\r\nContent-Disposition: form-data; name="top"\r\n\r\n1\r\n--x--\r\n',
            "multipart/form-data; boundary=x; charset=undefined",
            400,
            "its content-type is wrong: decoding with 'undefined' codec failed",
        ),
    ],
)
def test_a_body_that_cannot_be_read_is_refused_with_what_to_do(
    service: Served, content: bytes, kind: str, status: int, words: str
) -> None:
    answer = httpx.post(
        f"{service.url}/captions",
        content=content,
        headers={"content-type": kind.encode("latin-1")},
        timeout=60,
    )
    found, detail = problem(answer)
    assert found == status and words in detail


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"images": "photo.jpg"}, "the form's field 'images' takes files (`curl -F images=@photo.jpg`)"),
        (
            {"image": "photo.jpg"},
            "a form has images, urls, top, attention, preview, models, and no field 'image'",
        ),
        ({"top": ["1", "2"]}, "the form has 2 fields 'top'; send one"),
        ({"top": "many"}, "top: Input should be a valid integer"),
    ],
)
def test_a_field_that_a_form_does_not_take_is_named(
    service: Served, fields: dict[str, Any], words: str
) -> None:
    files = (
        {"images": ("a.png", picture(0))} if "images" not in fields else {"urls": (None, "https://a.example")}
    )
    answer = httpx.post(f"{service.url}/captions", data=fields, files=files, timeout=60)
    assert problem(answer)[0] == 422 and words in problem(answer)[1]


def test_a_path_that_is_not_there_says_where_to_look(service: Served) -> None:
    assert problem(httpx.post(f"{service.url}/caption"))[0] in {404, 405}
    assert problem(httpx.put(f"{service.url}/captions")) == (
        405,
        "/captions takes no PUT; /docs lists what it takes",
    )


def test_more_bytes_than_the_service_holds_are_refused_until_others_are_answered(service: Served) -> None:
    body = json.dumps({"images": [as_base64(0) | {"name": "a" * 255}]}).encode()
    filling = body + b" " * (MAX_REQUEST_BYTES - len(body))
    host, _, port = service.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        head = f"POST /captions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(filling)}\r\n\r\n".encode() + filling[:-1])
        while (answer := post(service)).status_code == 422:
            pass  # it has not yet read what was sent before; these two bytes are given back at once
        status, detail = problem(answer)
        assert (
            status == 503 and "bytes of requests are in work" in detail and "send it again in 1 s" in detail
        )
        assert answer.headers["retry-after"] == "1"
        connection.sendall(filling[-1:])
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    assert post(service, images=[as_base64(0)]).status_code == 200


# --- what is said of the service


def test_models_says_who_captions_and_within_which_limits(service: Served) -> None:
    found = httpx.get(f"{service.url}/models").json()
    first, second = found["models"]
    assert (first["model"], first["name"], first["version"], first["method"]) == (
        "champion",
        "first",
        None,
        "beam",
    )
    assert first["attends"] is True and first["newer_version_failed"] is False
    assert second["model"] == "challenger"
    assert found["limits"]["max_images"] == MAX_IMAGES and found["limits"]["max_top"] == 10
    assert found["needs_key"] is False and found["second_opinions"] == []


def test_it_lives_and_is_ready(service: Served) -> None:
    assert httpx.get(f"{service.url}/healthz").json() == {"status": "alive"}
    assert httpx.get(f"{service.url}/readyz").json() == {"status": "ready"}


def test_metrics_count_requests_pictures_captions_and_name_the_version(service: Served) -> None:
    served = 'captioning_requests_total{method="POST",route="/captions",status="200"}'
    made = 'captioning_captions_total{model="champion"}'
    before = {name: service.metric(name) for name in (served, made, "captioning_batch_pictures_sum")}
    post(service, images=[as_base64(0), as_base64(1)], top=3)
    after = {name: service.metric(name) for name in before}
    assert [after[name] - before[name] for name in before] == [1, 6, 2]
    assert service.metric('captioning_model_info{model="champion",name="first",version=""}') == 1
    assert service.metric("captioning_queue_pictures") == 0
    assert service.metric("captioning_accepted_pictures") == 0


def test_a_request_is_one_line_of_the_log_under_its_own_id_without_its_pictures(service: Served) -> None:
    name = "secret-name"
    answer = httpx.post(
        f"{service.url}/captions",
        json={"images": [as_base64(0) | {"name": name}]},
        headers={"X-Request-ID": "mine-1", "X-API-Key": "secret-key"},
    )
    assert answer.headers["x-request-id"] == "mine-1"
    line = service.line_of("mine-1")
    assert (line["event"], line["method"], line["route"], line["status"]) == (
        "request",
        "POST",
        "/captions",
        200,
    )
    assert line["pictures"] == 1 and line["models"] == ["champion"] and line["seconds"] > 0
    assert "secret" not in json.dumps(service.log())


def test_methods_that_clients_make_up_are_counted_as_one(service: Served) -> None:
    for method in ("EVIL", "WORSE"):
        assert httpx.request(method, f"{service.url}/captions").status_code == 405
    assert service.metric('captioning_requests_total{method="other",route="none",status="405"}') >= 2
    assert "EVIL" not in httpx.get(f"{service.url}/metrics").text


def test_a_client_that_leaves_while_it_sends_is_no_failure(service: Served) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    head = "POST /captions HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: left\r\nContent-Length: 9\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(f"{head}Content-Type: application/json\r\n\r\n{{".encode())
    assert service.line_of("left")["status"] == 499
    assert not [line for line in service.log() if line["level"] == "error"]


def test_an_id_that_no_log_should_hold_is_replaced(service: Served) -> None:
    answer = httpx.get(f"{service.url}/models", headers={"X-Request-ID": 'x"}\t{"event": "forged'})
    assert len(answer.headers["x-request-id"]) == 32


def test_the_openapi_document_describes_both_bodies_with_examples_that_work(service: Served) -> None:
    document = httpx.get(f"{service.url}/openapi.json").json()
    content = document["paths"]["/captions"]["post"]["requestBody"]["content"]
    assert {*content} == {"application/json", "multipart/form-data"}
    for name, example in content["application/json"]["examples"].items():
        if "url" not in example["value"]["images"][0]:
            assert post(service, **example["value"]).status_code == 200, name
    named = {place["$ref"].rpartition("/")[2] for place in _references(document)}
    assert named <= {*document["components"]["schemas"]}


def _references(value: Any) -> Iterator[dict[str, str]]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value
        for own in value.values():
            yield from _references(own)
    elif isinstance(value, list):
        for own in value:
            yield from _references(own)


def test_the_openapi_page_loads_nothing_from_elsewhere(service: Served) -> None:
    answer = httpx.get(f"{service.url}/docs/", follow_redirects=True)
    assert answer.status_code == 200 and "swagger" in answer.text
    assert "http://" not in answer.text and "https://" not in answer.text


# --- search


def test_a_collection_is_searched_as_soon_as_it_is_there_and_pictures_are_shown_by_id(
    service: Served, home: Path, tmp_path: Path
) -> None:
    found = httpx.get(f"{service.url}/search", params={"q": "dog"})
    assert problem(found) == (
        404,
        "there is no collection to search; `captioning index FOLDER` on the server makes one",
    )
    path = tmp_path / "dog & <b>.png"
    path.write_bytes(picture(0))
    gone = str(tmp_path / "gone.png")
    rows = [
        {"image": str(path), "captions": [{"text": "a red dog runs"}], "error": None},
        {"image": gone, "captions": [{"text": "a cat sleeps"}], "error": None},
    ]
    Collection(home / "collection").update(rows, {str(path): "1", gone: "1"}, "test")

    (image,) = httpx.get(f"{service.url}/search", params={"q": "running dogs"}).json()["images"]
    assert image["name"] == "dog & <b>.png" and image["score"] > 0
    assert image["caption"] == [
        {"text": "a red ", "found": False},
        {"text": "dog", "found": True},
        {"text": " ", "found": False},
        {"text": "runs", "found": True},
    ]
    assert str(tmp_path) not in json.dumps(image)
    shown = httpx.get(f"{service.url}{image['thumbnail']}")
    assert shown.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(shown.content)).size == (40, 30)

    missing = httpx.get(f"{service.url}/search/thumbnails/{picture_id(gone)}")
    assert (
        problem(missing)[0] == 404
        and "is gone or unreadable; run `captioning index` again" in problem(missing)[1]
    )
    for odd in ("0" * 32, "..%2f..%2fetc%2fpasswd", str(path).replace("/", "%2f")):
        assert problem(httpx.get(f"{service.url}/search/thumbnails/{odd}"))[0] == 404
    assert httpx.get(f"{service.url}/models").json()["can_search"] is True

    rows[0]["captions"] = [{"text": "a blue horse"}]
    Collection(home / "collection").update(rows[:1], {str(path): "2"}, "test")
    names = _found(service, "horse")
    assert names == ["dog & <b>.png"], "what `captioning index` has changed since is found"


def _found(service: Served, query: str) -> list[str]:
    answer = httpx.get(f"{service.url}/search", params={"q": query}).json()
    return [own["name"] for own in answer["images"]]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({}, "q: Field required"),
        ({"q": ""}, "q: String should have at least 1 character"),
        ({"q": "a" * 501}, "q: String should have at most 500 characters"),
        ({"q": "dog", "top": 0}, "top: Input should be greater than or equal to 1"),
        ({"q": "dog", "top": 101}, "top is 101; at most 100 pictures are found"),
    ],
)
def test_a_search_out_of_range_is_refused(service: Served, query: dict[str, Any], words: str) -> None:
    status, detail = problem(httpx.get(f"{service.url}/search", params=query))
    assert status == 422 and words in detail


def test_an_index_of_an_earlier_release_is_refused_with_what_to_do(tmp_path: Path) -> None:
    schema = tantivy.SchemaBuilder()
    schema.add_text_field("path", stored=True, tokenizer_name="raw")
    (tmp_path / "old").mkdir()
    tantivy.Index(schema.build(), path=str(tmp_path / "old"))
    with pytest.raises(
        ValueError, match="an earlier release made it, remove it and run `captioning index FOLDER`"
    ):
        Collection(tmp_path / "old")


def test_a_query_searches_captions_and_no_other_field(tmp_path: Path) -> None:
    collection = Collection(tmp_path / "collection")
    rows = [{"image": "/secret/dog.png", "captions": [{"text": "a red cat"}], "error": None}]
    collection.update(rows, {"/secret/dog.png": "1"}, "test")
    for query in (
        'path:"/secret/dog.png"',
        "made_by:test",
        "path:[a TO z]",
        "*",
        "(",
        '"',
        "id:*",
        "cat AND dog^2",
    ):
        found = collection.search(query, top=5)
        assert len(found) == ("cat" in query), query
    assert collection.find(picture_id("/secret/dog.png")) == ("/secret/dog.png", "1")


# --- the command


def test_what_cannot_be_served_is_refused_with_what_to_do(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CAPTIONING_HOME", str(tmp_path))
    refusals = {
        ("--model", "nobody"): "nobody@champion is no version at sqlite:///",
        ("--model", "nobody/7"): "version 7 of nobody has lost its files",
        ("--model", str(home / "first"), "--max-top", "many"): "--max-top: Input should be a valid integer",
        (
            "--model",
            str(home / "first"),
            "--shadow-share",
            "2",
        ): "--shadow-share: Input should be less than or equal",
        ("--shadow-share", "0.5"): "--shadow-share needs a --challenger",
        (
            "--max-queue",
            "8",
        ): "--max-queue (8) is less than --max-images (16), so a whole request might never",
        ("--max-memory-bytes", "8"): "--max-memory-bytes (8) is less than --max-request-bytes (64,000,000)",
    }
    for options, words in refusals.items():
        with pytest.raises(SystemExit) as ended:
            main(["serve", *options])
        assert ended.value.code == 1
        assert words in capsys.readouterr().err


def test_every_setting_stands_in_the_documentation_with_its_default_and_meaning() -> None:
    text = (ROOT / "docs" / "service.md").read_text()
    for name, field in ServiceSettings.model_fields.items():
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `--{name.replace('_', '-')}` |")]
        assert row.endswith(f"| {field.description} |")


def test_every_route_stands_in_the_documentation(service: Served) -> None:
    text = (ROOT / "docs" / "service.md").read_text()
    for path in httpx.get(f"{service.url}/openapi.json").json()["paths"]:
        assert path.partition("/thumbnails")[0] in text


# --- the end of this file's service


def test_a_request_that_never_ends_does_not_keep_the_service_from_its_end(service: Served) -> None:
    host, _, port = service.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        head = f"POST /captions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        while service.metric("captioning_requests_in_flight") < 2:  # it, and the look at the metrics
            time.sleep(0.01)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(15) == 0, "long before the 20 s that a body may take"
