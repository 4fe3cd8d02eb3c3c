"""What a stage shows of itself in Prefect: how it ended, and tables of the small files that it wrote.

Files are recognised by what they are, not by the stage that wrote them: metrics as dvc.yaml lists them, gate
verdicts and reports, hypotheses and registry receipts by their names.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from flows.stage_graph import Stage
from flows.stage_run import StageRun

NUM_SAMPLE_CAPTIONS = 10


def artifact_key(stage_name: str) -> str:
    """Return the stage's name in the letters that Prefect allows in a key: lower case, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", stage_name.lower()).strip("-")


def stage_markdown(stage: Stage, run: StageRun) -> str:
    """Return one page about a run of a stage, in Markdown."""
    parts = [f"**{run.outcome}** in {run.seconds:,.1f} s", stage.desc]
    for path in stage.outs:
        render = _table_of_values if path in stage.metrics else SECTIONS.get(path.name)
        if render and path.is_file():
            parts += [f"### {path.as_posix()}", render(path)]
    if run.outcome == "failed":
        parts += ["### Its last lines", "```\n" + "\n".join(run.last_lines) + "\n```"]
    return "\n\n".join(part for part in parts if part)


def _verdict(path: Path) -> str:
    return "accepted" if json.loads(path.read_text())["accepted"] else "**refused**"


def _broken_expectations(path: Path) -> str:
    expectations = json.loads(path.read_text())["expectations"]
    broken = [row for row in expectations if not row["holds"]]
    if not broken:
        return f"all {len(expectations)} expectations hold"
    cells = [(row["severity"], row["claim"], str(row["observed"]), str(row["expected"])) for row in broken]
    return _table(("severity", "expectation", "observed", "expected"), cells)


def _table_of_values(path: Path) -> str:
    return _table(("name", "value"), list(_leaves(json.loads(path.read_text()))))


def _sample_captions(path: Path) -> str:
    with path.open() as lines:
        rows = [json.loads(line) for line in islice(lines, NUM_SAMPLE_CAPTIONS)]
    cells = [
        (row["image_id"], row["hypothesis"], row["references"][0] if row["references"] else "")
        for row in rows
    ]
    return _table(("image", "hypothesis", "first reference"), cells)


SECTIONS: dict[str, Callable[[Path], str]] = {
    "verdict.json": _verdict,
    "report.json": _broken_expectations,
    "registration.json": _table_of_values,
    "hypotheses.jsonl": _sample_captions,
}
"""Name of an output -> what is shown of it."""


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted name, value) for each leaf of parsed JSON; fractions with four digits."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else key)
    else:
        yield name, f"{value:.4f}" if isinstance(value, float) else str(value)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(text) for text in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
