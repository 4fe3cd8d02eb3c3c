"""The page of an evaluation: one HTML file, without scripts, that opens anywhere and needs nothing beside it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby

import pandas as pd

from captioning.evaluation import Evaluation
from captioning.figures import (
    LEAST_LOOKED_AWAY,
    Panel,
    attention_panels,
    away,
    learning_curve,
    panels_of,
    selecting_score,
)
from captioning.metrics import higher_is_better, metric_of
from captioning.reports.model_facts import ModelFacts
from captioning.reports.pictures import Look, Ranking, Shown, data_uri, jpeg
from captioning.reports.templating import number, render
from captioning.reports.word_errors import WordErrors
from captioning.score_names import label
from captioning.slices import leading

HEADLINE = ("bleu_4", "meteor", "rouge_l", "cider")
"""Scores that stand at the top, where they are measured."""
NUM_HEADLINES = 4
MAY_EXCEED_1 = frozenset({"cider", "cider_d"})
"""Metrics whose usual values are below 1 or little above."""
REFERENCES_SHOWN = 2
SLICES_SHOWN = 8
"""Of a group, the worst ones."""
PANEL_WIDTH = 176
"""Pixels of a panel of attention."""
THIRDS = (
    ("top left", "top", "top right"),
    ("left", "middle", "right"),
    ("bottom left", "bottom", "bottom right"),
)


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """A score as the page shows it."""

    label: str
    value: str
    interval: str
    """Empty where there is none."""
    dot: float | None
    """Place on the bar, 0..100; None for a score without an upper end, which has no bar."""
    low: float
    high: float
    note: str


@dataclass(frozen=True, kw_only=True)
class PictureRow:
    """A picture with its caption."""

    image_id: str
    uri: str
    alt: str
    """What a person said of it."""
    caption: str
    references: list[str]
    score: str
    is_small: bool
    drawn: str
    """Address of a drawing of what the caption says; empty where there is none."""


def evaluation_page(
    evaluation: Evaluation,
    *,
    split: str,
    model: ModelFacts,
    history: pd.DataFrame,
    ranking: Ranking,
    looks: Sequence[Look],
    errors: WordErrors,
) -> str:
    """Return the page about a model's captions of one split."""
    headline = headline_scores(evaluation.scores)
    slice_score = leading_score(evaluation)
    return render(
        "evaluation.html",
        model=model,
        split=split,
        num_images=len(evaluation.hypotheses),
        num_references=sum(map(len, evaluation.references.values())),
        signature=evaluation.signature,
        headline=[score_row(evaluation.scores, evaluation.intervals, name) for name in headline],
        scores=[score_row(evaluation.scores, evaluation.intervals, name) for name in evaluation.scores],
        score_name=label(ranking.score_name),
        aspect=_aspect(ranking),
        are_drawn=ranking.are_drawn,
        bands={
            name: [_picture(own) for own in (reversed(band) if name == "Worst" else band)]
            for name, band in ranking.bands.items()
        },
        looks=[_look(own) for own in looks],
        curves=[_curve(history, panel) for panel in panels_of(history)],
        epochs=_epochs(history),
        slice_score=label(slice_score),
        whole=score_row(evaluation.scores, evaluation.intervals, slice_score),
        slices=_slices(evaluation, slice_score),
        errors=errors,
    )


def headline_scores(scores: Mapping[str, float]) -> list[str]:
    """Return the names of the scores that stand at the top."""
    return [name for name in HEADLINE if name in scores] or list(scores)[:NUM_HEADLINES]


def leading_score(evaluation: Evaluation) -> str:
    """Return the score by which slices are ordered; without slices, the first of the headline."""
    of_slices = leading(evaluation.slices[0].scores) if evaluation.slices else None
    return of_slices or headline_scores(evaluation.scores)[0]


def score_row(
    scores: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
    name: str,
    *,
    end: float | None = None,
) -> ScoreRow:
    """Return a score in words, and where it stands on a bar from 0 to `end`.

    By default a bar ends at 1, CIDEr's at the next whole number; other scores above 1 have none.
    """
    value = scores[name]
    low, high = intervals.get(name, (value, value))
    if end is None:
        end = max(1, math.ceil(high)) if metric_of(name) in MAY_EXCEED_1 else 1
    has_bar = 0 <= low <= high <= end
    scale = 100 / end if has_bar else 0
    return ScoreRow(
        label=label(name),
        value=number(value),
        interval=f"{number(low)} to {number(high)}" if name in intervals else "",
        dot=round(scale * value, 2) if has_bar else None,
        low=round(scale * low, 2) if has_bar else 0,
        high=round(scale * high, 2) if has_bar else 0,
        note="" if higher_is_better(name) else "lower is better",
    )


def _picture(shown: Shown) -> PictureRow:
    return PictureRow(
        image_id=shown.image_id,
        uri=jpeg(shown.image),
        alt=shown.references[0] if shown.references else f"picture {shown.image_id}",
        caption=shown.hypothesis or "(no words)",
        references=shown.references[:REFERENCES_SHOWN],
        score=number(shown.score),
        is_small=max(shown.image.shape) < 128,
        drawn="" if shown.drawn is None else jpeg(shown.drawn),
    )


def _aspect(ranking: Ranking) -> float:
    """Return width over height of the frames, of the middle one of the pictures: few of them have wide margins."""
    aspects = sorted(own.image.shape[1] / own.image.shape[0] for own in ranking.shown)
    return round(min(max(aspects[len(aspects) // 2], 0.75), 1.5), 3)


def _look(look: Look) -> dict[str, object]:
    panels, full = attention_panels(
        look.shown.image, look.words, look.weights_TL, look.grid, width=PANEL_WIDTH
    )
    looks_away = any(panel.looked_away > LEAST_LOOKED_AWAY for panel in panels)
    return {
        "picture": _picture(look.shown),
        "caption": " ".join(look.words) or "(no words)",
        "full": full,
        "grid": look.grid,
        "panels": [
            {
                "word": panel.word,
                "uri": jpeg(panel.pixels),
                "alt": f"For “{panel.word}” it looked most at the {_place(panel, look.grid)} of the picture.",
                "note": away(panel.looked_away) if looks_away else "",
            }
            for panel in panels
        ],
    }


def _place(panel: Panel, grid: tuple[int, int]) -> str:
    """Say in which ninth of the picture the strongest cell lies."""
    row, column = (
        min(2, int(3 * (at + 0.5) / cells)) for at, cells in zip(panel.strongest, grid, strict=True)
    )
    return THIRDS[row][column]


def _curve(history: pd.DataFrame, panel: str) -> dict[str, str]:
    drawn = BytesIO()
    learning_curve(history, panel, drawn)
    return {"uri": data_uri(drawn.getvalue(), "image/svg+xml"), "alt": _curve_in_words(history, panel)}


def _curve_in_words(history: pd.DataFrame, panel: str) -> str:
    """Say what a curve shows: where each line begins and ends."""
    columns = ("train_loss", "val_loss") if panel == "loss" else (panel,)
    said = []
    for column in columns:
        values = history[column].dropna() if column in history else pd.Series(dtype=float)
        if len(values):
            name = (
                column.replace("_", " ") if panel == "loss" else f"val {label(column.removeprefix('val_'))}"
            )
            said.append(f"{name} from {number(values.iloc[0])} to {number(values.iloc[-1])}")
    return f"Curve over {len(history)} epochs: {', '.join(said)}." if said else "No values were recorded."


def _epochs(history: pd.DataFrame) -> dict[str, object]:
    """Return the numbers behind the curves as a table; the kept epoch is marked."""
    names = [name for name in ("train_loss", "train_reward", "val_loss") if name in history]
    if score := selecting_score(history):
        names.append(score)
    kept = history["kept"] if "kept" in history else pd.Series(0, index=history.index)
    return {
        "names": [_column_label(name) for name in names],
        "rows": [
            (int(epoch), bool(is_kept), [number(value) for value in values])
            for epoch, is_kept, *values in zip(
                history["epoch"], kept, *(history[name] for name in names), strict=True
            )
        ],
    }


def _column_label(name: str) -> str:
    return (
        f"val {label(name.removeprefix('val_'))}" if name.startswith("val_bleu") else name.replace("_", " ")
    )


def _slices(evaluation: Evaluation, score: str) -> dict[str, dict[str, object]]:
    """Return the worst slices of each group, in their order, with one score; their bars have one scale."""
    shown = [own for own in evaluation.slices if score in own.scores]
    ends = [own.intervals.get(score, (0, own.scores[score]))[1] for own in shown]
    end = max([evaluation.scores[score], *filter(math.isfinite, ends)]) or 1.0
    whole = score_row(evaluation.scores, {}, score, end=end)
    return {
        group: {
            "whole": whole,
            "num_left_out": max(0, len(own) - SLICES_SHOWN),
            "rows": [
                (each.name, each.num_images, score_row(each.scores, each.intervals, score, end=end))
                for each in own[:SLICES_SHOWN]
            ],
        }
        for group, own in ((group, list(own)) for group, own in groupby(shown, key=lambda each: each.group))
    }
