"""What Great Expectations finds when it judges the rules.

Suites are code and the context is ephemeral, so that nothing of Great Expectations outlives the run.
"""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from captioning.gates.rules import TOTALS, Rule, in_words
from captioning.gates.values import NUM_EXAMPLES, Value, ValueTable, ValueTables

VALUES_SHOWN = 20
"""Values that break a rule, on the page of its table."""


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
        examples = ", ".join(
            name if value is None else f"{name} ({in_words(value)})" for name, value in self.examples
        )
        if not self.is_of_rows or self.holds:
            observed = in_words(self.observed) if self.observed is not None else ""
            return f"{observed}, for example {examples}" if examples else observed
        count = f"{self.num_unexpected:,} of {self.num_rows:,} {self.rule.table}"
        return f"not so for {count}, for example {examples}"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Everything found about one stage's input."""

    subject: str
    """What was judged, in words."""
    findings: tuple[Finding, ...]
    results: tuple[Any, ...] = field(repr=False)
    """One validation result of Great Expectations a table, for its pages."""
    notes: tuple[str, ...] = ()
    """What could not be judged, in sentences."""
    profile: Mapping[str, Any] | None = field(default=None, repr=False)
    """Of the training data, for later data to be compared with; None where it could not be taken."""

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
            notes=self.notes + other.notes,
            profile=other.profile or self.profile,
        )


def judge(subject: str, quantities: ValueTables, rules: Sequence[Rule]) -> Judgement:
    """Return what is found about each rule, in the order of `rules`."""
    gx = _great_expectations()
    source = _ephemeral_context(gx).data_sources.add_pandas("quantities")
    findings: dict[int, Finding] = {}
    results: dict[str, list[Any]] = {}
    for (table, column), own in _by_quantity(rules).items():
        quantity = quantities[table, column]
        assert not quantity.values.isna().to_numpy().any(), (
            f"{column} of {table} has missing values, which would pass unseen"
        )
        result = _validate(gx, source, f"{table} {column}", quantity, own)
        for single in result.results:
            number = single.expectation_config.meta["rule"]
            findings[number] = _find(own[number], quantity, single)
        results.setdefault(table, []).append(result)
    return Judgement(
        subject=subject,
        findings=tuple(findings[number] for number in sorted(findings)),
        results=tuple(_together(table, parts) for table, parts in results.items()),
    )


def _by_quantity(rules: Sequence[Rule]) -> dict[tuple[str, str], dict[int, Rule]]:
    grouped: dict[tuple[str, str], dict[int, Rule]] = {}
    for number, rule in enumerate(rules):
        grouped.setdefault((rule.table, rule.column), {})[number] = rule
    return grouped


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


def _validate(gx: ModuleType, source: Any, name: str, quantity: ValueTable, rules: Mapping[int, Rule]) -> Any:
    severities = {"refuse": "critical", "warn": "warning"}
    suite = gx.ExpectationSuite(
        name=name,
        expectations=[
            getattr(gx.expectations, rule.expectation)(
                **rule.arguments, severity=severities[rule.severity], notes=rule.claim, meta={"rule": number}
            )
            for number, rule in rules.items()
        ],
    )
    asset = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
    batch = asset.get_batch({"dataframe": quantity.values})
    return batch.validate(
        suite, result_format={"result_format": "COMPLETE"}
    )  # with every value that breaks it


def _together(table: str, parts: Sequence[Any]) -> Any:
    """Return the results about the quantities of one table as one, for one page."""
    whole, singles = parts[0], [single for part in parts for single in part.results]
    num_held = sum(bool(single.success) for single in singles)
    whole.results, whole.suite_name, whole.success = singles, table, num_held == len(singles)
    whole.statistics = {
        "evaluated_expectations": len(singles),
        "successful_expectations": num_held,
        "unsuccessful_expectations": len(singles) - num_held,
        "success_percent": 100 * num_held / len(singles),
    }
    return whole


def _find(rule: Rule, quantity: ValueTable, single: Any) -> Finding:
    if single.exception_info.get("raised_exception", True):
        raise RuntimeError(f"Great Expectations could not judge {rule.claim!r}: {single.exception_info}")
    broken = sorted(single.result["unexpected_index_list"] or [])
    finding = Finding(
        rule=rule,
        holds=bool(single.success),
        num_rows=quantity.num_rows,
        num_unexpected=sum(quantity.counts[number] for number in broken),
        observed=_observed(rule, quantity.values[rule.column]),
        examples=_examples(rule, quantity, broken),
    )
    single.result = _in_rows(finding, quantity, broken)
    return finding


def _observed(rule: Rule, values: "pd.Series") -> Value | None:
    """Return the total judged; else the smallest and the largest value in words, None for text."""
    if rule.table == TOTALS:
        return _plain(values.iloc[0])
    if not len(values) or not pd.api.types.is_numeric_dtype(values):
        return None
    smallest, largest = in_words(_plain(values.min())), in_words(_plain(values.max()))
    return smallest if smallest == largest else f"{smallest} to {largest}"


def _examples(
    rule: Rule, quantity: ValueTable, broken: Iterable[int]
) -> tuple[tuple[str, Value | None], ...]:
    """Return the first rows that break a rule, in their order, each name once with the value that does."""
    rows = sorted((example, number) for number in broken for example in quantity.examples[number])
    named = {name: _value(rule, quantity, number) for (_, name), number in reversed(rows)}
    first = dict.fromkeys(name for (_, name), _ in rows)
    return tuple((name, None if rule.table == TOTALS else named[name]) for name in list(first)[:NUM_EXAMPLES])


def _value(rule: Rule, quantity: ValueTable, number: int) -> Value:
    value: Value = _plain(quantity.values[rule.column].iloc[number])
    if other := rule.arguments.get("column_B"):
        return f"{in_words(value)} instead of {in_words(_plain(quantity.values[other].iloc[number]))}"
    return value


def _in_rows(finding: Finding, quantity: ValueTable, broken: Sequence[int]) -> dict[str, Any]:
    """Return the result as a page shows it: counted in rows of the data instead of rows of the value table."""
    counts = [
        {"value": in_words(_value(finding.rule, quantity, number)), "count": quantity.counts[number]}
        for number in broken[:VALUES_SHOWN]
    ]
    return {
        "element_count": finding.num_rows,
        "unexpected_count": finding.num_unexpected,
        "unexpected_percent": 100 * finding.num_unexpected / max(finding.num_rows, 1),
        "observed_value": finding.observation or "no rows",
        "partial_unexpected_list": [entry["value"] for entry in counts],
        "partial_unexpected_counts": counts,
    }


def _plain(value: Any) -> Any:
    """Return Python's own numbers, of six digits: Great Expectations 1.24 cannot print those of numpy 2."""
    if isinstance(value, np.generic):
        value = value.item()
    return float(f"{value:.6g}") if isinstance(value, float) else value
