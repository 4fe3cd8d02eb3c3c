"""Rules about judged quantities, as data: what holds for good data, the threshold, and how severe a breach is.

A quantity is a column (`width`) of a table of things (`images`). The table `totals` holds numbers about the
whole data set.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import model_validator

from captioning.params import Settings

TOTALS = "totals"
"""Name of the table of numbers about the whole data set."""

Severity = Literal["refuse", "warn"]


class Range(Settings):
    """Both ends are allowed."""

    min: float
    max: float

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}; expected min <= max")
        return self


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One expectation about one quantity."""

    claim: str
    """What holds for good data, in plain words."""
    table: str
    expectation: str
    """Name of a class in great_expectations.expectations."""
    arguments: Mapping[str, Any]
    """Of that class; `column` (or `column_A`) is what the rule judges."""
    look_at: str
    """Where a person finds what is wrong."""
    key: str = ""
    """Key of params.yaml that holds the threshold; empty where there is nothing to choose."""
    severity: Severity = "refuse"

    @property
    def column(self) -> str:
        """Return the column that is judged."""
        return str(self.arguments.get("column") or self.arguments["column_A"])

    @property
    def expected(self) -> str:
        """Return the threshold in words."""
        low, high = self.arguments.get("min_value"), self.arguments.get("max_value")
        if values := self.arguments.get("value_set"):
            return f"one of {', '.join(map(str, values))}" if len(values) > 1 else str(values[0])
        if "column_B" in self.arguments:
            return f"the same as {self.arguments['column_B']}"
        if low is None or high is None:
            return f"at most {in_words(high)}" if low is None else f"at least {in_words(low)}"
        return in_words(low) if low == high else f"{in_words(low)} to {in_words(high)}"


class Rules:
    """State rules about the quantities of one table; `look_at` is where a person finds what breaks them."""

    def __init__(self, table: str, look_at: Path | str) -> None:
        self._table, self._look_at = table, str(look_at)

    def between(
        self,
        claim: str,
        column: str,
        *,
        low: float | None = None,
        high: float | None = None,
        key: str = "",
        severity: Severity = "refuse",
    ) -> Rule:
        """Return the rule that every value lies between `low` and `high`; None is no bound."""
        arguments = {"column": column, "min_value": low, "max_value": high}
        return self._rule(claim, "ExpectColumnValuesToBeBetween", arguments, key=key, severity=severity)

    def within(
        self, claim: str, column: str, ends: Range, *, key: str, severity: Severity = "refuse"
    ) -> Rule:
        """Return the rule that every value lies between the ends that params.yaml states."""
        return self.between(claim, column, low=ends.min, high=ends.max, key=key, severity=severity)

    def one_of(self, claim: str, column: str, values: Sequence[str], *, key: str = "") -> Rule:
        """Return the rule that no other values occur."""
        arguments = {"column": column, "value_set": list(values)}
        return self._rule(claim, "ExpectColumnValuesToBeInSet", arguments, key=key)

    def equal(self, claim: str, column: str, other: str) -> Rule:
        """Return the rule that two columns agree in every row."""
        return self._rule(claim, "ExpectColumnPairValuesToBeEqual", {"column_A": column, "column_B": other})

    def _rule(self, claim: str, expectation: str, arguments: dict[str, Any], **others: Any) -> Rule:
        return Rule(
            claim=claim,
            table=self._table,
            expectation=expectation,
            arguments=arguments,
            look_at=self._look_at,
            **others,
        )


def with_severities(rules: Iterable[Rule], severities: Mapping[str, Severity], section: str) -> list[Rule]:
    """Return the rules with the severity that params.yaml states for their thresholds, by the key in its section."""
    chosen = {f"{section}.{key}": severity for key, severity in severities.items()}
    return [
        replace(rule, severity=chosen.get(".".join(rule.key.split(".")[:2]), rule.severity)) for rule in rules
    ]


def in_words(value: object) -> str:
    """Return a number as a person writes it: 12,000, 0.0213, or the text itself."""
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return f"{value:,.0f}"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def counted(number: int, noun: str) -> str:
    """Return `1 warning`, `2 warnings`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
