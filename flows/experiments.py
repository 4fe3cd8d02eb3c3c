"""The experiments of a sweep: which settings each has, and which work several of them share."""

import itertools
import json
from collections.abc import Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc.repo import Repo

OPENING, CLOSING, QUOTES = "[{", "]}", "\"'"


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One member of a sweep."""

    number: int
    """From 1, in the order of the sweep."""
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its settings."""
        return ", ".join(self.overrides) or "params.yaml"


@dataclass(frozen=True, kw_only=True)
class Result:
    """How an experiment ended: with reports, or with an error."""

    experiment: Experiment
    reports: Path | None = None
    fingerprint: str | None = None
    """Of its training."""
    error: str | None = None


def expand(grid: Sequence[str], members: Sequence[Sequence[str]]) -> list[Experiment]:
    """Return each of `members` with each combination of `grid`, the last of whose settings changes first.

    Args:
        grid: settings with several values, such as `train.seed=1,2,3`; a comma inside of brackets or quotes parts none.
        members: lists of settings; none are one without.

    Raises:
        ValueError: a setting of the grid has no values, or there are not two different members.
    """
    axes = [_values(axis) for axis in grid]
    found = [
        (*member, *combination) for member in members or [()] for combination in itertools.product(*axes)
    ]
    if len(set(found)) < len(found):
        twice = next(own for own in found if found.count(own) > 1)
        raise ValueError(f"the sweep has {', '.join(twice)!r} twice; name different settings")
    if len(found) < 2:
        raise ValueError(
            "a sweep compares at least two experiments: name several values, as in train.seed=1,2,3, or members"
        )
    return [Experiment(number=number, overrides=own) for number, own in enumerate(found, start=1)]


def _values(axis: str) -> list[str]:
    key, is_assignment, text = axis.partition("=")
    values = _parted(text)
    if not is_assignment or not all(values):
        raise ValueError(f"{axis!r} is no setting with values; expected such as train.seed=1,2,3")
    return [f"{key}={value}" for value in values]


def _parted(text: str) -> list[str]:
    """Return what the commas of `text` part that stand in no brackets or quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if letter == "," and not depth and not quote:
            parts.append("")
            continue
        parts[-1] += letter
        if letter in QUOTES and quote in ("", letter):
            quote = "" if quote else letter
        elif not quote:
            depth += (letter in OPENING) - (letter in CLOSING)
    return [part.strip() for part in parts]


def shared_work(
    folder: Path, stages: Sequence[str], settings: Mapping[int, Mapping[str, Any]]
) -> dict[int, list[str]]:
    """Return what is to be done before experiments run at the same time: stages that several of them would all run.

    Two experiments share a stage where it, and all that it reads from, read equal settings.

    Args:
        folder: of a checkout.
        stages: names of those that run, in running order.
        settings: the whole params.yaml of each experiment, by its number.

    Returns:
        Names of stages by the number of the first experiment that has them.
    """
    reads, upstream = _graph(folder)
    seen: dict[str, int] = {}
    shared: dict[str, bool] = {}
    for number, values in settings.items():
        for stage in stages:
            names = sorted({stage, *upstream[stage]})
            own = json.dumps([stage, [[_value(values, key) for key in reads[name]] for name in names]])
            shared[own] = own in seen
            seen.setdefault(own, number)
    first: dict[int, list[str]] = {}
    for own, is_shared in shared.items():
        if is_shared:
            first.setdefault(seen[own], []).append(json.loads(own)[0])
    return first


def _graph(folder: Path) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return by stage the keys of params.yaml that it reads, and all stages that it reads from, directly or not."""
    import networkx

    with chdir(folder), Repo() as repo:  # from elsewhere DVC names stages by their paths
        graph = repo.index.graph
        reads = {
            stage.addressing: sorted(key for dependency in stage.params for key in dependency.params)
            for stage in graph
        }
        upstream = {
            stage.addressing: sorted(other.addressing for other in networkx.descendants(graph, stage))
            for stage in graph
        }
    return reads, upstream


def _value(values: Mapping[str, Any], key: str) -> Any:
    found: Any = values
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
