"""Other captioners over HTTP, each a real server on this machine that speaks as they do."""

import asyncio
import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import pytest

from captioning.servable import RED_SQUARE
from captioning.serving.messages import Answer
from captioning.serving.second_opinion import KINDS, SecondOpinions
from captioning.serving.setting_values import KINDS_OF_OPINIONS, SecondOpinion

PICTURE = base64.b64decode(RED_SQUARE)
OURS = {"images": [{"image": "image 1", "error": None, "answers": [{"error": None, "captions": []}]}]}
OURS["images"][0]["answers"][0]["captions"] = [  # type: ignore[index]
    {"text": "a red square", "probability": 0.5, "words": None, "attention": None},
    {"text": "a square", "probability": 0.2, "words": None, "attention": None},
]
MLFLOW = {"predictions": [{"captions": [{"text": "a red square", "probability": 0.5}], "error": None}]}
AZURE = {
    "captionResult": {"text": "a red square", "confidence": 0.75},
    "metadata": {"width": 16, "height": 16},
}


class Captioner:
    """What a server was asked, and answers."""

    def __init__(self) -> None:
        self.status = 200
        self.body: Any = b""
        self.headers: dict[str, str] = {}
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.go_on = Event()
        self.go_on.set()
        self.address = ""


@contextmanager
def serving() -> Iterator[Captioner]:
    captioner = Captioner()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["Content-Length"]))
            captioner.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}, sent))
            captioner.go_on.wait(60)
            body = (
                captioner.body if isinstance(captioner.body, bytes) else json.dumps(captioner.body).encode()
            )
            self.send_response(captioner.status)
            for header in {"Content-Length": str(len(body)), **captioner.headers}.items():
                self.send_header(*header)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        captioner.address = f"http://127.0.0.1:{server.server_port}"
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield captioner
        finally:
            captioner.go_on.set()
            server.shutdown()


@pytest.fixture
def captioner() -> Iterator[Captioner]:
    with serving() as found:
        yield found


def ask(kind: str, address: str, top: int = 3, timeout_seconds: float = 30.0) -> Answer:
    async def run() -> Answer:
        async with SecondOpinions([f"other={kind}:{address}"], timeout_seconds=timeout_seconds) as opinions:
            return await opinions.ask("other", PICTURE, top)

    return asyncio.run(run())


def said(answer: Answer) -> list[tuple[str, float | None]]:
    assert answer.error is None, answer.error
    assert (answer.model, answer.name, answer.version) == ("second opinion", "other", None)
    return [(own.text, own.probability) for own in answer.captions]


def test_another_service_of_ours_is_asked_for_its_champion(captioner: Captioner) -> None:
    captioner.body = OURS
    assert said(ask("captioning", captioner.address)) == [("a red square", 0.5), ("a square", 0.2)]
    assert said(ask("captioning", f"{captioner.address}/", top=1)) == [("a red square", 0.5)]
    path, _, sent = captioner.asked[0]
    assert path == "/captions"
    assert json.loads(sent) == {"images": [{"base64": RED_SQUARE}], "top": 3}


def test_a_model_that_mlflow_serves_is_asked_as_its_page_shows(captioner: Captioner) -> None:
    captioner.body = MLFLOW
    assert said(ask("mlflow", captioner.address)) == [("a red square", 0.5)]
    path, _, sent = captioner.asked[0]
    assert (path, json.loads(sent)) == ("/invocations", {"inputs": [RED_SQUARE]})


def test_azure_is_sent_the_file_with_the_key_of_the_environment(
    captioner: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTIONING_SECOND_OPINION_KEY_OTHER", "secret")
    captioner.body = AZURE
    assert said(ask("azure", captioner.address)) == [("a red square", 0.75)]
    path, headers, sent = captioner.asked[0]
    assert path.startswith("/computervision/imageanalysis:analyze?features=caption&")
    assert path.endswith("&api-version=2024-02-01")
    assert (headers["ocp-apim-subscription-key"], headers["content-type"]) == (
        "secret",
        "application/octet-stream",
    )
    assert sent == PICTURE


@pytest.mark.parametrize(
    ("kind", "status", "body", "expected"),
    [
        (
            "azure",
            401,
            {"error": {"code": "401", "message": "Access denied."}},
            "other: it answered 401: Access denied.",
        ),
        (
            "captioning",
            429,
            {"title": "Too", "detail": "send it in 2 s"},
            "other: it answered 429: send it in 2 s",
        ),
        (
            "captioning",
            200,
            {"images": [{"error": {"detail": "no picture"}, "answers": []}]},
            "other: no picture",
        ),
        ("mlflow", 200, {"predictions": [{"captions": [], "error": "cut short"}]}, "other: cut short"),
        ("azure", 500, b"<html>", "other: it answered 500"),
        ("azure", 302, b"", "other: it answered 302"),
        ("azure", 200, b"<html>", "other: it answered something else than captioners of the kind 'azure' do"),
        ("azure", 200, [1], "other: it answered something else than captioners of the kind 'azure' do"),
        ("azure", 200, {"captionResult": {"text": 7, "confidence": 1}}, "kind 'azure' do"),
        ("mlflow", 200, {"predictions": []}, "other: it answered something else than"),
        ("captioning", 200, b"[" * 100_000, "other: it answered something else than"),
        ("captioning", 200, b" " * 2_000_000, "other: it answered something else than"),
    ],
)
def test_what_goes_wrong_there_is_that_answers_error(
    captioner: Captioner, kind: str, status: int, body: Any, expected: str
) -> None:
    captioner.status, captioner.body = status, body
    captioner.headers = {"Location": "/elsewhere"} if status == 302 else {}
    answer = ask(kind, captioner.address)
    assert answer.error is not None and expected in answer.error.detail
    assert answer.captions == [] and len(captioner.asked) == 1


def test_a_server_that_is_silent_or_away_costs_its_own_answer(captioner: Captioner) -> None:
    captioner.go_on.clear()
    answer = ask("mlflow", captioner.address, timeout_seconds=0.2)
    assert answer.error and (answer.error.status, answer.error.detail) == (
        504,
        "other: it did not answer within 0.2 seconds",
    )
    gone = ask("mlflow", "http://127.0.0.1:9")
    assert gone.error and gone.error.detail == "other: it could not be asked (ClientConnectorError)"


def test_several_are_asked_at_the_same_time() -> None:
    with serving() as first, serving() as second:
        first.body, second.body = MLFLOW, AZURE
        first.go_on.clear()
        second.go_on.clear()

        async def run() -> list[Answer]:
            stated = [f"first=mlflow:{first.address}", f"second=azure:{second.address}"]
            async with SecondOpinions(stated, timeout_seconds=60.0) as opinions:
                assert opinions.names == ["first", "second"]
                asking = asyncio.gather(*(opinions.ask(name, PICTURE, 1) for name in opinions.names))
                while not (first.asked and second.asked):  # each waits for the other one's question
                    await asyncio.sleep(0.01)
                first.go_on.set()
                second.go_on.set()
                return list(await asking)

        assert [own.error for own in asyncio.run(run())] == [None, None]


@pytest.mark.parametrize(
    "text",
    ["azure", "a=b:http://x", "a=azure:x.org", "=azure:http://x", "a b=azure:http://x", "a=azure:ftp://x"],
)
def test_a_statement_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no second opinion: expected NAME=KIND:ADDRESS"):
        SecondOpinion.read(text)


def test_every_kind_is_known_to_the_settings() -> None:
    assert sorted(KINDS) == sorted(KINDS_OF_OPINIONS)
    keyed: Callable[[str], str] = lambda name: SecondOpinion(name=name, kind="azure", address="").key_variable  # noqa: E731
    assert keyed("our-eyes") == "CAPTIONING_SECOND_OPINION_KEY_OUR_EYES"
