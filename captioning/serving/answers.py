"""Hypotheses -> the captions of an answer."""

import math
from collections.abc import Sequence

from captioning.records import Hypothesis
from captioning.serving.messages import Answer, Attention, Caption, CaptionedImage, Refusal
from captioning.serving.models import LoadedModel
from captioning.serving.problems import Problem

DECIMALS = 5
"""Of attention weights; they are drawn, and a request may get thousands."""


def refusal(problem: Problem) -> Refusal:
    """Return why there are no captions."""
    return Refusal(status=problem.status, title=problem.title, detail=problem.detail)


def refused(name: str, problem: Problem) -> CaptionedImage:
    """Return the entry of a picture that cannot be captioned."""
    return CaptionedImage(image=name, error=refusal(problem), answers=[])


def answered(model: LoadedModel, hypotheses: Sequence[Hypothesis], *, attention: bool) -> Answer:
    """Return what a model says of a picture; with its words, and where it looked, if `attention`."""
    return Answer(
        model=model.role,
        name=model.name,
        version=model.version,
        captions=[_caption(own, model.grid, attention=attention) for own in hypotheses],
    )


def failed(model: LoadedModel) -> Answer:
    """Return the answer of a model that failed at a picture; the log says how."""
    problem = Problem(500, f"{model.role} cannot caption this picture; the service's log says why")
    return Answer(
        model=model.role, name=model.name, version=model.version, error=refusal(problem), captions=[]
    )


def _caption(hypothesis: Hypothesis, grid: tuple[int, int], *, attention: bool) -> Caption:
    return Caption(
        text=hypothesis.text,
        probability=math.exp(hypothesis.log_probability),
        words=hypothesis.words if attention else None,
        attention=_attention(hypothesis.attention, grid) if attention else None,
    )


def _attention(weights: list[list[float]] | None, grid: tuple[int, int]) -> Attention | None:
    if weights is None:
        return None
    height, width = grid
    rounded = [[round(weight, DECIMALS) for weight in row] for row in weights]
    return Attention(height=height, width=width, weights=rounded)
