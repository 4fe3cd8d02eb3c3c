"""Recipes: whole params.yaml files of known systems, and the settings that a user replaces in them."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from captioning import params
from captioning.outputs import whole_file

RECIPES = Path("recipes")
WEIGHTS = Path("weights")
WEIGHTS_KEY = "train.encoder.weights"


def use(name: str, replacements: Sequence[str], target: Path = params.PARAMS_FILE) -> None:
    """Write `target` from `recipes/<name>.yaml` with `key=value` settings replaced; comments stay.

    A value is YAML (`3`, `1e-3`, `[bleu, cider]`, text). An encoder's weights file is put into weights/.

    Raises:
        ValueError: no such recipe or key, or the outcome is no valid params.yaml, which is then left as it was.
    """
    source = RECIPES / f"{name}.yaml"
    if not source.is_file():
        known = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
        raise ValueError(f"no recipe {name!r} in {RECIPES}/; available: {known}")
    yaml = YAML()
    yaml.width = 200
    values = yaml.load(source.read_text())
    for replacement in replacements:
        _replace(values, replacement)
    with whole_file(target) as aside:
        with aside.open("w") as file:
            yaml.dump(values, file)
        params.check(params.read(aside), target)


def _replace(values: Any, replacement: str) -> None:
    key, is_assignment, text = replacement.partition("=")
    if not is_assignment:
        raise ValueError(f"{replacement!r} is no setting; expected key=value, such as train.epochs=20")
    *path, last = key.split(".")
    section = values
    for part in path:
        section = section.get(part) if isinstance(section, Mapping) else None
    if not isinstance(section, Mapping) or last not in section:
        known = ", ".join(section) if isinstance(section, Mapping) else ", ".join(values)
        raise ValueError(f"the recipe has no key {key!r}; keys there: {known}")
    value = YAML(typ="safe", pure=True).load(text)
    section[last] = _in_weights_folder(Path(text)) if key == WEIGHTS_KEY else value  # type: ignore[index]


def _in_weights_folder(path: Path) -> str:
    """Return the name of a weights file inside weights/, where it is put if it lies elsewhere."""
    inside = WEIGHTS / path.name
    if not path.is_absolute() and (WEIGHTS / path).is_file() and path.name == str(path):
        return path.name
    if not path.is_file():
        known = ", ".join(sorted(file.name for file in WEIGHTS.iterdir() if file.suffix != ".md"))
        raise ValueError(
            f"{WEIGHTS_KEY}: no file {str(path)!r}; expected a state dict, or one of {known} in {WEIGHTS}/"
        )
    if not (inside.exists() and path.samefile(inside)):
        with whole_file(inside) as aside:
            shutil.copyfile(path, aside)
    return inside.name
