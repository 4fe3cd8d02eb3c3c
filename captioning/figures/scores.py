"""Scores of several runs side by side: a row a run, a column a score, dots with their intervals."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from captioning.figures.drawing import GREY, INK, MARGIN, PALETTE, Page, saved_figure, wrap
from captioning.score_names import label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES_WIDTH, COLUMN, GAP = 2.7, 1.75, 0.45  # inches
ROW_HEIGHT, TITLE_HEIGHT = 0.62, 0.5


class ScoredRun(NamedTuple):
    """A row of the picture."""

    name: str
    details: str
    """What else tells it from the others: decoder, encoder."""
    scores: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    """95 %, where they are known."""


def score_dots(runs: Sequence[ScoredRun], names: Sequence[str], path: Path) -> None:
    """Draw the scores called `names` of each run, one above the other, in the order given."""
    assert runs and names, "no scores to draw"
    width = 2 * MARGIN + NAMES_WIDTH + len(names) * (COLUMN + GAP)
    height = 2 * MARGIN + TITLE_HEIGHT + len(runs) * ROW_HEIGHT + 0.25
    with saved_figure(path, width=width, height=height) as figure:
        page = Page(figure)
        page.text(MARGIN, MARGIN, "Scores with their 95 % intervals", size=12, weight="bold")
        for number, run in enumerate(runs):
            top = MARGIN + TITLE_HEIGHT + number * ROW_HEIGHT + 0.1
            for line in wrap(run.name, NAMES_WIDTH, size=9.5, weight="bold", max_lines=1):
                page.text(MARGIN, top, line, size=9.5, weight="bold")
            for line in wrap(run.details, NAMES_WIDTH, size=8, max_lines=1):
                page.text(MARGIN, top + 0.2, line, size=8, color=GREY)
        for column, name in enumerate(names):
            left = MARGIN + NAMES_WIDTH + GAP + column * (COLUMN + GAP)
            place = (
                left / width,
                (MARGIN + 0.25) / height,
                COLUMN / width,
                len(runs) * ROW_HEIGHT / height,
            )
            _draw_column(figure.add_axes(place), runs, name)


def _draw_column(axes: "Axes", runs: Sequence[ScoredRun], name: str) -> None:
    axes.set_title(label(name), size=10, pad=4)
    axes.spines[:].set_visible(False)
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")
    axes.set_yticks([])
    axes.set_ylim(len(runs) - 0.5, -0.5)
    axes.locator_params(axis="x", nbins=4)
    for number, run in enumerate(runs):
        if name not in run.scores:
            continue
        value, color = run.scores[name], PALETTE[number % len(PALETTE)]
        if name in run.intervals:
            axes.plot(
                run.intervals[name], [number, number], color=color, linewidth=2.5, solid_capstyle="round"
            )
        axes.plot(value, number, "o", color=color, markersize=7)
        axes.annotate(
            f"{value:.3f}",
            (value, number),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            size=8.5,
            color=INK,
        )
    axes.margins(x=0.18)
