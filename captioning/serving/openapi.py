"""The OpenAPI document: what FastAPI cannot know of a body that is JSON or a form, with examples."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from captioning.servable import RED_SQUARE
from captioning.serving.body import FORM, JSON
from captioning.serving.messages import CHALLENGER, CHAMPION, CaptionsRequest, ProblemBody

COMPONENTS = "#/components/schemas/"
EXAMPLES: dict[str, Any] = {
    "one picture": {"value": {"images": [{"base64": RED_SQUARE, "name": "square.png"}]}},
    "an address": {
        "value": {"images": [{"url": "https://upload.wikimedia.org/photo.jpg"}], "top": 3},
    },
    "where the model looked": {
        "value": {"images": [{"base64": RED_SQUARE}], "top": 2, "attention": True},
    },
    "champion beside challenger": {
        "value": {"images": [{"base64": RED_SQUARE}], "models": [CHAMPION, CHALLENGER]},
    },
}
FORM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "images": {"type": "array", "items": {"type": "string", "format": "binary"}, "description": "files"},
        "urls": {"type": "array", "items": {"type": "string"}, "description": "addresses"},
        "top": {"type": "integer", "minimum": 1, "default": 1},
        "attention": {"type": "boolean", "default": False},
        "preview": {"type": "boolean", "default": False},
        "models": {"type": "array", "items": {"type": "string"}, "default": [CHAMPION]},
    },
}
CAPTIONS_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": {"$ref": f"{COMPONENTS}{CaptionsRequest.__name__}"}, "examples": EXAMPLES},
            FORM: {"schema": FORM_SCHEMA, "encoding": {"images": {"contentType": "image/*"}}},
        },
    }
}


def complete(app: FastAPI) -> None:
    """Let the document hold the messages that no route states, besides those that routes do."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            stated = [(CaptionsRequest, "validation"), (ProblemBody, "serialization")]
            _, more = models_json_schema(stated, ref_template=COMPONENTS + "{model}")  # type: ignore[arg-type]
            schemas = found.setdefault("components", {}).setdefault("schemas", {})
            found["components"]["schemas"] = more["$defs"] | schemas
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
