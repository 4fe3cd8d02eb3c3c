"""Other captioners, asked over HTTP beside ours: another service of this kind, a model that MLflow serves, Azure's.

A kind is a few lines: what is asked, and where the captions stand in the answer. Whatever goes wrong is that answer's
`error`, and never the request's.
"""

import asyncio
import base64
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import aiohttp

from captioning.serving.messages import SECOND_OPINION, Answer, Caption, Refusal
from captioning.serving.problems import Problem
from captioning.serving.setting_values import SecondOpinion

LOGGER = logging.getLogger(__name__)
MAX_ANSWER_BYTES = 1_000_000
NUM_CONNECTIONS = 16
"""To each of them, all requests together."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is sent to a captioner."""

    path: str
    body: bytes
    content_type: str = "application/json"
    key_header: str = "X-API-Key"


class Kind(Protocol):
    """How a kind of captioner is asked about one picture, and how its answer is read."""

    def question(self, encoded: bytes, top: int) -> Question:
        """Return what is sent for the file of a picture."""

    def captions(self, answer: Any) -> list[Caption]:
        """Return the captions in an answer, the best first.

        Raises:
            Problem: it says why there are none.
            KeyError, IndexError, TypeError, ValueError: it is not an answer of this kind.
        """


class CaptioningService:
    """`captioning serve`, on another machine or with another model."""

    def question(self, encoded: bytes, top: int) -> Question:
        """Ask for its first model's captions."""
        body = {"images": [{"base64": base64.b64encode(encoded).decode()}], "top": top}
        return Question(path="/captions", body=json.dumps(body).encode())

    def captions(self, answer: Any) -> list[Caption]:
        """Read the first model's captions of the only picture."""
        (image,) = answer["images"]
        if problem := image["error"] or image["answers"][0]["error"]:
            raise Problem(424, _cut(problem["detail"]))
        return [_caption(own["text"], own["probability"]) for own in image["answers"][0]["captions"]]


class MLflow:
    """A model of ours behind `mlflow models serve`."""

    def question(self, encoded: bytes, top: int) -> Question:
        """Ask for what it captions; how many captions is its own setting."""
        body = {"inputs": [base64.b64encode(encoded).decode()]}
        return Question(path="/invocations", body=json.dumps(body).encode())

    def captions(self, answer: Any) -> list[Caption]:
        """Read the only row."""
        (row,) = answer["predictions"]
        if row["error"]:
            raise Problem(424, _cut(row["error"]))
        return [_caption(own["text"], own["probability"]) for own in row["captions"]]


class Azure:
    """Azure AI Vision, Image Analysis 4.0: one caption with its confidence."""

    PATH = (
        "/computervision/imageanalysis:analyze?features=caption&model-version=latest&api-version=2024-02-01"
    )

    def question(self, encoded: bytes, top: int) -> Question:
        """Send the file as it is."""
        return Question(
            path=self.PATH,
            body=encoded,
            content_type="application/octet-stream",
            key_header="Ocp-Apim-Subscription-Key",
        )

    def captions(self, answer: Any) -> list[Caption]:
        """Read the only caption."""
        found = answer["captionResult"]
        return [_caption(found["text"], found["confidence"])]


KINDS: dict[str, Kind] = {"azure": Azure(), "captioning": CaptioningService(), "mlflow": MLflow()}


class SecondOpinions:
    """What asks the other captioners; enter it while the service runs.

    Args:
        stated: all of them, each as `SecondOpinion.read` takes it.
        timeout_seconds: for each picture.
    """

    def __init__(self, stated: Sequence[str], *, timeout_seconds: float) -> None:
        found = [SecondOpinion.read(own) for own in stated]
        self._stated = {own.name: own for own in found}
        self._timeout_seconds = timeout_seconds

    @property
    def names(self) -> list[str]:
        """Return what they are called."""
        return [*self._stated]

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit_per_host=NUM_CONNECTIONS),
            timeout=aiohttp.ClientTimeout(total=self._timeout_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, _kind: type | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def ask(self, name: str, encoded: bytes, top: int) -> Answer:
        """Return one captioner's answer about the file of a picture; it never fails, it says what went wrong."""
        other = self._stated[name]
        try:
            captions = (await self._captions(other, encoded, top))[:top]
        except Problem as problem:
            return _answer(name, [], problem)
        except TimeoutError:
            sentence = f"it did not answer within {self._timeout_seconds:g} seconds"
            return _answer(name, [], Problem(504, sentence, title="No second opinion"))
        except (aiohttp.ClientError, OSError) as error:
            LOGGER.warning("the second opinion %s could not be asked: %s", name, error)
            sentence = f"it could not be asked ({type(error).__name__})"
            return _answer(name, [], Problem(502, sentence, title="No second opinion"))
        except (KeyError, IndexError, TypeError, ValueError, RecursionError):
            sentence = f"it answered something else than captioners of the kind {other.kind!r} do"
            return _answer(name, [], Problem(502, sentence, title="No second opinion"))
        return _answer(name, captions, None)

    async def _captions(self, other: SecondOpinion, encoded: bytes, top: int) -> list[Caption]:
        kind = KINDS[other.kind]
        # base64 of a large file takes a while
        question = await asyncio.to_thread(kind.question, encoded, top)
        headers = {"Content-Type": question.content_type}
        if key := os.environ.get(other.key_variable):
            headers[question.key_header] = key
        address = other.address.rstrip("/") + question.path
        # a redirect would take the key elsewhere
        async with self._session.post(
            address, data=question.body, headers=headers, allow_redirects=False
        ) as response:
            content = await _read(response)
            if response.status != 200:
                raise Problem(
                    502, f"it answered {response.status}{_said(content)}", title="No second opinion"
                )
            return kind.captions(json.loads(content))


async def _read(response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            raise ValueError(f"an answer of more than {MAX_ANSWER_BYTES:,} bytes")
    return bytes(content)


def _said(content: bytes) -> str:
    """Return what a refusal says, of our problems (`detail`) and of Azure's (`error.message`), to follow its status."""
    try:
        body = json.loads(content)
        said = body["detail"] if "detail" in body else body["error"]["message"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return ""
    return f": {_cut(said)}"


def _caption(text: Any, probability: Any) -> Caption:
    if not isinstance(text, str):
        raise TypeError("a caption that is no text")
    return Caption(text=_cut(text, 2000), probability=None if probability is None else float(probability))


def _cut(text: Any, length: int = 300) -> str:
    return " ".join(str(text).split())[:length]


def _answer(name: str, captions: list[Caption], problem: Problem | None) -> Answer:
    error = (
        Refusal(status=problem.status, title=problem.title, detail=f"{name}: {problem.detail}")
        if problem
        else None
    )
    return Answer(model=SECOND_OPINION, name=name, version=None, error=error, captions=captions)
