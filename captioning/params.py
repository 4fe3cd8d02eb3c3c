"""params.yaml -> frozen settings, checked whole before any work starts.

Each section is described by a settings class beside the code that uses it; this file only knows where.
"""

import hashlib
import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from captioning import home, lookup

PARAMS_FILE = Path("params.yaml")

SECTIONS = {
    "download": "captioning.downloads.raw:read_settings",
    "clean": "captioning.cleaning:CleanSettings",
    "split": "captioning.splits:SplitSettings",
    "validate": "captioning.gates:ValidateSettings",
    "preprocess": "captioning.preprocessing:PreprocessSettings",
    "inspect": "captioning.gates:InspectSettings",
    "train": "captioning.training:TrainSettings",
    "evaluate": "captioning.evaluation:EvaluateSettings",
    "register": "captioning.promotion:RegisterSettings",
}
"""Section (and stage) name -> the settings class, or a function of the section that returns settings."""


class Settings(BaseModel):
    """Frozen settings that refuse unknown, missing and ill-typed keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())


def named_part(kind: str) -> Callable[[Any], Settings]:
    """Return a validator of `{name: NAME, ...}`, whose keys are those of `captioning.<kind>.<NAME>.Settings`."""

    def parse(value: Any) -> Settings:
        if isinstance(value, Settings):
            return value
        if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
            raise ValueError(
                f"expected a mapping with a name out of {', '.join(lookup.names(kind))}, got {value!r}"
            )
        part: type[Settings] = lookup.find(kind, value["name"]).Settings
        try:
            settings = part.model_validate(dict(value))
        except ValidationError as error:
            raise ValueError("; ".join(_sentences(error, "", sorted(part.model_fields)))) from None
        return settings

    return parse


def read(path: Path = PARAMS_FILE) -> dict[str, Any]:
    """Read a params file as plain values (YAML 1.2, as DVC reads it: `1e-3` is a number).

    Raises:
        ValueError: the file is missing or is not a YAML mapping.
    """
    try:
        values = YAML(typ="safe", pure=True).load(path.read_text())
    except FileNotFoundError:
        raise ValueError(
            f"{path} does not exist; `captioning use RECIPE` writes one, `git checkout {path}` restores it"
        ) from None
    except YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected sections {', '.join(SECTIONS)}, got {type(values).__name__}")
    return values


def check(values: Mapping[str, Any], path: Path = PARAMS_FILE) -> dict[str, Settings]:
    """Return the settings of every section of `values`, which were read from `path`.

    Raises:
        ValueError: one line for each unknown, missing or ill-typed key, with its value and what was expected.
    """
    problems: list[str] = []
    settings: dict[str, Settings] = {}
    if unknown := sorted(set(values) - set(SECTIONS)):
        problems.append(f"unknown sections {unknown}; known: {list(SECTIONS)}")
    for section in SECTIONS:
        if not isinstance(values.get(section), Mapping):
            problems.append(f"missing section {section!r}: expected a mapping, got {values.get(section)!r}")
            continue
        try:
            settings[section] = _parse(section, dict(values[section]))
        except ValidationError as error:
            problems.extend(_sentences(error, f"{section}."))
        except ValueError as error:
            problems.append(f"{section}: {error}")
    if problems:
        raise ValueError("\n".join(f"{path}: {problem}" for problem in problems))
    return settings


def load(section: str, path: Path = PARAMS_FILE) -> Any:
    """Return the settings of one section, after the whole file was found right once.

    To check a file all settings classes are imported, torch with them (5 s); a file that passed is remembered.
    """
    values = read(path)
    passed = home.work("checked") / _identity(path)
    if not passed.exists():
        check(values, path)
        passed.touch()
    return _parse(section, dict(values[section]))


def _identity(path: Path) -> str:
    digest = hashlib.sha256(path.read_bytes())
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _parse(section: str, values: dict[str, Any]) -> Settings:
    module, attribute = SECTIONS[section].split(":")
    parser = getattr(importlib.import_module(module), attribute)
    if isinstance(parser, type) and issubclass(parser, Settings):
        return parser.model_validate(values)
    settings: Settings = parser(values)
    return settings


def _sentences(error: ValidationError, prefix: str, known: Sequence[str] = ()) -> list[str]:
    """Say each problem as one sentence: the key, what is wrong, the value, what was expected.

    `known` are the keys of the settings, where their class is not the only one of its name.
    """
    sentences: list[str] = []
    missing: list[str] = []
    known = known or _known_keys(error.title)
    for problem in error.errors(include_url=False):
        key = prefix + ".".join(str(part) for part in problem["loc"])
        match problem["type"]:
            case "extra_forbidden":
                hint = f"; known: {known}" if known and len(problem["loc"]) == 1 else ""
                sentences.append(f"unknown key {key!r} (value {problem['input']!r}){hint}")
            case "missing":
                missing.append(key)
            case "value_error":
                sentences.append(f"{key}: {problem['ctx']['error']}")
            case _:
                sentences.append(
                    f"{key}: {problem['msg'][0].lower()}{problem['msg'][1:]}, got {problem['input']!r}"
                )
    if missing:
        sentences.append(f"missing keys {missing}; every key is stated, there are no hidden defaults")
    return sentences


def _known_keys(title: str) -> list[str]:
    classes = [Settings]
    while classes:
        candidate = classes.pop()
        if candidate.__name__ == title and candidate.model_fields:
            return sorted(candidate.model_fields)
        classes.extend(candidate.__subclasses__())
    return []
