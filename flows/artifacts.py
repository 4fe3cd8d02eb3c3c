"""What a stage shows of itself in Prefect: how it ended, and tables and pictures of what it wrote.

Files are recognised by what they are, not by the stage that wrote them: metrics as dvc.yaml lists them, gate
verdicts and reports, hypotheses, evaluations and registry receipts by their names.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from flows.stage_graph import Stage
from flows.stage_run import StageRun
from flows.thumbnails import read_pictures, smaller

NUM_SAMPLE_CAPTIONS = 10
VERDICT = "verdict.json"
RECEIPT_NAME = "registration.json"
"""An output of this name says what the registry was told."""
EVALUATION = "evaluation.html"
SHOWN_BY_DECISION = ("decision", "reason", "reasons", "scores", "champion_scores", "gain", "gain_interval")


def artifact_key(stage_name: str) -> str:
    """Return the stage's name in the letters that Prefect allows in a key: lower case, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", stage_name.lower()).strip("-")


def stage_markdown(stage: Stage, run: StageRun, pages: Mapping[Path, str] | None = None) -> str:
    """Return one page about a run of a stage, in Markdown.

    Args:
        stage: what dvc.yaml says of it.
        run: how it ended.
        pages: where the HTML that it wrote is read, an address or a path each.
    """
    parts = [f"**{run.outcome}** in {run.seconds:,.1f} s", stage.desc]
    for page, address in (pages or {}).items():
        parts.append(linked(page, address))
    shown = {path: SECTIONS[path.name] for name in SECTIONS for path in stage.outs if path.name == name}
    for path, render in (dict.fromkeys(stage.metrics, _table_of_values) | shown).items():
        if path.is_file():
            parts += [f"### {path.as_posix()}", render(path)]
    if run.outcome in ("failed", "refused", "timed out"):
        parts += ["### Its last lines", "```\n" + "\n".join(run.last_lines) + "\n```"]
    return "\n\n".join(part for part in parts if part)


def linked(page: Path, address: str) -> str:
    """Return a link to a page; a path as such, since no browser follows one from Prefect's pages."""
    name = page.parent.as_posix() if page.name == "index.html" else page.as_posix()
    return f"[{name}]({address})" if "://" in address else f"{name}: `{address}`"


def is_refusal(stage: Stage) -> bool:
    """Tell whether the stage's verdict is that the pipeline must stop here."""
    verdicts = [out for out in stage.outs if out.name == VERDICT and out.is_file()]
    return any(not json.loads(verdict.read_text())["accepted"] for verdict in verdicts)


def decision_markdown(receipt: Mapping[str, Any]) -> str:
    """Return the decision about a version, its reasons, and its scores beside the champion's."""
    parts = [f"**{receipt.get('decision', '')}**: {receipt.get('reason', '')}"]
    parts.append("\n".join(f"- {reason}" for reason in receipt.get("reasons") or []))
    scores, others = receipt.get("scores") or {}, receipt.get("champion_scores") or {}
    if scores:
        header = [f"version {receipt.get('version')}"]
        if others:
            header.append(f"champion, version {receipt.get('champion_before')}")
        rows = [
            (name, f"{value:.4f}", *([f"{others[name]:.4f}" if name in others else ""] if others else []))
            for name, value in scores.items()
        ]
        parts.append(_table(("score", *header), rows))
    parts.append(_gain(receipt))
    return "\n\n".join(part for part in parts if part)


def _gain(receipt: Mapping[str, Any]) -> str:
    gain, interval = receipt.get("gain"), receipt.get("gain_interval")
    if gain is None:
        return ""
    text = f"Gain in {receipt.get('metric')}: **{gain:+.4f}**"
    return f"{text}, 95 % interval {interval[0]:+.4f} to {interval[1]:+.4f}" if interval else text


def pictures_markdown(page: Path) -> str:
    """Return the pictures of an evaluation as thumbnails with their captions, a table a band."""
    parts = []
    for band, pictures in groupby(read_pictures(page), key=lambda picture: picture.band):
        shown = list(pictures)
        thumbnails = [f"![{_plain(own.caption)}]({smaller(own.uri)})" for own in shown]
        captions = [f"**{_plain(own.caption)}**" for own in shown]
        said = [_plain(own.references[0]) if own.references else "" for own in shown]
        scores = [_plain(own.score) for own in shown]
        parts += [f"#### {band}", _table(thumbnails, [captions, said, scores], is_marked_up=True)]
    return "\n\n".join(parts)


def _receipt(path: Path) -> str:
    receipt = json.loads(path.read_text())
    others = {name: value for name, value in receipt.items() if name not in SHOWN_BY_DECISION}
    return f"{decision_markdown(receipt)}\n\n{_table(('name', 'value'), list(_leaves(others)))}"


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
    VERDICT: _verdict,
    "report.json": _broken_expectations,
    RECEIPT_NAME: _receipt,
    EVALUATION: pictures_markdown,
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


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, is_marked_up: bool = False) -> str:
    lines = [header, ["---"] * len(header), *rows]
    shown = lines if is_marked_up else [[_cell(text) for text in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in shown)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _plain(text: str) -> str:
    """Return text that means nothing to Markdown, for a cell whose other parts do."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(text.split()))
