"""A model as a person names it, a registered one or a folder -> its captioner, and how it makes captions."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from captioning import champion, params

if TYPE_CHECKING:
    from captioning.captioner import AnyCaptioner
    from captioning.generation import GenerationSettings


@dataclass(frozen=True, kw_only=True)
class NamedModel:
    """A captioner, or several that decide together."""

    captioner: "AnyCaptioner"
    generation: "GenerationSettings"
    """Of the first model, as it was registered; of a folder, plain beam search."""
    trainings: str
    """Which trainings made it, to compare by and for people: the beginnings of their fingerprints."""


def load(names: Sequence[str]) -> NamedModel:
    """Load models onto the device of this machine.

    Args:
        names: folders that `Captioner.save` wrote, or registered models, whose champion is taken; none for the one that
            params.yaml names.

    Raises:
        ValueError: one is neither, is damaged, or they do not fit together.
    """
    from captioning.captioner import Captioner
    from captioning.distributed import device
    from captioning.ensemble import Ensemble
    from captioning.generation import PLAIN_BEAM, read_settings

    folders, logged = [], []
    for name in names or [str(params.read()["register"]["model_name"])]:
        is_folder = (Path(name) / "captioner.json").exists()
        model = None if is_folder else champion.champion_model(name)
        folders.append(Path(name) if model is None else champion.captioner_folder(model))
        logged.append(model)
    one = len(folders) == 1
    return NamedModel(
        captioner=Captioner.load(folders[0], device()) if one else Ensemble.load(folders, device()),
        generation=PLAIN_BEAM if logged[0] is None else read_settings(champion.generation_of(logged[0])),
        trainings=" + ".join(
            json.loads((folder / "captioner.json").read_text())["fingerprint"][:8] for folder in folders
        ),
    )
