"""A judgement -> verdict.json, report.json, data_docs/, and what a person reads at the end of the stage."""

import json
from pathlib import Path

from captioning.gates.data_docs import write_data_docs
from captioning.gates.judgement import Finding, Judgement
from captioning.gates.rules import counted
from captioning.outputs import whole_file, whole_folder
from captioning.progress import say


def settle(judgement: Judgement, folder: Path) -> None:
    """Write the reports into `folder`, print the warnings, and let the next stage run or not.

    Raises:
        ValueError: the judgement is a refusal; the reports are written before.
    """
    write_reports(judgement, folder)
    for note in judgement.notes:
        say(f"note: {note}")
    for finding in judgement.warnings:
        say(f"warning: {finding}")
    if not judgement.is_accepted:
        raise ValueError(refusal(judgement, folder))
    num_held = sum(finding.holds for finding in judgement.findings)
    say(f"accepted: {counted(num_held, 'expectation')} hold, {counted(len(judgement.warnings), 'warning')}")


def write_reports(judgement: Judgement, folder: Path) -> None:
    """Write data_docs/, profile.json, report.json and, last, verdict.json into `folder`.

    The same judgement gives the same bytes.
    """
    with whole_folder(folder / "data_docs") as aside:
        write_data_docs(judgement, aside)
    if judgement.profile is not None:
        _write_json(folder / "profile.json", judgement.profile)
    _write_json(folder / "report.json", report(judgement))
    _write_json(folder / "verdict.json", {"accepted": judgement.is_accepted})


def report(judgement: Judgement) -> dict[str, object]:
    """Return the observed values and thresholds of every expectation, fit for JSON."""
    return {
        "accepted": judgement.is_accepted,
        "num_expectations": len(judgement.findings),
        "num_refusals": len(judgement.refusals),
        "num_warnings": len(judgement.warnings),
        "notes": list(judgement.notes),
        "expectations": [_entry(finding) for finding in judgement.findings],
    }


def refusal(judgement: Judgement, folder: Path) -> str:
    """Say of each broken rule what was observed and expected, the next step, and where the report is."""
    count = f"{len(judgement.refusals)} of {len(judgement.findings)} expectations do not hold"
    lines = [f"the {judgement.subject} are refused: {count}"]
    for finding in judgement.refusals:
        lines.append(f"- {finding}")
        key = finding.rule.key
        lines.append(
            f"  next: look at {finding.rule.look_at}" + (f", or change {key} in params.yaml" if key else "")
        )
    lines.append(
        f"Nothing was deleted. Every observed value: {folder}/report.json, {folder}/data_docs/index.html"
    )
    return "\n".join(lines)


def _entry(finding: Finding) -> dict[str, object]:
    rule = finding.rule
    return {
        "claim": rule.claim,
        "holds": finding.holds,
        "severity": rule.severity,
        "observed": finding.observed,
        "expected": rule.expected,
        "key": rule.key,
        "table": rule.table,
        "column": rule.column,
        "num_rows": finding.num_rows,
        "num_unexpected": finding.num_unexpected,
        "examples": [{"row": name, "value": value} for name, value in finding.examples],
        "look_at": rule.look_at,
    }


def _write_json(path: Path, content: object) -> None:
    with whole_file(path) as aside:
        aside.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
