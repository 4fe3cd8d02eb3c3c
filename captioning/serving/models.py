"""The models in service: a version each of the champion and, where asked for, the challenger."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from captioning import champion
from captioning.captioner import Captioner
from captioning.distributed import device
from captioning.generation import PLAIN_BEAM, GenerationSettings, read_settings
from captioning.serving.messages import ServedModel
from captioning.serving.model_names import ModelName
from captioning.serving.turns import TURNS

if TYPE_CHECKING:
    from captioning.records import Hypothesis


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedModel:
    """One version of a model, ready to caption, from its loading on until nobody refers to it any more."""

    role: str
    name: str
    version: str | None
    captioner: Captioner
    generation: GenerationSettings
    attends: bool
    scores: dict[str, float]
    loaded_at: str
    """UTC, ISO 8601."""

    def inputs(self, image: np.ndarray) -> torch.Tensor:
        """Return a picture (uint8, H x W x 3) as the encoder sees it, `pixels_1CHW`."""
        return self.captioner.pixels([image])

    def caption(
        self, inputs: Sequence[torch.Tensor], numbers: Sequence[int], *, top: int, with_attention: bool
    ) -> "list[list[Hypothesis]]":
        """Return the captions of each picture; `numbers` decide, with the seed, what sampling draws for it."""
        with TURNS.shared():
            return self.captioner.caption_pixels(
                torch.cat([*inputs]),
                self.generation,
                top=top,
                with_attention=with_attention and self.attends,
                image_numbers=numbers,
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Return rows and columns of the cells that the decoder attends to."""
        return self.captioner.encoder.grid

    def described(self, *, newer_version_failed: bool) -> ServedModel:
        """Return what /models says of it."""
        return ServedModel(
            model=self.role,
            name=self.name,
            version=self.version,
            attends=self.attends,
            method=self.generation.method,
            scores=self.scores,
            loaded_at=self.loaded_at,
            newer_version_failed=newer_version_failed,
        )


def load(name: ModelName, version: str | None, role: str) -> LoadedModel:
    """Load a version, or a folder, and caption a gray picture: its first request is then as quick as the next.

    Raises:
        ValueError: its files are gone or damaged, or it does not caption.
    """
    folder, scores = name.folder, {}
    generation: GenerationSettings = PLAIN_BEAM
    if folder is None:
        assert version is not None, "only a folder has no version"
        model = champion.version_folder(name.name, version)
        folder, generation = champion.captioner_folder(model), read_settings(champion.generation_of(model))
        scores = champion.test_scores(name.name, version)
    captioner = _loaded(folder)
    return LoadedModel(
        role=role,
        name=name.name,
        version=version,
        captioner=captioner,
        generation=generation,
        attends=_attends(captioner, generation),
        scores=scores,
        loaded_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _loaded(folder: Path) -> Captioner:
    with TURNS.alone():
        return Captioner.load(folder, device())


def _attends(captioner: Captioner, generation: Any) -> bool:
    """Caption a gray picture; tell whether the decoder says where it looks."""
    size = (captioner.transform.height, captioner.transform.width, 3)
    with TURNS.shared():
        ((first, *_),) = captioner.caption(
            [np.full(size, 128, np.uint8)], generation, top=1, with_attention=True
        )
    return first.attention is not None


class Models:
    """Who captions at present, by role; another thread may replace one between two looks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._served: dict[str, LoadedModel] = {}

    def put(self, model: LoadedModel) -> None:
        """Let a model caption from now on, in place of the one before it."""
        with self._lock:
            self._served = {**self._served, model.role: model}

    def remove(self, role: str) -> None:
        """Let nobody have a role from now on."""
        with self._lock:
            self._served = {own: model for own, model in self._served.items() if own != role}

    def get(self, role: str) -> LoadedModel | None:
        """Return who has a role."""
        return self._served.get(role)

    def all(self) -> list[LoadedModel]:
        """Return everyone, the champion first."""
        return [*self._served.values()]
