"""Rules about feature tables, as data.

A feature table is a small pandas frame: one row a thing (an image, a caption, a shard), its first column the
name of the thing, no missing values. The table `totals` has one row: numbers about the whole data set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import model_validator

from captioning.params import Settings

TOTALS = "totals"
"""Name of the feature table of one row."""

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
    """One expectation about one feature table."""

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
        if "value_set" in self.arguments:
            return f"one of {', '.join(map(str, self.arguments['value_set']))}"
        if "column_B" in self.arguments:
            return f"the same as {self.arguments['column_B']}"
        if low is None and high is None:
            return "each once"
        if low is None or high is None:
            return f"at most {in_words(high)}" if low is None else f"at least {in_words(low)}"
        return in_words(low) if low == high else f"{in_words(low)} to {in_words(high)}"


class Rules:
    """State rules about one feature table; `look_at` is where a person finds what breaks them."""

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

    def once(self, claim: str, column: str) -> Rule:
        """Return the rule that no value stands twice."""
        return self._rule(claim, "ExpectColumnValuesToBeUnique", {"column": column})

    def one_of(self, claim: str, column: str, values: Sequence[str]) -> Rule:
        """Return the rule that no other values occur."""
        return self._rule(claim, "ExpectColumnValuesToBeInSet", {"column": column, "value_set": list(values)})

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


def in_words(value: object) -> str:
    """Return a number as a person writes it: 12,000, 0.0213, or the text itself."""
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return f"{value:,.0f}"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def counted(number: int, noun: str) -> str:
    """Return `1 warning`, `2 warnings`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
