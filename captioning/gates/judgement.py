"""What Great Expectations finds when it judges the rules.

Suites are code and the context is ephemeral, so that nothing of Great Expectations outlives the run.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from captioning.gates.rules import TOTALS, Rule, in_words

NUM_EXAMPLES = 3
"""Rows named where a rule is broken."""

Value = int | float | str


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was observed about one rule."""

    rule: Rule
    holds: bool
    num_rows: int
    num_unexpected: int
    """Rows that break the rule; 0 or 1 where it is about a total."""
    observed: Value | None
    """The total judged; for a rule about every row, smallest and largest value in words, None for text."""
    examples: tuple[tuple[str, Value | None], ...]
    """Name and value of up to `NUM_EXAMPLES` rows that break the rule."""

    @property
    def is_of_rows(self) -> bool:
        """Whether the rule is about each row rather than about one number."""
        return self.rule.table != TOTALS

    def __str__(self) -> str:
        """Say what was observed and what was expected, in one line."""
        return f"{self.rule.claim}: {self.observation}; expected {self.rule.expected}"

    @property
    def observation(self) -> str:
        """Return the number judged, or which rows break the rule, in words."""
        if not self.is_of_rows or self.holds:
            return in_words(self.observed) if self.observed is not None else ""
        examples = ", ".join(
            name if value is None else f"{name} ({in_words(value)})" for name, value in self.examples
        )
        count = f"{self.num_unexpected:,} of {self.num_rows:,} {self.rule.table}"
        return f"not so for {count}, for example {examples}"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Everything found about one stage's input."""

    subject: str
    """What was judged, in words."""
    findings: tuple[Finding, ...]
    results: tuple[Any, ...] = field(repr=False)
    """One validation result of Great Expectations a feature table, for its pages."""

    @property
    def is_accepted(self) -> bool:
        """Whether the next stage may run."""
        return not self.refusals

    @property
    def refusals(self) -> list[Finding]:
        """Return the broken rules that stop the pipeline."""
        return [
            finding for finding in self.findings if not finding.holds and finding.rule.severity == "refuse"
        ]

    @property
    def warnings(self) -> list[Finding]:
        """Return the broken rules that do not."""
        return [finding for finding in self.findings if not finding.holds and finding.rule.severity == "warn"]

    def __add__(self, other: "Judgement") -> "Judgement":
        return Judgement(
            subject=self.subject,
            findings=self.findings + other.findings,
            results=self.results + other.results,
        )


def judge(subject: str, tables: Mapping[str, pd.DataFrame], rules: Sequence[Rule]) -> Judgement:
    """Return what is found about each rule, in the order of `rules`."""
    gx = _great_expectations()
    source = _ephemeral_context(gx).data_sources.add_pandas("features")
    findings: dict[int, Finding] = {}
    results = []
    for table, frame in tables.items():
        assert not frame.isna().to_numpy().any(), (
            f"feature table {table} has missing values, which would pass unseen"
        )
        own = {number: rule for number, rule in enumerate(rules) if rule.table == table}
        batch = (
            source.add_dataframe_asset(table)
            .add_batch_definition_whole_dataframe("all")
            .get_batch({"dataframe": frame})
        )
        result = batch.validate(_suite(gx, table, own), result_format=_result_format(frame))
        for single in result.results:
            number = single.expectation_config.meta["rule"]
            findings[number] = _find(own[number], frame, single)
        results.append(result)
    assert len(findings) == len(rules), (
        f"rules about no table: {[rule.claim for rule in rules if rule.table not in tables]}"
    )
    return Judgement(
        subject=subject,
        findings=tuple(findings[number] for number in sorted(findings)),
        results=tuple(results),
    )


def _great_expectations() -> ModuleType:
    """Import it here, where it is needed: that takes seconds."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    import great_expectations

    return great_expectations


def _ephemeral_context(gx: ModuleType) -> Any:
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context


def _suite(gx: ModuleType, table: str, rules: Mapping[int, Rule]) -> Any:
    severities = {"refuse": "critical", "warn": "warning"}
    return gx.ExpectationSuite(
        name=table,
        expectations=[
            getattr(gx.expectations, rule.expectation)(
                **rule.arguments, severity=severities[rule.severity], notes=rule.claim, meta={"rule": number}
            )
            for number, rule in rules.items()
        ],
    )


def _result_format(frame: pd.DataFrame) -> dict[str, Any]:
    return {
        "result_format": "SUMMARY",  # COMPLETE lists every row that breaks a rule
        "unexpected_index_column_names": [str(frame.columns[0])],
        "partial_unexpected_count": NUM_EXAMPLES,
    }


def _find(rule: Rule, frame: pd.DataFrame, single: Any) -> Finding:
    if single.exception_info.get("raised_exception", True):
        raise RuntimeError(f"Great Expectations could not judge {rule.claim!r}: {single.exception_info}")
    single.result = result = _plain(single.result)
    values = frame[rule.column]
    observed: Value | None = None
    if rule.table == TOTALS:
        observed = _plain(values.iloc[0])
    elif len(values) and pd.api.types.is_numeric_dtype(values):
        smallest, largest = in_words(_plain(values.min())), in_words(_plain(values.max()))
        observed = smallest if smallest == largest else f"{smallest} to {largest}"
    return Finding(
        rule=rule,
        holds=bool(single.success),
        num_rows=len(frame),
        num_unexpected=result["unexpected_count"],
        observed=observed,
        examples=_examples(rule, str(frame.columns[0]), result["partial_unexpected_index_list"]),
    )


def _examples(rule: Rule, name: str, rows: list[dict[str, Any]]) -> tuple[tuple[str, Value | None], ...]:
    """Return each row once, in order: the value in its column `name`, and the value that breaks the rule."""
    values: dict[str, Value | None] = {}
    for row in rows:
        value = row[rule.column] if rule.column != name else None
        if other := rule.arguments.get("column_B"):
            value = f"{in_words(value)} instead of {in_words(row[other])}"
        values.setdefault(str(row[name]), value)
    return tuple(values.items())


def _plain(value: Any) -> Any:
    """Return Python's own numbers, of six digits: Great Expectations 1.24 cannot print those of numpy 2."""
    match value:
        case dict():
            return {key: _plain(entry) for key, entry in value.items()}
        case list() | tuple():
            return type(value)(map(_plain, value))
        case np.generic():
            return _plain(value.item())
        case float():
            return float(f"{value:.6g}")
    return value
