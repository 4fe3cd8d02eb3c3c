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
WEIGHTS_KEYS = ("train.encoder.weights", "train.word_vectors.file")


def use(name: str | None, replacements: Sequence[str], target: Path = params.PARAMS_FILE) -> None:
    """Write `target` from `recipes/<name>.yaml`, or from itself, with `key=value` settings replaced; comments stay.

    A value is YAML (`3`, `1e-3`, `[bleu, cider]`, text); an item of a list is named by its number, such as
    `train.phases.0.epochs`. A file of weights or word vectors is put into weights/.

    Raises:
        ValueError: no such recipe or key, or the outcome is no valid params.yaml, which is then left as it was.
    """
    source = target if name is None else RECIPES / f"{name}.yaml"
    if name is not None and not source.is_file():
        known = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
        raise ValueError(f"no recipe {name!r} in {RECIPES}/; available: {known}")
    yaml = YAML()
    yaml.width = 200
    values = yaml.load(source.read_text())
    for replacement in replacements:
        _replace(values, replacement, "params.yaml" if name is None else "the recipe")
    with whole_file(target) as aside:
        with aside.open("w") as file:
            yaml.dump(values, file)
        params.check(params.read(aside), target)


def _replace(values: Any, replacement: str, source: str) -> None:
    key, is_assignment, text = replacement.partition("=")
    if not is_assignment:
        raise ValueError(f"{replacement!r} is no setting; expected key=value, such as train.seed=1")
    section, last = values, ""
    for part in key.split("."):
        section = section[last] if last != "" else values
        known = _keys(section)
        if part not in known:
            raise ValueError(f"{source} has no key {key!r}; keys there: {', '.join(known or _keys(values))}")
        last = known[part]
    value = YAML(typ="safe", pure=True).load(text)
    section[last] = _in_weights_folder(Path(text), key) if key in WEIGHTS_KEYS and text != "none" else value


def _keys(section: Any) -> dict[str, Any]:
    """Return what leads into a mapping or a list, whose items are named by their numbers."""
    if isinstance(section, Mapping):
        return {str(key): key for key in section}
    return {str(number): number for number in range(len(section))} if isinstance(section, list) else {}


def _in_weights_folder(path: Path, key: str) -> str:
    """Return the name of a weights file inside weights/, where it is put if it lies elsewhere."""
    inside = WEIGHTS / path.name
    if not path.is_absolute() and (WEIGHTS / path).is_file() and path.name == str(path):
        return path.name
    if not path.is_file():
        known = ", ".join(sorted(file.name for file in WEIGHTS.iterdir() if file.suffix != ".md"))
        raise ValueError(f"{key}: no file {str(path)!r}; expected a path, or one of {known} in {WEIGHTS}/")
    if not (inside.exists() and path.samefile(inside)):
        with whole_file(inside) as aside:
            shutil.copyfile(path, aside)
    return inside.name
