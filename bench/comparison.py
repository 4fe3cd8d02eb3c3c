"""A measurement, and how two sides are measured: alternately, medians."""

import statistics
from collections.abc import Callable, Mapping
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


def in_turns(sides: Mapping[str, Callable[[], float]], *, num_rounds: int = 5) -> dict[str, float]:
    """Return the median of what each side measures, after one round that does not count."""
    rounds = [{name: measure() for name, measure in sides.items()} for _ in range(num_rounds + 1)]
    return {name: statistics.median(own[name] for own in rounds[1:]) for name in sides}


def alternately(
    ours: Callable[[], float], other: Callable[[], float], *, num_rounds: int = 5
) -> tuple[float, float]:
    """Return the medians of what both sides measure in turns."""
    medians = in_turns({"ours": ours, "other": other}, num_rounds=num_rounds)
    return medians["ours"], medians["other"]
