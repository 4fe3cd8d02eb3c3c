"""The entry point of a registered model: MLflow copies this file into it and runs it wherever it is served.

`{"inputs": ["<an image file in base64>", ...]}` gives one row an image, in the order given, the best first:
`{"captions": [{"text": ..., "probability": ...}, ...], "error": null}`. A picture that cannot be read has no
captions and the reason as its error; the others are captioned all the same.
"""

import base64
import binascii
import math
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from pydantic import BaseModel

from captioning.images import BadImage, decode

IMAGES_PER_BATCH = 32
"""Bounds the memory of a large request."""
MAX_IMAGE_BYTES = 64 * 2**20
"""A larger file is refused before it is decoded."""


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

    def _caption(self, encoded: list[str]) -> list[Row]:
        rows: list[Row] = []
        images: dict[int, np.ndarray] = {}
        for position, text in enumerate(encoded):
            rows.append(Row(captions=[]))
            try:
                images[position] = decode(_bytes(text))
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


def _bytes(text: str) -> bytes:
    if len(text) * 3 // 4 > MAX_IMAGE_BYTES:
        raise BadImage(f"the file is larger than {MAX_IMAGE_BYTES:,} bytes")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadImage("not base64: send the bytes of an image file, encoded in base64") from None


mlflow.models.set_model(CaptioningModel())
