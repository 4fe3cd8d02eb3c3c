"""A run as its reports folder tells of it: for comparisons."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from captioning.comparison import Captioned, read_captioned
from captioning.reports.model_facts import FILE, ModelFacts

Intervals = dict[str, tuple[float, float]]

INTERVALS = "intervals_95"
"""Key of metrics.json beside the split's."""


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
    history = _read_history(history_file) if history_file.exists() else None
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        split, scores = _scores(metrics)
        captioned = read_captioned(folder / "hypotheses.jsonl")
        num_images = len(captioned.hypotheses)
        if (stated := metrics.get("num_images", num_images)) != num_images:
            raise ValueError(f"metrics.json is of {stated} images, hypotheses.jsonl of {num_images}")
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
            intervals=_intervals(metrics.get(INTERVALS, {})),
            captioned=captioned,
            history=history,
        )
    except (OSError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(
            f"{folder} does not hold the reports of a run, metrics.json and hypotheses.jsonl as `dvc repro evaluate` "
            f"writes them: {error}"
        ) from None


def _scores(metrics: Any) -> tuple[str, dict[str, float]]:
    """Return the split that metrics.json is of, and its scores."""
    parts = metrics.items() if isinstance(metrics, dict) else ()
    split, scores = next(
        ((key, own) for key, own in parts if key != INTERVALS and isinstance(own, dict)), ("", {})
    )
    if not scores or not isinstance(metrics.get("tokenizer"), str):
        raise ValueError("metrics.json holds no scores by their names, or does not name their tokenizer")
    for name, score in scores.items():
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            raise ValueError(f"metrics.json states {score!r} for {name}, expected a finite number")
    return split, scores


def _intervals(bounds: Any) -> Intervals:
    return {name: (float(low), float(high)) for name, (low, high) in bounds.items()}


def _read_history(path: Path) -> pd.DataFrame:
    """Return the table of epochs as it can be drawn."""
    try:
        history = pd.read_csv(path)
        has_numbers = all(map(pd.api.types.is_numeric_dtype, history.dtypes))
        if (
            "epoch" not in history
            or history.empty
            or not has_numbers
            or not np.isfinite(history["epoch"]).all()
        ):
            raise ValueError("expected a row of numbers each, its own in the column epoch")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} is no table of epochs: {error}; `dvc repro train` writes it, and without it no curves are drawn"
        ) from None
    return history
