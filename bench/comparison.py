"""A measurement, and how two sides are measured: alternately, medians."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One row of the table and of reports/bench.json."""

    value: float
    """Our rate or time."""
    baseline: float
    """The other side's."""
    unit: str
    what: str
    """One line: what was measured against what."""
    target: float
    """What `ratio` should reach."""
    is_rate: bool = True
    """Whether more is better."""

    @property
    def ratio(self) -> float:
        """Return how many times better we are."""
        return self.value / self.baseline if self.is_rate else self.baseline / self.value

    def figures(self) -> dict[str, float | str]:
        """Return the row as reports/bench.json keeps it."""
        return {
            "value": self.value,
            "baseline": self.baseline,
            "ratio": self.ratio,
            "unit": self.unit,
            "what": self.what,
            "target": self.target,
        }


def alternately(
    ours: Callable[[], float], other: Callable[[], float], *, num_rounds: int = 5
) -> tuple[float, float]:
    """Return the medians of what both sides measure, taken in turns, after one round that does not count."""
    ours(), other()
    rounds = [(ours(), other()) for _ in range(num_rounds)]
    return statistics.median(own for own, _ in rounds), statistics.median(theirs for _, theirs in rounds)
