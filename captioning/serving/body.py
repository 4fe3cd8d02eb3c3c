"""A request's body, within bounds of bytes, as JSON or as a form -> what is asked for, and the pictures as given."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from captioning.serving.messages import CaptionsRequest, ImageSource
from captioning.serving.places import Places
from captioning.serving.problems import Problem, sentences

JSON, FORM = "application/json", "multipart/form-data"
SINGLE_FIELDS = ("top", "attention", "preview")
FIELDS = ("images", "urls", *SINGLE_FIELDS, "models")
LONG_BYTES = 100_000
"""Longer bodies are read as JSON in a thread of their own, not to hold up other requests."""
VALUES_EACH, VALUES_BESIDE = 100, 1_000
"""Of a JSON body, for each picture and besides; each takes up to 2 KB of memory, whatever its length."""
FIELDS_BESIDE = 32
"""Of a form, besides pictures."""
MAX_FIELD_BYTES = 8192
MAX_NAME = 255
"""Characters of a file's name."""


@dataclass(frozen=True, kw_only=True)
class GivenPicture:
    """One picture of a request: the bytes of a file, the file in base64, or an address."""

    name: str
    """What the answer calls it."""
    encoded: bytes | None = None
    base64: str | None = None
    url: str | None = None


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a request asks for."""

    pictures: list[GivenPicture]
    top: int
    attention: bool
    preview: bool
    models: list[str]


class Body:
    """The bytes of one request, counted while they come, for as long as the block lasts.

    Args:
        request: whose body was not read yet.
        max_bytes: of the body.
        max_images: pictures that it may name.
        held: bytes of all bodies in memory.
    """

    def __init__(self, request: Request, *, max_bytes: int, max_images: int, held: Places) -> None:
        self._request, self._max_bytes, self._max_images, self._held = request, max_bytes, max_images, held
        self._num_held = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._held.give_back(self._num_held)

    async def read(self) -> Wanted:
        """Return what it asks for.

        Raises:
            Problem: 400 it is malformed, 413 it is too large or names too many pictures, 415 it is neither JSON nor a
                form, 422 a value is out of range, 503 too many bytes are in work.
        """
        kind = self._request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == JSON:
            return await self._read_json()
        if kind == FORM:
            return await self._read_form()
        async for _ in self._chunks():  # who still sends may not see an answer
            pass
        raise Problem(
            415,
            f"a body of type {kind[:80]!r}; send {JSON}, or {FORM} with files in the field images",
            title="Not a request that is read here",
        )

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body; after a refusal the rest is read and dropped, up to twice the size allowed."""
        num_bytes, refusal = 0, None
        async for chunk in self._request.stream():
            num_bytes += len(chunk)
            refusal = refusal or self._refusal(num_bytes, len(chunk))
            if num_bytes > 2 * self._max_bytes:
                break
            if refusal is None:
                yield chunk
        if refusal is not None:
            raise refusal

    def _refusal(self, num_bytes: int, num_new: int) -> Problem | None:
        """Hold so many more bytes, or say why not."""
        if num_bytes > self._max_bytes:
            sentence = f"the request has more than {self._max_bytes:,} bytes; send fewer or smaller pictures"
            return Problem(413, sentence, title="Too large")
        try:
            self._held.take(num_new)
        except Problem as problem:
            return problem
        self._num_held += num_new
        return None

    async def _read_json(self) -> Wanted:
        body = b"".join([chunk async for chunk in self._chunks()])
        if len(body) <= LONG_BYTES:
            return _of_json(body, self._max_images)
        return await asyncio.to_thread(_of_json, body, self._max_images)

    async def _read_form(self) -> Wanted:
        parser = MultiPartParser(
            self._request.headers,
            self._chunks(),
            max_files=self._max_images,
            max_fields=self._max_images + FIELDS_BESIDE,
            max_part_size=MAX_FIELD_BYTES,
        )
        parser.spool_max_size = 2 * self._max_bytes  # nothing of a request lies on a disk
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise _unreadable(error.message) from None
        except ValueError as error:  # of a charset that decodes nothing
            raise _unreadable(f"its content-type is wrong: {error}") from None
        try:
            return await _of_form(form, self._max_images)
        finally:
            await form.close()


def _unreadable(what: str) -> Problem:
    status, title = (413, "Too large") if what.startswith("Too many") else (400, "Malformed")
    sentence = (
        f"the form cannot be read: {what[:200]}; send files in the field images, addresses in the field urls"
    )
    return Problem(status, sentence, title=title)


def _of_json(body: bytes, max_images: int) -> Wanted:
    _refuse_many_values(body, VALUES_BESIDE + VALUES_EACH * max_images)
    try:
        request = CaptionsRequest.model_validate_json(body)
    except ValidationError as error:
        raise _refused(error) from None
    _refuse_many(len(request.images), max_images)
    pictures = [_given(own, number) for number, own in enumerate(request.images, start=1)]
    return _wanted(request, pictures)


def _given(source: ImageSource, number: int) -> GivenPicture:
    name = source.name or source.url or f"image {number}"
    return GivenPicture(name=name, base64=source.base64, url=source.url)


async def _of_form(form: FormData, max_images: int) -> Wanted:
    _refuse_fields(form)
    files, urls = form.getlist("images"), [str(own) for own in form.getlist("urls")]
    _refuse_many(len(files) + len(urls), max_images)
    values: dict[str, Any] = {"images": [{"base64": ""}] * len(files) + [{"url": url} for url in urls]}
    values |= {name: form[name] for name in SINGLE_FIELDS if name in form}
    values |= {"models": form.getlist("models")} if "models" in form else {}
    try:
        request = CaptionsRequest.model_validate(values)
    except ValidationError as error:
        raise _refused(error) from None
    pictures = [await _uploaded(own, number) for number, own in enumerate(files, start=1)]
    return _wanted(request, pictures + [GivenPicture(name=url, url=url) for url in urls])


async def _uploaded(file: UploadFile | str, number: int) -> GivenPicture:
    assert isinstance(file, UploadFile), "texts are refused before"
    name = (file.filename or f"image {number}")[:MAX_NAME]
    return GivenPicture(name=name, encoded=await file.read())


def _wanted(request: CaptionsRequest, pictures: list[GivenPicture]) -> Wanted:
    return Wanted(
        pictures=pictures,
        top=request.top,
        attention=request.attention,
        preview=request.preview,
        models=[*dict.fromkeys(request.models)],
    )


def _refuse_fields(form: FormData) -> None:
    """Refuse a field that is unknown, repeated where it may not be, or text where a file belongs."""
    for name in form:
        found = form.getlist(name)
        if name not in FIELDS:
            raise Problem(422, f"a form has {', '.join(FIELDS)}, and no field {name[:80]!r}")
        if name in SINGLE_FIELDS and len(found) > 1:
            raise Problem(422, f"the form has {len(found)} fields {name!r}; send one")
        if any(isinstance(own, UploadFile) != (name == "images") for own in found):
            expected = "files (`curl -F images=@photo.jpg`)" if name == "images" else "text"
            raise Problem(422, f"the form's field {name!r} takes {expected}")


def _refuse_many(num_pictures: int, max_images: int) -> None:
    if num_pictures > max_images:
        sentence = (
            f"{num_pictures:,} pictures in one request, more than {max_images:,}; send several requests"
        )
        raise Problem(413, sentence, title="Too large")


def _refuse_many_values(body: bytes, most: int) -> None:
    """Refuse JSON by the signs that begin its values, before they are made; commas of texts count, too."""
    if sum(map(body.count, (b"{", b"[", b","))) > most:
        sentence = f"the JSON has more than {most:,} values; send fewer pictures a request"
        raise Problem(413, sentence, title="Too large")


def _refused(error: ValidationError) -> Problem:
    found = error.errors(include_url=False, include_context=False)
    is_malformed = any(own["type"] == "json_invalid" for own in found)
    return Problem(400 if is_malformed else 422, f"{sentences(found[:10])}; /docs has examples")
