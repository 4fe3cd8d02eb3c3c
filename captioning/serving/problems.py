"""What is refused, as `application/problem+json` (RFC 9457): a status, what is wrong, and what to do."""

import json
import reprlib
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

MEDIA_TYPE = "application/problem+json"
SHORT = reprlib.Repr()
SHORT.maxlevel, SHORT.maxdict, SHORT.maxlist, SHORT.maxstring, SHORT.maxother = 2, 3, 3, 80, 80


class Problem(Exception):
    """A request, or one picture of it, that cannot be served.

    Args:
        status: of HTTP, 400 and above.
        detail: what is wrong, the value, what was expected, and the next step.
        title: the kind of problem, the same for every problem of the kind; HTTP's phrase for the status by default.
        headers: of the answer, such as Retry-After.
        extra: further members of the body.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        title: str | None = None,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail
        self.title = title or HTTPStatus(status).phrase
        self.headers, self.extra = dict(headers or {}), extra

    def body(self) -> dict[str, Any]:
        """Return the members of the body."""
        return {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            **self.extra,
        }

    def response(self) -> Response:
        """Return the answer."""
        body = json.dumps(self.body(), ensure_ascii=False).encode(errors="replace")
        return Response(body, self.status, self.headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Make every refusal of an application a problem."""

    @app.exception_handler(Problem)
    async def refused(_request: Request, problem: Problem) -> Response:
        return problem.response()

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> Response:
        detail = {
            404: f"{request.url.path} is not here; /docs lists what is",
            405: f"{request.url.path} takes no {request.method}; /docs lists what it takes",
        }.get(error.status_code, str(error.detail))
        return Problem(error.status_code, detail, headers=error.headers).response()

    @app.exception_handler(RequestValidationError)
    async def ill_typed(_request: Request, error: RequestValidationError) -> Response:
        return Problem(422, sentences(error.errors())).response()


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return how the OpenAPI document describes refusals with these statuses."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemBody"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


def sentences(errors: Any) -> str:
    """Return pydantic's findings as text: where, what, and the value, cut where it is long."""
    return "; ".join(
        f"{'.'.join(map(str, own['loc'])) or 'body'}: {own['msg']}, got {_short(own.get('input'))}"
        for own in errors
    )


def _short(value: Any) -> str:
    """Return a value as a sentence can hold it, at no cost where it is a file in base64."""
    return SHORT.repr(value)
