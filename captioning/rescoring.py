"""A model of old on the test set of today: its captions, decoded once a version and test set."""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from captioning import home
from captioning.captioner import Captioner
from captioning.decoding import Read, decode_split, pixel_reader
from captioning.distributed import device
from captioning.examples import Examples
from captioning.generation import read_settings
from captioning.images import BadImage, ImageFolder, decode
from captioning.outputs import whole_file
from captioning.progress import say
from captioning.seen_images import CleanImage


@dataclass(frozen=True, kw_only=True)
class Rescored:
    """A registered model that is decoded again."""

    name: str
    """The registered model and the version, such as `captioner/3`."""
    captioner: Path
    """Its folder."""
    generation: dict[str, object]
    """How it decodes: the settings that it was registered with."""


def captions_of(
    model: Rescored, test_set: str, examples: Examples, raw: Path, images: Mapping[str, CleanImage]
) -> dict[str, str]:
    """Return the captions that a model gives to the images of a split, by image id.

    They are decoded once and then kept in `.work/rescored`, by the model's files and the test set.

    Args:
        model: whose captions.
        test_set: identity of the images.
        examples: of the split. Its pixels serve where they are made as the model's are; otherwise the model's own
            transform makes them of the raw pictures, as it does when it is served.
        raw: folder of the raw pictures.
        images: where they lie in it.

    Raises:
        ValueError: the model cannot be loaded by this code, or a picture cannot be read.
    """
    kept = home.work("rescored") / f"{_key(model, test_set)}.json"
    if kept.exists():
        captions: dict[str, str] = json.loads(kept.read_text(encoding="utf-8"))
        return captions
    captioner = Captioner.load(model.captioner, device())
    read = pixel_reader(examples, captioner.device)
    if captioner.transform != examples.transform:
        read = _picture_reader(captioner, examples, raw, images)
    say(f"register: {model.name} is decoded on {len(examples):,} images, as its test set was another")
    hypotheses = decode_split(captioner, examples, read, read_settings(model.generation), what="register")
    captions = {image_id: own.text for image_id, own in hypotheses.items()}
    with whole_file(kept) as aside:
        aside.write_text(json.dumps(captions, ensure_ascii=False), encoding="utf-8")
    return captions


def _key(model: Rescored, test_set: str) -> str:
    weights = model.captioner / "weights.safetensors"
    with weights.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    facts = json.dumps([model.generation, content, test_set], sort_keys=True)
    return f"{model.name.replace('/', '-')}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"


def _picture_reader(
    captioner: Captioner, examples: Examples, raw: Path, images: Mapping[str, CleanImage]
) -> Read:
    """Return a function of positions that reads pictures and makes them pixels as the model that is served does."""
    folder = ImageFolder(raw)

    def read(positions: np.ndarray) -> torch.Tensor:
        return captioner.pixels(
            [_picture(folder, images[examples.image_ids[position]]) for position in positions]
        )

    return read


def _picture(folder: ImageFolder, image: CleanImage) -> np.ndarray:
    try:
        return decode(folder.read(image.archive, image.member))
    except (BadImage, OSError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"the picture {image.member} ({image.archive or 'a file'}) was readable when it was cleaned and is not "
            f"now: {error}; run `dvc repro --force clean`"
        ) from None
