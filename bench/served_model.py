"""A registered model of the Flickr8k recipe's shape, champion of a registry of its own, for what people wait for.

Its encoder has the published weights of the recipe; its decoder is untrained: captions mean nothing, but take as long
as those of a trained one, for they have as many words.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML

from bench.photographs import shared
from captioning import aliases, encoders, servable, store
from captioning.captioner import Captioner
from captioning.decoders import soft_attention
from captioning.images import PixelTransform
from captioning.vocabulary import MARKERS, Vocabulary

RECIPE = Path("recipes/flickr8k-attention.yaml")
NAME = "flickr8k"
NUM_WORDS = 2_530
"""Of the vocabulary, as trained."""
CAPTION_WORDS = {"min_words": 9, "max_words": 12}


def write_registry(home: Path) -> None:
    """Make the model and register it as the champion of `NAME` in a home."""
    params = YAML(typ="safe", pure=True).load(RECIPE.read_text())
    folder = home / "model"
    folder.mkdir(parents=True)
    _untrained(params).save(folder, fingerprint="0" * 16)
    with _home(home):
        client = store.client()
        client.create_registered_model(NAME)
        run = client.create_run("0")
        model_id = servable.log_model(
            run.info.run_id, folder, params["evaluate"]["generation"] | CAPTION_WORDS
        )
        with store.as_default_uri():
            client.create_model_version(NAME, f"models:/{model_id}", model_id=model_id)
        aliases.promote(NAME, "1", by="bench", why="it is measured")


def _untrained(params: dict[str, Any]) -> Captioner:
    torch.manual_seed(0)
    return Captioner(
        encoder=encoders.Settings.model_validate(params["train"]["encoder"]),
        decoder=soft_attention.Settings.model_validate(params["train"]["decoder"]),
        vocabulary=Vocabulary([*MARKERS, *(f"word{number}" for number in range(NUM_WORDS - len(MARKERS)))]),
        transform=PixelTransform(**params["preprocess"]["image"]),
        encoder_state=torch.load(shared("weights/mobilenet_v2.pth"), weights_only=True),
    )


@contextmanager
def _home(home: Path) -> Iterator[None]:
    before = dict(os.environ)
    os.environ["CAPTIONING_HOME"] = str(home)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
