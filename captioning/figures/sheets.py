"""Pictures with what was said of them: captions from best to worst, and where the decoder looked."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageColor

from captioning.figures.drawing import BLUE, GREY, INK, MARGIN, ORANGE, Page, Weight, dots, saved_figure, wrap

SHEET_COLUMNS = 4
"""Pictures of each band of a contact sheet."""
PANEL_COLUMNS = 5
"""Panels of a row of an attention sheet."""
LEAST_LOOKED_AWAY = 0.01
"""Share of the attention not given to the image that is worth a note."""
LEAST_FOCUS = 4
"""Full colour is at least so many times an even share: attention that is spread evenly is pale."""


class CaptionedImage(NamedTuple):
    """A picture of a contact sheet."""

    image: np.ndarray
    """uint8, height x width x 3."""
    hypothesis: str
    references: Sequence[str]
    score: float


def best_median_worst(
    scores: Sequence[float], *, higher_is_better: bool = True
) -> tuple[list[int], list[int], list[int]]:
    """Return the positions of the scores that a contact sheet shows: best first, no position twice.

    The sheet of those pictures alone is the sheet of all pictures, so a caller need not read the others.
    """
    sign = -1 if higher_is_better else 1
    order = sorted(range(len(scores)), key=lambda position: (sign * scores[position], position))
    size = min(SHEET_COLUMNS, max(1, len(order) // 3))
    best, rest = order[:size], order[size:]
    worst, rest = rest[-size:], rest[:-size]
    middle = max(0, len(rest) - size) // 2
    return best, rest[middle : middle + size], worst


def contact_sheet(
    rows: Sequence[tuple[np.ndarray, str, Sequence[str], float]],
    path: Path,
    *,
    score_name: str = "score",
    higher_is_better: bool = True,
) -> None:
    """Draw the best, median and worst captions by score under their pictures, each with two references.

    The fields of a row are those of `CaptionedImage`.
    """
    assert rows, "no captions to draw"
    captioned = [CaptionedImage(*row) for row in rows]
    shown = best_median_worst([row.score for row in captioned], higher_is_better=higher_is_better)
    bands = [
        _Band(title, [captioned[position] for position in positions], score_name)
        for title, positions in zip(("Best", "Median", "Worst"), shown, strict=True)
        if positions
    ]
    with saved_figure(
        path, width=bands[0].width, height=MARGIN + sum(band.height for band in bands)
    ) as figure:
        top = MARGIN
        for band in bands:
            band.draw(Page(figure), top)
            top += band.height


class _Band:
    """A title and a row of captioned images. Text is wrapped beforehand, so that the height is known."""

    COLUMN, GAP, TITLE, SPACE, LINE = 2.6, 0.3, 0.35, 0.05, 0.185  # inches

    def __init__(self, title: str, rows: Sequence[CaptionedImage], score_name: str) -> None:
        self._title = title
        self._rows = rows
        tallest = max(row.image.shape[0] / row.image.shape[1] for row in rows)
        self._picture_height = self.COLUMN * min(tallest, 1.0)
        self._texts = [self._wrapped(row, score_name) for row in rows]
        self.width = 2 * MARGIN + len(rows) * (self.COLUMN + self.GAP) - self.GAP
        text_height = max(
            sum(self.LINE * len(lines) + self.SPACE for lines, *_ in texts) for texts in self._texts
        )
        self.height = self.TITLE + self._picture_height + 2 * self.SPACE + text_height + MARGIN

    def _wrapped(self, row: CaptionedImage, score_name: str) -> list[tuple[list[str], float, Weight, str]]:
        hypothesis = wrap(row.hypothesis or "(no words)", self.COLUMN, size=10, weight="bold", max_lines=4)
        score = wrap(f"{score_name} {row.score:.2f}", self.COLUMN, size=8.5, max_lines=1)
        references = [wrap(reference, self.COLUMN, size=8.5, max_lines=3) for reference in row.references[:2]]
        return [
            (hypothesis, 10, "bold", INK),
            (score, 8.5, "normal", BLUE),
            *((lines, 8.5, "normal", GREY) for lines in references),
        ]

    def draw(self, page: "Page", top: float) -> None:
        page.text(MARGIN, top, self._title, size=13, weight="bold")
        for column, (row, texts) in enumerate(zip(self._rows, self._texts, strict=True)):
            left, below = MARGIN + column * (self.COLUMN + self.GAP), top + self.TITLE
            page.picture(left, below, self.COLUMN, self._picture_height, row.image)
            below += self._picture_height + 2 * self.SPACE
            for lines, size, weight, color in texts:
                for line in lines:
                    page.text(left, below, line, size=size, weight=weight, color=color)
                    below += self.LINE
                below += self.SPACE


class Panel(NamedTuple):
    """Where the decoder looked as it chose a word."""

    word: str
    pixels: np.ndarray
    """The picture greyed, and coloured where it looked; uint8, height x width x 3."""
    looked_away: float
    """What the word's weights lack to 1: the share of adaptive attention's sentinel."""
    strongest: tuple[int, int]
    """Row and column of the cell with the largest weight."""


def attention_panels(
    image: np.ndarray, words: Sequence[str], weights: np.ndarray, grid: tuple[int, int], *, width: int
) -> tuple[list[Panel], float]:
    """Return a panel a word, `width` dots wide, and the weight that has full colour.

    `image` is uint8, height x width x 3; `weights` T x L, a row a word, cells in reading order; `grid` the rows and
    columns of cells, L in total. All panels have one scale, up to the largest weight of all: a scattered look is pale,
    a focused one strong.
    """
    height_cells, width_cells = grid
    assert not words or weights.shape == (len(words), height_cells * width_cells), (
        f"weights are {' x '.join(map(str, weights.shape))}, "
        f"expected {len(words)} words x {height_cells * width_cells} cells of the grid {grid}"
    )
    shares = np.asarray(weights, dtype=np.float32).reshape(-1, *grid)
    full = max(float(shares.max(initial=0)), min(1.0, LEAST_FOCUS / shares[0].size if words else 1.0))
    panels = []
    for word, share in zip(words, shares, strict=True):
        row, column = divmod(int(share.argmax()), width_cells)
        panels.append(Panel(word, _tinted(image, share / full, width), float(1 - share.sum()), (row, column)))
    return panels, full


def attention_sheet(
    image: np.ndarray, words: Sequence[str], weights: np.ndarray, grid: tuple[int, int], path: Path
) -> None:
    """Draw a picture, then its `attention_panels`. What did not go to the image stands beside the word."""
    width, gap = 1.8, 0.2  # inches
    panels, full = attention_panels(image, words, weights, grid, width=dots(width))
    looks_away = any(panel.looked_away > LEAST_LOOKED_AWAY for panel in panels)
    title_height = 0.43 if looks_away else 0.27
    height = width * image.shape[0] / image.shape[1]
    places = [("", image, ""), *((own.word, own.pixels, away(own.looked_away)) for own in panels)]
    num_columns = min(len(places), PANEL_COLUMNS)
    bottom = MARGIN + -(-len(places) // PANEL_COLUMNS) * (title_height + height + gap)
    page_width = 2 * MARGIN + num_columns * (width + gap) - gap
    with saved_figure(path, width=page_width, height=bottom + MARGIN) as figure:
        page = Page(figure)
        for position, (word, pixels, note) in enumerate(places):
            row, column = divmod(position, PANEL_COLUMNS)
            left, top = MARGIN + column * (width + gap), MARGIN + row * (title_height + height + gap)
            for line in wrap(word, width, size=11, weight="bold", max_lines=1):
                page.text(left, top, line, size=11, weight="bold")
            if looks_away:
                page.text(left, top + 0.22, note, size=8.5, color=GREY)
            page.picture(left, top + title_height, width, height, pixels)
        if words:
            _scale(page, bottom, full)


def away(share: float) -> str:
    """Say how much of a word's attention did not go to the image."""
    return f"{max(share, 0):.0%} not at the image"


def _scale(page: "Page", top: float, full: float) -> None:
    """Say what the colours of an attention sheet mean."""
    ramp = _tinted(np.full((12, 120, 3), 255, np.uint8), np.linspace(0, 1, 120)[None], 120)
    page.text(MARGIN, top, "attention to a cell: 0", size=8.5, color=GREY)
    page.picture(MARGIN + 1.5, top + 0.02, 1.0, 0.1, ramp)
    page.text(MARGIN + 2.57, top, f"{100 * full:.0f} %", size=8.5, color=GREY)


def _tinted(image: np.ndarray, strength: np.ndarray, width: int) -> np.ndarray:
    """Return the picture in pale grey, `width` dots wide, orange where `strength`, in 0..1 by cell, is high.

    Cells are interpolated smoothly (bicubic).
    """
    size = (width, max(1, round(width * image.shape[0] / image.shape[1])))
    grey = np.asarray(Image.fromarray(image).convert("L").resize(size, Image.Resampling.LANCZOS)) / 255
    smooth = Image.fromarray(strength.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    opacity = 0.85 * np.clip(np.asarray(smooth), 0, 1)[..., None]
    pale = (255 * (0.3 + 0.7 * grey))[..., None]
    return np.round((1 - opacity) * pale + opacity * np.array(ImageColor.getrgb(ORANGE))).astype(np.uint8)
