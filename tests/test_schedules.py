"""Learning-rate schedules against their formulas."""

from typing import Any

import pytest
from pydantic import TypeAdapter

from captioning.training.schedules import Moment, ScheduleSettings

PARSER: TypeAdapter[Any] = TypeAdapter(ScheduleSettings)


def _factors(*steps: int, history: list[dict[str, float]] | None = None, **settings: Any) -> list[float]:
    schedule = PARSER.validate_python(settings)
    return [
        schedule.factor(Moment(step=step, steps_per_epoch=10, epochs=8, history=history or []))
        for step in steps
    ]


def test_cosine_warms_up_from_nearly_nothing_peaks_and_ends_at_zero():
    start, warm, middle, end = _factors(0, 20, 50, 80, name="cosine", warmup_epochs=2.0)
    assert start == pytest.approx(0.01 / 2.01)
    assert (warm, middle, end) == pytest.approx((1.0, 0.5, 0.0))


def test_step_decays_once_every_few_epochs():
    assert _factors(0, 29, 30, 59, 60, name="step", every_epochs=3, decay=0.5) == [1, 1, 0.5, 0.5, 0.25]


def test_exponential_decays_at_every_batch():
    assert _factors(0, 40, 80, name="exponential", epochs=8.0, decay=0.5) == pytest.approx([1, 0.5**0.5, 0.5])


def test_noam_rises_linearly_and_falls_with_the_root_of_the_step():
    factors = _factors(0, 3, 15, name="noam", warmup_steps=4)
    assert factors == pytest.approx([0.25, 1.0, 0.5])


@pytest.mark.parametrize(
    ("score", "values", "expected"),
    [
        ("val_loss", [3.0, 2.0, 2.5, 2.4], 0.5),
        ("val_loss", [3.0, 2.0, 2.5, 1.9], 1.0),
        ("val_bleu_4", [0.1, 0.2, 0.15, 0.1, 0.2, 0.2], 0.25),
    ],
)
def test_plateau_decays_after_epochs_without_a_better_score(score: str, values: list[float], expected: float):
    history = [{score: value} for value in values]
    assert _factors(0, history=history, name="plateau", score=score, decay=0.5, patience=2) == [expected]


def test_plateau_on_a_score_that_is_not_measured_is_refused():
    with pytest.raises(ValueError, match=r"'val_cider' is not among the scores of val \(val_loss\): add"):
        _factors(0, history=[{"val_loss": 1.0}], name="plateau", score="val_cider", decay=0.5, patience=2)
