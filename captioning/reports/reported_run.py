"""A run as its reports folder tells of it: for comparisons."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from captioning.comparison import Captioned, read_captioned
from captioning.reports.model_facts import FILE, ModelFacts

Intervals = dict[str, tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class ReportedRun:
    """What metrics.json, hypotheses.jsonl, model.json and training/history.csv say."""

    name: str
    decoder: str
    """Empty where nothing states it, as the following ones are None."""
    encoder: str
    num_parameters: int | None
    num_epochs: int | None
    training_seconds: float | None
    """Validation included; nothing but MLflow's records states it."""
    split: str
    tokenizer: str
    scores: dict[str, float]
    intervals: Intervals
    captioned: Captioned = field(repr=False)
    history: pd.DataFrame | None = field(repr=False)
    """None where the reports have none."""


def read_run(
    folder: Path, name: str, *, decoder: str = "", encoder: str = "", training_seconds: float | None = None
) -> ReportedRun:
    """Read a reports folder.

    Args:
        folder: `reports`, of a project or of a run's artifacts.
        name: what the run is called beside others.
        decoder: where model.json, which runs of old lack, does not state it; so `encoder`.
        encoder: as `decoder`.
        training_seconds: how long the training took, validation included, if known.

    Raises:
        ValueError: a file is missing or is not what the evaluate stage writes.
    """
    model = ModelFacts.load(folder / FILE) if (folder / FILE).exists() else None
    history_file = folder / "training" / "history.csv"
    history = pd.read_csv(history_file) if history_file.exists() else None
    try:
        metrics = json.loads((folder / "metrics.json").read_text())
        split, scores = next((key, value) for key, value in metrics.items() if _are_scores(value))
        return ReportedRun(
            name=name,
            decoder=model.decoder if model else decoder,
            encoder=model.encoder if model else encoder,
            num_parameters=model.num_parameters if model else None,
            num_epochs=len(history) if history is not None else model.num_epochs if model else None,
            training_seconds=training_seconds,
            split=split,
            tokenizer=metrics["tokenizer"],
            scores=scores,
            intervals={score: (low, high) for score, (low, high) in metrics.get("intervals_95", {}).items()},
            captioned=read_captioned(folder / "hypotheses.jsonl"),
            history=history,
        )
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise ValueError(
            f"{folder} does not hold the reports of a run, metrics.json and hypotheses.jsonl as `dvc repro evaluate` "
            f"writes them: {error}"
        ) from None


def _are_scores(value: object) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(own, int | float) for own in value.values())
    )
