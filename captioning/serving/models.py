"""The models in service."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from captioning import params

if TYPE_CHECKING:
    from captioning.captioner import Captioner
    from captioning.generation import GenerationSettings


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedModel:
    """A model that captions, from its loading on until the next version takes over."""

    role: str
    name: str
    version: str | None
    captioner: "Captioner"
    generation: "GenerationSettings"
    loaded_at: str
    """UTC, ISO 8601."""


def load(name: str | None, role: str) -> LoadedModel:
    """Load a folder, or the champion of a registered model; of no name, of the one that params.yaml says.

    Raises:
        ValueError: it is neither, or damaged.
    """
    from captioning import named_models

    stated = name or str(params.read()["register"]["model_name"])
    loaded = named_models.load([stated])
    return LoadedModel(
        role=role,
        name=Path(stated).name,
        version=None,
        captioner=loaded.captioner,  # type: ignore[arg-type]
        generation=loaded.generation,
        loaded_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
