"""Does a new model deserve to be the champion? What is known of both -> the decision, with every reason.

| word | when | champion |
|---|---|---|
| `no-champion` | there is no champion, or its files are gone; the model is fit | this version |
| `better` | better on the same images, by enough and surely; the model is fit | this version |
| `awaiting-approval` | one of these, but `register.approval` asks a person first | stays |
| `is-champion` | this very version is the champion | stays |
| `not-better` | compared, and not better, not by enough or not surely | stays |
| `not-comparable` | there are no images, or too few, on which the two can be compared | stays |
| `unfit` | a floor, a slice, the time a caption takes or the answer from the registry does not hold | stays |
| `rolled-back` | a person took this very version back | stays |

What is not promoted becomes the `challenger`. Where several words apply, `rolled-back` comes before the others and
`unfit` after them; the reasons are those of all.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field, field_validator

from captioning import bootstrap, lookup, slices
from captioning.bootstrap import Interval
from captioning.comparison import Captioned
from captioning.metrics import Statistics, higher_is_better, metric_of
from captioning.params import Settings
from captioning.scoring import ALWAYS_GIVEN, Scorer, Scores, value_of
from captioning.tokens import WORDS

PROMOTING = frozenset({"no-champion", "better"})
ROUNDING = 1e-6
"""No gain is so small: scores are stated with four decimals, and sums of floats depend on their order."""


class RegisterSettings(Settings):
    """Section `register`."""

    model_name: str = Field(pattern=r"^[\w-]+$")
    """Registered model and experiment; one name a task."""
    metric: str
    """A score of reports/metrics.json: the champion is the best by it, on the same test set."""
    min_gain: float = Field(ge=0)
    """By so much a new model must be better, in the units of the score; more than 0 in any case."""
    must_be_sure: bool
    """The 95 % interval of the gain, by paired bootstrap over the images, must lie above 0."""
    bootstrap_samples: int = Field(ge=100)
    """Of the images, from which the interval comes."""
    min_images: int = Field(ge=1)
    """With fewer images that neither model has seen two models are not compared, and fewer make no slice."""
    floors: dict[str, float]
    """The worst that other scores of a champion may be, by score name: a least value, or a greatest one where lower is
    better."""
    max_slice_loss: float | None = Field(ge=0)
    """On no slice of the test set may the metric be worse than the champion's by more; null allows any loss."""
    max_seconds_per_caption: float | None = Field(gt=0)
    """Median of one picture at a time, on the machine that registers; null allows any."""
    approval: bool
    """A person decides about what would be promoted: `captioning promote VERSION`, or the flow that asks."""

    @field_validator("metric")
    @classmethod
    def _needs_only_captions(cls, metric: str) -> str:
        if not is_of_captions(metric):
            raise ValueError(
                f"{metric!r} cannot decide between two models: expected a score of a module in captioning/metrics "
                "that reads captions and references and nothing else, such as bleu_4 or cider"
            )
        return metric


def is_of_captions(score: str) -> bool:
    """Tell whether captions and references are enough to have a score."""
    metric = metric_of(score)
    if metric is None:
        return False
    return ALWAYS_GIVEN.issuperset(inspect.signature(lookup.find("metrics", metric).score).parameters)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A challenger and the champion on the same images, with the same references and tokenizer."""

    champion: str
    """Its version."""
    num_images: int
    note: str
    """Where the champion's captions come from, and which images were left out: a sentence."""
    scores: dict[str, float]
    champion_scores: dict[str, float]
    gain: float
    """In `register.metric`; more than 0 is better, also of a score of which less is better."""
    interval: Interval | None
    """Of the gain, 95 %; None for a score that images do not have."""
    slice_losses: dict[str, float]
    """How much worse than the champion the challenger is, by slice; below 0 it is better."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of a version when it is decided about."""

    version: str
    champion: str | None
    """The version that is the champion."""
    scores: dict[str, float]
    """Of the version, on the whole test set."""
    comparison: Comparison | None = None
    obstacle: str = ""
    """Why there is no comparison, as a sentence."""
    servability: str = ""
    """Why the model does not answer in a process of its own, as a sentence; empty where it does."""
    seconds_per_caption: float | None = None
    rolled_back: str = ""
    """Who took this version back, when and why; empty where nobody did."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """About a version."""

    word: str
    """Of the module's table."""
    reason: str
    """The decision in a sentence or two, with the numbers."""
    reasons: list[str] = field(default_factory=list)
    """Each condition that does not hold, as a sentence."""

    @property
    def promotes(self) -> bool:
        """Return whether the version becomes the champion."""
        return self.word in PROMOTING


def decide(evidence: Evidence, settings: RegisterSettings) -> Decision:
    """Return the decision about a version, with every condition that does not hold."""
    new = f"Version {evidence.version}"
    if evidence.version == evidence.champion:
        return Decision(word="is-champion", reason=f"{new} is the champion already.")
    found = [*_failures(evidence, settings)]
    reasons = [sentence for _, sentence in found]
    if not found:
        word = "no-champion" if evidence.champion is None else "better"
        reason = _praise(evidence, settings)
        if not settings.approval:
            return Decision(word=word, reason=reason)
        return Decision(
            word="awaiting-approval",
            reason=f"{reason.replace(' is the ', ' would be the ', 1)} It waits for a person's approval.",
            reasons=["register.approval is true: a person decides."],
        )
    word = found[0][0]
    who = "there is no champion" if evidence.champion is None else f"version {evidence.champion} stays"
    return Decision(word=word, reason=f"{new} is not promoted, {who}: {' '.join(reasons)}", reasons=reasons)


def _praise(evidence: Evidence, settings: RegisterSettings) -> str:
    new, compared = f"Version {evidence.version}", evidence.comparison
    if compared is None:
        return f"{new} is the champion: there was none."
    return f"{new} is the new champion: {_gain(compared, settings)}. {compared.note}"


def _gain(compared: Comparison, settings: RegisterSettings) -> str:
    interval = ""
    if compared.interval:
        interval = f", 95 % interval {compared.interval[0]:+.4f} to {compared.interval[1]:+.4f}"
    name = settings.metric
    return (
        f"{name} {compared.scores[name]:.4f} against {compared.champion_scores[name]:.4f} of version "
        f"{compared.champion} on {compared.num_images:,} images (gain {compared.gain:+.4f}{interval})"
    )


def _failures(evidence: Evidence, settings: RegisterSettings) -> Iterator[tuple[str, str]]:
    """Yield each condition that does not hold: the word for it, the sentence. What decides comes first."""
    if evidence.rolled_back:
        yield "rolled-back", f"It was the champion before, and was taken back: {evidence.rolled_back}."
    if evidence.champion is not None and evidence.comparison is None:
        yield "not-comparable", evidence.obstacle
    if evidence.comparison is not None:
        yield from (("not-better", sentence) for sentence in _shortfalls(evidence.comparison, settings))
    yield from (("unfit", sentence) for sentence in _faults(evidence, settings))


def _shortfalls(compared: Comparison, settings: RegisterSettings) -> Iterator[str]:
    numbers = _gain(compared, settings)
    if compared.gain <= ROUNDING:
        yield f"It is not better: {numbers}. {compared.note}"
        return
    if compared.gain < settings.min_gain:
        yield f"It is better by less than register.min_gain, {settings.min_gain:g}: {numbers}. {compared.note}"
    if settings.must_be_sure and compared.interval is None:
        yield f"How sure the gain is cannot be said, as {settings.metric} is of no single image: {numbers}."
    elif settings.must_be_sure and compared.interval is not None and compared.interval[0] <= ROUNDING:
        yield f"That it is better may be chance: {numbers}. {compared.note}"


def _faults(evidence: Evidence, settings: RegisterSettings) -> Iterator[str]:
    for name, floor in settings.floors.items():
        value, is_more_better = evidence.scores[name], higher_is_better(name)
        if value < floor if is_more_better else value > floor:
            side = "below" if is_more_better else "above"
            yield f"{name} is {value:.4f}, {side} the {floor:g} of register.floors."
    if evidence.comparison is not None and settings.max_slice_loss is not None:
        losses = evidence.comparison.slice_losses
        lost = {name: loss for name, loss in losses.items() if loss > settings.max_slice_loss}
        if lost:
            worst = ", ".join(
                f"{name} by {lost[name]:.4f}" for name in sorted(lost, key=lambda own: -lost[own])
            )
            yield (
                f"Its {settings.metric} is worse than the champion's by more than register.max_slice_loss, "
                f"{settings.max_slice_loss:g}, on {len(lost)} of {len(losses)} slices: {worst}."
            )
    if evidence.servability:
        yield evidence.servability
    limit, seconds = settings.max_seconds_per_caption, evidence.seconds_per_caption
    if limit is not None and seconds is not None and seconds > limit:
        yield f"A caption takes {seconds:.3f} s, more than register.max_seconds_per_caption, {limit:g}."


def compare(
    challenger: Captioned,
    champion: str,
    champion_hypotheses: Mapping[str, str],
    settings: RegisterSettings,
    *,
    metrics: Sequence[str],
    images: Path | None,
    tokens: str = WORDS,
    note: str,
) -> Comparison:
    """Score two models on the images of `challenger` and say how they differ.

    Args:
        challenger: its captions, and the references.
        champion: its version.
        champion_hypotheses: its captions of these images at least.
        settings: section `register`.
        metrics: names of modules in captioning/metrics, that of `register.metric` among them.
        images: the table of kept images, for slices by source and size, if it is known.
        tokens: name of the module of `captioning.tokens` by whose tokens captions are long or short.
        note: of `Comparison`.
    """
    image_ids, name = [*challenger.hypotheses], settings.metric
    scorer = Scorer(challenger.references, metrics)
    first = scorer.measure(challenger.hypotheses)
    second = scorer.measure({image_id: champion_hypotheses[image_id] for image_id in image_ids})
    sign = 1 if higher_is_better(name) else -1
    difference = bootstrap.differences(
        {name: first[name]}, {name: second[name]}, num_samples=settings.bootstrap_samples
    ).get(name)
    interval = None
    if difference is not None:
        low, high = sorted(sign * end for end in difference.interval)
        interval = (low, high)
    return Comparison(
        champion=champion,
        num_images=len(image_ids),
        note=note,
        scores={own: value_of(score) for own, score in first.items()},
        champion_scores={own: value_of(score) for own, score in second.items()},
        gain=sign * (value_of(first[name]) - value_of(second[name])),
        interval=interval,
        slice_losses=_slice_losses(
            first, second, settings, slices.parts_of(challenger.references, images, tokens), image_ids
        ),
    )


def _slice_losses(
    first: Scores,
    second: Scores,
    settings: RegisterSettings,
    parts: slices.Parts,
    image_ids: Sequence[str],
) -> dict[str, float]:
    one, other = first[settings.metric], second[settings.metric]
    if not isinstance(one, Statistics) or not isinstance(other, Statistics):
        return {}
    sign = 1 if higher_is_better(settings.metric) else -1
    rows = {image_id: row for row, image_id in enumerate(image_ids)}
    losses = {}
    for group, members in parts.items():
        for name, own in members.items():
            if settings.min_images <= len(own) < len(rows):
                taken = [rows[image_id] for image_id in own]
                losses[f"{group} {name}"] = sign * (_of_part(other, taken) - _of_part(one, taken))
    return losses


def _of_part(score: Statistics, rows: Sequence[int]) -> float:
    return Statistics(of_images_BS=score.of_images_BS[rows], formula=score.formula).of_set
