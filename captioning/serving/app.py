"""The application: routes."""

import asyncio
import base64
import binascii
import math
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from captioning.images import BadImage, decode
from captioning.serving import headers, models, problems
from captioning.serving.messages import (
    CHALLENGER,
    CHAMPION,
    Answer,
    Attention,
    Caption,
    CaptionedImage,
    CaptionsRequest,
    CaptionsResponse,
    Limits,
    ModelsResponse,
    Refusal,
    ServedModel,
)
from captioning.serving.problems import Problem
from captioning.serving.settings import ServiceSettings

PAGE = Path(__file__).parent / "page"


def create_app(settings: ServiceSettings) -> FastAPI:
    """Return the service, with its models loaded.

    Raises:
        ValueError: a model cannot be loaded.
    """
    app = FastAPI(title="captioning", docs_url=None, redoc_url=None)
    problems.install(app)
    keys = headers.install(app, settings)
    served = {CHAMPION: models.load(settings.model, CHAMPION)}
    if settings.challenger:
        served[CHALLENGER] = models.load(settings.challenger, CHALLENGER)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        return {"status": "ready"}

    @app.get("/models")
    async def models_in_service() -> ModelsResponse:
        return ModelsResponse(
            models=[
                ServedModel(
                    model=own.role,
                    name=own.name,
                    version=own.version,
                    attends=True,
                    method=own.generation.method,
                    scores={},
                    loaded_at=own.loaded_at,
                )
                for own in served.values()
            ],
            second_opinions=[],
            limits=Limits(**{key: getattr(settings, key) for key in Limits.model_fields}),
            can_search=False,
            needs_key=keys.are_needed,
        )

    @app.post("/captions", response_model=CaptionsResponse)
    async def captions(request: Request) -> Response:
        wanted, images = await _read(request)
        answered = await asyncio.to_thread(_caption_all, served, wanted, images)
        return JSONResponse(CaptionsResponse(images=answered).model_dump())

    if PAGE.is_dir():
        app.mount("/", StaticFiles(directory=PAGE, html=True))
    return app


async def _read(request: Request) -> tuple[CaptionsRequest, list[tuple[str, bytes | None]]]:
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        form = await request.form()
        files = [own for own in form.getlist("images") if isinstance(own, UploadFile)]
        urls = [{"url": str(own)} for own in form.getlist("urls")]
        values: dict[str, Any] = {
            "images": urls or [{"url": "-"}],
            "top": int(str(form.get("top", "1"))),
            "attention": form.get("attention", "false") == "true",
            "models": [str(own) for own in form.getlist("models")] or [CHAMPION],
        }
        wanted = CaptionsRequest.model_validate(values)
        return wanted, [(own.filename or "image", await own.read()) for own in files]
    try:
        wanted = CaptionsRequest.model_validate_json(await request.body())
    except ValidationError as error:
        raise Problem(422, problems.sentences(error.errors())) from None
    images: list[tuple[str, bytes | None]] = []
    for number, own in enumerate(wanted.images, start=1):
        try:
            encoded = base64.b64decode(own.base64 or "", validate=True)
        except (binascii.Error, ValueError):
            encoded = b""
        images.append((own.name or own.url or f"image {number}", encoded))
    return wanted, images


def _caption_all(
    served: dict[str, models.LoadedModel], wanted: CaptionsRequest, images: list[tuple[str, bytes | None]]
) -> list[CaptionedImage]:
    return [_caption(served, wanted, name, encoded or b"") for name, encoded in images]


def _caption(
    served: dict[str, models.LoadedModel], wanted: CaptionsRequest, name: str, encoded: bytes
) -> CaptionedImage:
    try:
        pixels = decode(encoded)
    except BadImage as error:
        refusal = Refusal(status=415, title="Not a picture", detail=str(error))
        return CaptionedImage(image=name, error=refusal, answers=[])
    answers = []
    for role in wanted.models:
        model = served[role]
        (hypotheses,) = model.captioner.caption(
            [pixels], model.generation, top=wanted.top, with_attention=wanted.attention
        )
        height, width = model.captioner.encoder.grid
        answers.append(
            Answer(
                model=role,
                name=model.name,
                version=model.version,
                captions=[
                    Caption(
                        text=own.text,
                        probability=math.exp(own.log_probability),
                        words=own.words if wanted.attention else None,
                        attention=Attention(height=height, width=width, weights=own.attention)
                        if own.attention is not None
                        else None,
                    )
                    for own in hypotheses
                ],
            )
        )
    return CaptionedImage(image=name, error=None, answers=answers)
