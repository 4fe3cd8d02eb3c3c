"""The entry point of a registered model: MLflow copies this file into it and runs it wherever it is served.

`{"inputs": ["<an image file in base64>", "https://example.com/photo.jpg", ...]}` gives one row an image, in the order
given, the best first: `{"captions": [{"text": ..., "probability": ...}, ...], "error": null}`. A picture that cannot be
read has no captions and the reason as its error; the others are captioned all the same.

Addresses are fetched from the public internet only, and from private networks, too, where the environment says
CAPTIONING_ALLOW_PRIVATE_ADDRESSES=true.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from pydantic import BaseModel

from captioning import picture_sources
from captioning.images import COMMON_FORMATS, BadImage, decode

IMAGES_PER_BATCH = 32
"""Bounds the memory of a large request."""
MAX_IMAGE_BYTES = 64 * 2**20
"""A larger file is refused before it is decoded."""
BOUNDS = picture_sources.Bounds(max_bytes=MAX_IMAGE_BYTES, max_seconds=20.0, retries=1)
PRIVATE_VARIABLE = "CAPTIONING_ALLOW_PRIVATE_ADDRESSES"


class Caption(BaseModel):
    """One caption of a picture."""

    text: str
    probability: float


class Row(BaseModel):
    """The answer for one picture; MLflow derives the model's signature from it."""

    captions: list[Caption]
    error: str | None = None


class CaptioningModel(mlflow.pyfunc.PythonModel):
    """Caption pictures with the model folder that the registered model carries."""

    def load_context(self, context: Any) -> None:  # MLflow passes `context` by this name
        """Read the model folder, and how captions were decoded when the model was scored."""
        from captioning.captioner import Captioner  # and torch with it
        from captioning.generation import read_settings

        self._captioner = Captioner.load(Path(context.artifacts["captioner"]))
        self._generation = read_settings(context.model_config)

    def predict(self, model_input: list[str]) -> list[Row]:
        """Return captions with their probabilities, or the reason why not, for each picture."""
        rows: list[Row] = []
        for begin in range(0, len(model_input), IMAGES_PER_BATCH):
            rows += self._caption(model_input[begin : begin + IMAGES_PER_BATCH])
        return rows

    def _caption(self, texts: list[str]) -> list[Row]:
        rows: list[Row] = []
        images: dict[int, np.ndarray] = {}
        for position, encoded in enumerate(_files(texts)):
            rows.append(Row(captions=[]))
            try:
                if isinstance(encoded, BadImage):
                    raise encoded
                images[position] = decode(encoded, formats=COMMON_FORMATS)
            except BadImage as error:
                rows[position].error = str(error)
        if not images:
            return rows
        ranked = self._captioner.caption(
            [*images.values()], self._generation, top=self._generation.num_captions
        )
        for position, hypotheses in zip(images, ranked, strict=True):
            rows[position].captions = [
                Caption(text=each.text, probability=math.exp(each.log_probability)) for each in hypotheses
            ]
        return rows


def _files(texts: list[str]) -> Iterator[bytes | BadImage]:
    """Yield the file of each picture, or why there is none, in order."""
    is_private_allowed = os.environ.get(PRIVATE_VARIABLE, "").lower() == "true"
    addresses = [text for text in texts if _is_web_address(text)]
    fetched = picture_sources.read(addresses, allow_private_addresses=is_private_allowed, bounds=BOUNDS)
    for text in texts:
        try:
            yield _fetched(next(fetched)) if _is_web_address(text) else _bytes(text)
        except BadImage as error:
            yield error


def _is_web_address(text: str) -> bool:
    return text[:8].lower().startswith(("http://", "https://"))


def _fetched(outcome: bytes | OSError) -> bytes:
    if isinstance(outcome, bytes):
        return outcome
    if getattr(outcome, "reason", "") == "private-address":
        raise BadImage("the address does not lead to the public internet; send the picture itself")
    raise BadImage(str(outcome))


def _bytes(text: str) -> bytes:
    if len(text) * 3 // 4 > MAX_IMAGE_BYTES:
        raise BadImage(f"the file is larger than {MAX_IMAGE_BYTES:,} bytes")
    try:
        return picture_sources.from_base64(text)
    except ValueError:
        raise BadImage(
            "not base64: send the bytes of an image file, encoded in base64, or an http or https address"
        ) from None


mlflow.models.set_model(CaptioningModel())
