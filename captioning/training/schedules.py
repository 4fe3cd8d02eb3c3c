"""Learning-rate schedules: the factor by which a phase's learning rates are multiplied at each step."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from captioning.params import Settings


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Where a phase stands before a step."""

    step: int
    """Steps done in this phase."""
    steps_per_epoch: int
    epochs: int
    """Of the whole phase."""
    history: Sequence[Mapping[str, float]]
    """A row of scores for each epoch of this phase that is over."""

    @property
    def epochs_done(self) -> float:
        """Epochs of this phase, the present one in part."""
        return self.step / self.steps_per_epoch


class Constant(Settings):
    """The same all the time."""

    name: Literal["constant"]

    def factor(self, moment: Moment) -> float:
        """Return 1."""
        return 1.0


class Cosine(Settings):
    """Linear warm-up, then half a cosine down to zero (Loshchilov and Hutter, 2017, without restarts)."""

    name: Literal["cosine"]
    warmup_epochs: float = Field(ge=0)

    def factor(self, moment: Moment) -> float:
        """Return a factor in [0, 1]."""
        done = moment.epochs_done
        if done < self.warmup_epochs:
            return (done + 0.01) / (self.warmup_epochs + 0.01)
        return 0.5 * (
            1
            + math.cos(math.pi * (done - self.warmup_epochs) / max(moment.epochs - self.warmup_epochs, 1e-9))
        )


class Step(Settings):
    """Multiplied once every few epochs."""

    name: Literal["step"]
    every_epochs: int = Field(ge=1)
    decay: float = Field(gt=0, le=1)

    def factor(self, moment: Moment) -> float:
        """Return a factor in (0, 1]."""
        return self.decay ** (int(moment.epochs_done) // self.every_epochs)


class Exponential(Settings):
    """Multiplied at every batch, so that `decay` is reached after `epochs`."""

    name: Literal["exponential"]
    epochs: float = Field(gt=0)
    decay: float = Field(gt=0, le=1)

    def factor(self, moment: Moment) -> float:
        """Return a factor in (0, 1]."""
        return float(self.decay ** (moment.epochs_done / self.epochs))


class Noam(Settings):
    """Linear warm-up, then with the inverse square root of the step (Vaswani et al., 2017, section 5.3).

    The learning rate is the one at the peak, where the paper's formula has width^-0.5 * warmup_steps^-0.5.
    """

    name: Literal["noam"]
    warmup_steps: int = Field(ge=1)

    def factor(self, moment: Moment) -> float:
        """Return a factor in (0, 1]."""
        step = moment.step + 1
        return min(step / self.warmup_steps, math.sqrt(self.warmup_steps / step))


class Plateau(Settings):
    """Multiplied whenever a score has not got better for some epochs, which are then counted anew."""

    name: Literal["plateau"]
    score: Literal["val_loss", "val_accuracy", "val_bleu_4", "val_cider"]
    decay: float = Field(gt=0, lt=1)
    patience: int = Field(ge=1)

    def factor(self, moment: Moment) -> float:
        """Return a factor in (0, 1]: a function of the history alone, so that a resume needs no state."""
        sign = -1 if self.score == "val_loss" else 1
        best, waited, factor = -math.inf, 0, 1.0
        for row in moment.history:
            if self.score not in row:
                raise ValueError(
                    f"schedule.score: {self.score!r} is not among the scores of val ({', '.join(row)}): "
                    "add its metric to train.validation.metrics"
                )
            waited += 1
            if sign * row[self.score] > best:
                best, waited = sign * row[self.score], 0
            elif waited >= self.patience:
                factor, waited = factor * self.decay, 0
        return factor


ScheduleSettings = Annotated[
    Constant | Cosine | Step | Exponential | Noam | Plateau, Field(discriminator="name")
]
