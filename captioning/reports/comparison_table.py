"""Runs beside each other: a table as Markdown and CSV, a picture of the scores, and the curves laid over each other.

Intervals of single runs say little about their difference: on the same pictures both runs find the same ones hard. The
differences are therefore those of a paired bootstrap, and only of runs that were scored on the same pictures, with the
same references and the same tokenizer.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from captioning import lookup
from captioning.bootstrap import Difference
from captioning.comparison import compare
from captioning.figures import ScoredRun, curves_of_runs, score_dots
from captioning.metrics import has_direction, higher_is_better, metric_of
from captioning.outputs import whole_file
from captioning.reports.page import headline_scores
from captioning.reports.reported_run import ReportedRun
from captioning.reports.templating import number, render
from captioning.score_names import label
from captioning.scoring import ALWAYS_GIVEN

ORDER = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "cider", "spice")
"""Of the columns; other scores come after them."""
NUM_SAMPLES = 1000
"""Of the bootstrap."""
TOLERANCE = 1e-4
"""Between a score that a run states and what its captions are found to score again."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Runs, the first of which the others are compared with."""

    runs: list[ReportedRun]
    names: list[str]
    """Of the scores, in the order of the columns."""
    differences: dict[str, dict[str, Difference]]
    """By run name and score name: the run less the first one. A run that cannot be compared is missing."""
    obstacles: dict[str, str]
    """By run name: why it cannot be compared with the first one, as a sentence."""
    unfounded: dict[str, dict[str, float]]
    """By run name and score name, where the captions score otherwise than the run states: what they score."""


def compare_runs(runs: Sequence[ReportedRun]) -> Comparison:
    """Compare each run with the first one, in the scores that captions and references are enough for.

    Raises:
        ValueError: two runs have one name.
    """
    named = [run.name for run in runs]
    if twice := sorted({name for name in named if named.count(name) > 1}):
        raise ValueError(f"{', '.join(twice)} is named more than once; name different runs")
    stated = {name for run in runs for name in run.scores}
    names = [name for name in ORDER if name in stated] + sorted(stated - set(ORDER))
    first, *others = runs
    found: dict[str, dict[str, Difference]] = {}
    obstacles = {}
    for run in others:
        try:
            found[run.name] = _differences(run, first)
        except ValueError as error:
            obstacles[run.name] = f"{run.name} is not compared with {first.name}: {error}."
    unfounded = _unfounded(first, [run for run in others if run.name in found], found)
    differences = {
        run: {
            name: own
            for name, own in of_run.items()
            if name in first.scores and name not in unfounded[run] and name not in unfounded[first.name]
        }
        for run, of_run in found.items()
    }
    return Comparison(
        runs=list(runs),
        names=names,
        differences={run: own for run, own in differences.items() if own},
        obstacles=obstacles,
        unfounded=unfounded,
    )


def _unfounded(
    first: ReportedRun, others: Sequence[ReportedRun], found: Mapping[str, Mapping[str, Difference]]
) -> dict[str, dict[str, float]]:
    """Return what captions score where their run states otherwise: it was altered, or other code made it."""
    unfounded: dict[str, dict[str, float]] = {run.name: {} for run in (first, *others)}
    for run in others:
        for name, own in found[run.name].items():
            for stating, value in zip((run, first), own.of, strict=True):
                if abs(stating.scores.get(name, value) - value) >= TOLERANCE:
                    unfounded[stating.name][name] = value
    return unfounded


def _differences(run: ReportedRun, first: ReportedRun) -> dict[str, Difference]:
    """Score both runs again, for the statistics of each image; return the differences in the scores of `run`."""
    if run.tokenizer != first.tokenizer:
        raise ValueError(
            f"their captions were scored with different tokenizers, {run.tokenizer} and {first.tokenizer}"
        )
    metrics = [name for name in dict.fromkeys(map(metric_of, run.scores)) if name and _reads_captions(name)]
    found = compare(run.captioned, first.captioned, metrics, num_samples=NUM_SAMPLES)
    if not found.keys() & run.scores.keys() & first.scores.keys():
        raise ValueError("no score of both is of captions and references alone; evaluate both with bleu")
    return {name: own for name, own in found.items() if name in run.scores}


def _reads_captions(metric: str) -> bool:
    """Tell whether a metric reads hypotheses and references only, not the model that made them."""
    return inspect.signature(lookup.find("metrics", metric).score).parameters.keys() <= ALWAYS_GIVEN


def table(comparison: Comparison) -> pd.DataFrame:
    """Return a row a run: what it is, its scores with intervals, and its differences to the first run."""
    return pd.DataFrame([_row(comparison, run) for run in comparison.runs]).convert_dtypes(
        convert_string=False, convert_boolean=False, convert_floating=False
    )


def _row(comparison: Comparison, run: ReportedRun) -> dict[str, Any]:
    row: dict[str, Any] = {
        "run": run.name,
        "decoder": run.decoder,
        "encoder": run.encoder,
        "num_parameters": run.num_parameters,
        "num_epochs": run.num_epochs,
        "training_seconds": run.training_seconds and round(run.training_seconds),
        "split": run.split,
        "num_images": len(run.captioned.references),
        "tokenizer": run.tokenizer,
    }
    found = comparison.differences.get(run.name, {})
    for name in comparison.names:
        row[name] = run.scores.get(name)
        row[f"{name}_low"], row[f"{name}_high"] = run.intervals.get(name, (None, None))
    for name in comparison.names:
        if any(name in own for own in comparison.differences.values()):
            own = found.get(name)
            row[f"{name}_difference"] = own and round(own.value, 6)
            row[f"{name}_difference_low"] = own and round(own.interval[0], 6)
            row[f"{name}_difference_high"] = own and round(own.interval[1], 6)
            row[f"{name}_p"] = own and round(own.p_value, 6)
    return row


def markdown(comparison: Comparison) -> str:
    """Return the comparison as a page of Markdown, the best score of each column in bold."""
    usual = [name for name in comparison.names if name in ORDER] or comparison.names
    further = [name for name in comparison.names if name not in usual]
    found = comparison.differences
    compared = [name for name in comparison.names if any(name in own for own in found.values())]
    return render(
        "comparison.md",
        comparison=comparison,
        first=comparison.runs[0],
        labels=list(map(label, usual)),
        rows=[
            (run, _duration(run.training_seconds), _cells(comparison, run, usual)) for run in comparison.runs
        ],
        further_labels=list(map(label, further)),
        further=[(run.name, _cells(comparison, run, further)) for run in comparison.runs],
        difference_labels=list(map(label, compared)),
        differences=[
            (name, [_difference(own.get(score), score) for score in compared]) for name, own in found.items()
        ],
        reasons=[*comparison.obstacles.values(), *_contradictions(comparison)],
        tokenizers=list(dict.fromkeys(run.tokenizer for run in comparison.runs)),
    )


def _contradictions(comparison: Comparison) -> list[str]:
    return [
        f"{run.name}: its metrics.json states {label(name)} {run.scores[name]:.6g}, its captions score {value:.6g}; "
        "evaluate it again."
        for run in comparison.runs
        for name, value in comparison.unfounded.get(run.name, {}).items()
    ]


def _cells(comparison: Comparison, run: ReportedRun, names: Sequence[str]) -> list[tuple[str, bool]]:
    """Return each score in words, and whether it is the best of the runs."""
    return [
        (_score(run, name), name in run.scores and run.scores[name] == _best(comparison, name))
        for name in names
    ]


def _best(comparison: Comparison, name: str) -> float | None:
    """Return the best of a score; None of one run only, or where more is not better, or which is best is not sure."""
    values = [run.scores[name] for run in comparison.runs if name in run.scores]
    is_doubtful = comparison.obstacles or any(name in own for own in comparison.unfounded.values())
    if len(values) < 2 or is_doubtful or not has_direction(name):
        return None
    return max(values) if higher_is_better(name) else min(values)


def _score(run: ReportedRun, name: str) -> str:
    if name not in run.scores:
        return "–"
    interval = run.intervals.get(name)
    return number(run.scores[name]) + (
        f" ({number(interval[0])} to {number(interval[1])})" if interval else ""
    )


def _difference(difference: Difference | None, name: str) -> str:
    if difference is None:
        return "–"
    low, high = (f"{own:+.3f}" for own in difference.interval)
    is_sure = has_direction(name) and not difference.interval[0] <= 0 <= difference.interval[1]
    sign = difference.value if is_sure else 0
    word = "" if not sign else " better" if (sign > 0) == higher_is_better(name) else " worse"
    return f"{difference.value:+.3f}{word} ({low} to {high}; p {difference.p_value:.3f})"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Write comparison.md, comparison.csv, comparison.png and, of the runs with a history, curves.png."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("comparison.md", markdown(comparison)),
        ("comparison.csv", table(comparison).to_csv(index=False)),
    ):
        with whole_file(folder / name) as aside:
            aside.write_text(text, encoding="utf-8")
    rows = [
        ScoredRun(run.name, ", ".join(filter(None, (run.decoder, run.encoder))), run.scores, run.intervals)
        for run in comparison.runs
    ]
    score_dots(rows, headline_scores(dict.fromkeys(comparison.names, 0.0)), folder / "comparison.png")
    histories = {run.name: run.history for run in comparison.runs if run.history is not None}
    if histories:
        curves_of_runs(histories, folder / "curves.png")
