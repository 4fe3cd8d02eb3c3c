"""The application: routes."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from starlette.requests import ClientDisconnect

from captioning.serving import headers, openapi, problems, searching
from captioning.serving.access import CLIENT_GONE, Access
from captioning.serving.body import Body
from captioning.serving.interest import ClientGone, while_connected
from captioning.serving.keys import Keys
from captioning.serving.messages import (
    Answer,
    CaptionedImage,
    CaptionsResponse,
    ModelsResponse,
    Refusal,
)
from captioning.serving.page_files import PageFiles
from captioning.serving.places import Places
from captioning.serving.problems import Problem, refusals
from captioning.serving.search import Search
from captioning.serving.service import Service
from captioning.serving.settings import ServiceSettings

DESCRIPTION = """Captions of pictures: champion, challenger and second opinions; search in a captioned collection.

What is refused is a problem (RFC 9457, `application/problem+json`) whose `detail` says what to do.
"""


def create_app(settings: ServiceSettings) -> FastAPI:
    """Return the service, with its models loaded.

    Raises:
        ValueError: a model cannot be loaded.
    """
    service, search = Service(settings), Search(settings)

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        async with service:
            app.state.is_ready = True
            yield

    app = FastAPI(
        title="captioning", description=DESCRIPTION, docs_url=None, redoc_url=None, lifespan=running
    )
    app.state.is_ready, app.state.is_stopping = False, False
    problems.install(app)
    keys = headers.install(app, settings)
    _add_health(app, service)
    _add_models(app, service, search, keys)
    _add_captions(app, service)
    searching.install(app, search, settings)
    openapi.complete(app)
    app.mount("/", PageFiles())
    app.add_middleware(Access, measures=service.measures)
    return app


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", tags=["health"])
    async def healthz() -> dict[str, str]:
        """200 while the process lives."""
        return {"status": "alive"}

    @app.get("/readyz", tags=["health"], responses=refusals(503))
    async def readyz() -> dict[str, str]:
        """200 while it takes requests."""
        if app.state.is_stopping or not app.state.is_ready:
            raise Problem(503, "the service is starting or stopping; ask again", title="Not ready")
        return {"status": "ready"}

    @app.get("/metrics", tags=["health"], response_class=Response)
    async def metrics() -> Response:
        """Counts and times for Prometheus."""
        return Response(service.measures.text(), media_type=service.measures.content_type)


def _add_models(app: FastAPI, service: Service, search: Search, keys: Keys) -> None:
    @app.get("/models", tags=["captions"])
    async def models() -> ModelsResponse:
        """Who captions, and within which limits."""
        return service.described(can_search=search.is_there(), needs_key=keys.are_needed)


def _add_captions(app: FastAPI, service: Service) -> None:
    settings = service.settings
    held = Places(settings.max_memory_bytes, "bytes of requests are in work", lambda: 0.0)

    @app.post(
        "/captions",
        tags=["captions"],
        response_model=CaptionsResponse,
        responses=refusals(400, 401, 403, 408, 413, 415, 422, 424, 429, 502, 503, 504),
        openapi_extra=openapi.CAPTIONS_BODY,
    )
    async def captions(request: Request) -> Response:
        """Caption pictures: files of a form, files in base64, or addresses."""
        try:
            async with asyncio.timeout(settings.timeout_seconds):
                return _answer(await _captioned(request))
        except TimeoutError:
            seconds = settings.timeout_seconds
            sentence = (
                f"the request was not answered within {seconds:g} s; send fewer pictures, or send it later"
            )
            raise Problem(504, sentence, title="Took too long") from None
        except (ClientGone, ClientDisconnect):
            return Response(status_code=CLIENT_GONE)

    async def _captioned(request: Request) -> list[CaptionedImage]:
        body = Body(request, max_bytes=settings.max_request_bytes, max_images=settings.max_images, held=held)
        with body:
            try:
                async with asyncio.timeout(settings.body_seconds):
                    wanted = await body.read()
            except TimeoutError:
                sentence = f"the body did not arrive within {settings.body_seconds:g} s; send fewer pictures"
                raise Problem(408, sentence, headers={"Connection": "close"}) from None
            request.state.noted = {"pictures": len(wanted.pictures), "models": wanted.models}
            return await while_connected(request, service.caption(wanted))


def _answer(images: list[CaptionedImage]) -> Response:
    """Return the captions; a problem where there are none at all."""
    reasons = [own.error or _failure(own.answers) for own in images]
    if all(reasons):
        first = reasons[0]
        assert first is not None, "all are there"
        listed = [own.model_dump() for own in images]
        raise Problem(first.status, first.detail, title=first.title, images=listed)
    content = CaptionsResponse(images=images).model_dump_json()
    return Response(content, media_type="application/json")


def _failure(answers: Sequence[Answer]) -> Refusal | None:
    """Return why no model of ours has captioned a picture; what a second opinion lacks is its own answer's error."""
    errors = [own.error for own in answers]
    return errors[0] if all(error and error.status == 500 for error in errors) else None
