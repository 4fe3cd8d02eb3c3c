"""What a sweep ends with: a table of its experiments, files beside it, and MLflow's parent of their trainings."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captioning import creation, store, tracking
from captioning.metrics import higher_is_better
from captioning.outputs import whole_file
from captioning.reports import comparison_table
from captioning.reports.reported_run import ReportedRun, read_run
from flows.experiments import Result

PARENT_TAG = "mlflow.parentRunId"
SWEEP_TAG = "captioning.sweep"


@dataclass(frozen=True, kw_only=True)
class Report:
    """A finished sweep."""

    name: str
    markdown: str
    best: str | None
    """The settings of the best experiment and its score, in words; None where all failed."""
    next_step: str
    scores: dict[int, dict[str, float]]
    """Of each experiment that ended well, by its number."""
    results: list[Result]


def write(
    folder: Path, name: str, results: Sequence[Result], register: Mapping[str, Any], recipe: str | None
) -> Report:
    """Write sweep.md, and comparison.md, .csv and .png of the experiments that ended well, into `folder`.

    Args:
        folder: made if absent.
        name: of the sweep.
        results: in the order of the sweep.
        register: the section of params.yaml, whose metric decides which is the best.
        recipe: of all experiments.
    """
    folder.mkdir(parents=True, exist_ok=True)
    runs: dict[int, ReportedRun] = {}
    rows = list(results)
    for position, result in enumerate(rows):
        if result.reports is not None:
            try:
                runs[result.experiment.number] = read_run(result.reports, result.experiment.name)
            except ValueError as error:
                rows[position] = Result(experiment=result.experiment, error=str(error))
    metric = str(register["metric"])
    scored = {number: run.scores[metric] for number, run in runs.items() if metric in run.scores}
    best = None
    if scored:
        best = (max if higher_is_better(metric) else min)(scored, key=scored.__getitem__)
    overrides = {own.experiment.number: own.experiment.overrides for own in rows}
    next_step = (
        _next_step(recipe, overrides[best]) if best else "Mend what the errors say and start it again."
    )
    compared = comparison_table.compare_runs(list(runs.values())) if len(runs) > 1 else None
    table = _table(rows, metric, scored, best)
    parts = [f"# {name}", table, next_step]
    if compared:
        comparison_table.write_comparison(compared, folder)
        parts.append(re.sub("^#", "##", comparison_table.markdown(compared), flags=re.MULTILINE))
    markdown = "\n\n".join(parts)
    with whole_file(folder / "sweep.md") as aside:
        aside.write_text(markdown + "\n", encoding="utf-8")
    return Report(
        name=name,
        markdown=markdown,
        best=f"{', '.join(overrides[best]) or 'params.yaml'}, {metric} {scored[best]:.4f}" if best else None,
        next_step=next_step,
        scores={number: run.scores for number, run in runs.items()},
        results=rows,
    )


def _next_step(recipe: str | None, overrides: Sequence[str]) -> str:
    options = [f"--recipe {shlex.quote(recipe)}"] if recipe else []
    words = " ".join([*options, *map(shlex.quote, overrides)])
    parameters = json.dumps(list(overrides))
    return (
        f"`python -m flows.retrain {words}` registers the best, from what is in the cache; on a server, `retrain` with "
        f"overrides `{parameters}`" + (f" and recipe `{recipe}`." if recipe else ".")
    )


def _table(results: Sequence[Result], metric: str, scored: Mapping[int, float], best: int | None) -> str:
    lines = [f"| | settings | {metric} | failure |", "|--:|---|--:|---|"]
    for result in results:
        number = result.experiment.number
        score = f"{scored[number]:.4f}" if number in scored else "–"
        score = f"**{score}**" if number == best else score
        cells = [str(number), result.experiment.name, score, result.error or ""]
        lines.append("| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def record(report: Report, folder: Path, model_name: str) -> str | None:
    """Make a run of MLflow for the sweep, continued where it exists, and the parent of its trainings.

    Returns:
        What kept it from being recorded, as a sentence.
    """
    try:
        client = store.client()
        experiment = client.get_experiment_by_name(model_name)
        if experiment is None:
            return None  # nothing was trained
        where = experiment.experiment_id
        found = creation.find_runs(where, SWEEP_TAG, report.name)
        parent = found[0] if found else creation.create_run(where, {SWEEP_TAG: report.name}, report.name)
        for result in report.results:
            trainings = client.search_runs(
                [where], f"tags.`captioning.fingerprint` = '{result.fingerprint}'", max_results=1
            )
            for run in trainings if result.fingerprint else []:
                client.set_tag(run.info.run_id, PARENT_TAG, parent.info.run_id)
                scores = report.scores.get(result.experiment.number, {})
                tracking.log_scores(run.info.run_id, {f"test_{name}": own for name, own in scores.items()})
        client.set_tag(parent.info.run_id, "mlflow.note.content", report.markdown)
        for path in folder.iterdir():
            if path.is_file():
                client.log_artifact(parent.info.run_id, str(path), "sweep")
        client.set_terminated(parent.info.run_id, "FINISHED" if report.best else "FAILED")
    except Exception as error:  # whatever goes wrong with the record, the experiments are worth more
        return f"the sweep is not recorded in MLflow; run it again, which takes seconds: {error}"
    return None
