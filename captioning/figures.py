"""The pictures of a run: learning curves, captions from best to worst, where the decoder looked.

PNG files, the same bytes for the same input. Colours are Okabe and Ito's, which the colour-blind tell apart.
Matplotlib is imported where it is used: it takes a second.
"""

import warnings
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, ImageColor, ImageOps

from captioning.outputs import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Weight = Literal["normal", "bold"]

BLUE, ORANGE, INK, GREY, PALE = "#0072B2", "#D55E00", "#222222", "#666666", "#F2F2F2"
FONT = "DejaVu Sans"
"""Comes with matplotlib: the same letters on every machine."""
DOTS_PER_INCH = 120
MARGIN = 0.35
"""Inches."""
SHEET_COLUMNS = 4
"""Pictures of each band of a contact sheet."""
PANEL_COLUMNS = 5
"""Panels of a row of an attention sheet."""
LEAST_LOOKED_AWAY = 0.01
"""Share of the attention not given to the image that is worth a note."""

STYLE: dict[Any, Any] = {
    "font.family": FONT,
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a caption may hold a $
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titlepad": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#E3E3E3",
    "xtick.color": GREY,
    "ytick.color": GREY,
    "ytick.left": False,
    "legend.frameon": False,
}


def learning_curves(history: pd.DataFrame, path: Path) -> None:
    """Draw losses and val BLEU-4 by epoch, and mark the kept epoch.

    `history` has the columns epoch, train_loss (none where captions were rewarded instead), val_loss, val_bleu_4 and
    kept (1 for one epoch), one row an epoch.
    """
    kept = history.iloc[int(history["kept"].argmax())]
    with _figure(path, width=9.5, height=3.6) as figure:
        losses, bleu = figure.subplots(1, 2)
        losses.set_title("Loss, nats a word")
        _curve(losses, history, "train_loss", BLUE)
        _curve(losses, history, "val_loss", ORANGE)
        losses.legend(["train", "val"])
        bleu.set_title("BLEU-4 of decoded val captions")
        _curve(bleu, history, "val_bleu_4", ORANGE)
        bleu.set_ylim(bottom=0, top=max(1.15 * kept["val_bleu_4"], 0.01))
        bleu.annotate(
            f"{kept['val_bleu_4']:.3f} at epoch {kept['epoch']:.0f}, kept",
            (kept["epoch"], kept["val_bleu_4"]),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
            weight="bold",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )
        for axes, column in ((losses, "val_loss"), (bleu, "val_bleu_4")):
            axes.plot(kept["epoch"], kept[column], "o", color=ORANGE, markersize=9)
            axes.axvline(kept["epoch"], color=GREY, linewidth=1, linestyle=(0, (2, 3)), zorder=0)
            axes.set_xlim(history["epoch"].min() - 0.5, history["epoch"].max() + 0.5)
            axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
            axes.set_xlabel("epoch")
        figure.tight_layout(w_pad=3)


def _curve(axes: "Axes", history: pd.DataFrame, column: str, color: str) -> None:
    axes.plot(history["epoch"], history[column], color=color, linewidth=2, marker="o", markersize=3.5)


class CaptionedImage(NamedTuple):
    """A picture of a contact sheet."""

    image: np.ndarray
    """uint8, height x width x 3."""
    hypothesis: str
    references: Sequence[str]
    score: float
    """Higher is better."""


def best_median_worst(scores: Sequence[float]) -> tuple[list[int], list[int], list[int]]:
    """Return the positions of the scores that a contact sheet shows: best first, no position twice.

    The sheet of those pictures alone is the sheet of all pictures, so a caller need not read the others.
    """
    order = sorted(range(len(scores)), key=lambda position: (-scores[position], position))
    size = min(SHEET_COLUMNS, max(1, len(order) // 3))
    best, rest = order[:size], order[size:]
    worst, rest = rest[-size:], rest[:-size]
    middle = max(0, len(rest) - size) // 2
    return best, rest[middle : middle + size], worst


def contact_sheet(
    rows: Sequence[tuple[np.ndarray, str, Sequence[str], float]], path: Path, *, score_name: str = "score"
) -> None:
    """Draw the best, median and worst captions by score under their pictures, each with two references.

    The fields of a row are those of `CaptionedImage`.
    """
    assert rows, "no captions to draw"
    captioned = [CaptionedImage(*row) for row in rows]
    shown = best_median_worst([row.score for row in captioned])
    bands = [
        _Band(title, [captioned[position] for position in positions], score_name)
        for title, positions in zip(("Best", "Median", "Worst"), shown, strict=True)
        if positions
    ]
    with _figure(path, width=bands[0].width, height=MARGIN + sum(band.height for band in bands)) as figure:
        top = MARGIN
        for band in bands:
            band.draw(_Page(figure), top)
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

    def draw(self, page: "_Page", top: float) -> None:
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


def attention_sheet(
    image: np.ndarray, words: Sequence[str], weights: np.ndarray, grid: tuple[int, int], path: Path
) -> None:
    """Draw a picture, then once a word greyed, and coloured where the decoder looked as it chose the word.

    `image` is uint8, height x width x 3; `weights` T x L, a row a word, cells in reading order; `grid` the
    rows and columns of cells, L in total. All panels have one scale: a scattered look is pale, a focused one
    strong. What a word's weights lack to 1 (adaptive attention's sentinel) stands beside it.
    """
    height_cells, width_cells = grid
    assert not words or weights.shape == (len(words), height_cells * width_cells), (
        f"weights are {' x '.join(map(str, weights.shape))}, "
        f"expected {len(words)} words x {height_cells * width_cells} cells of the grid {grid}"
    )
    shares = np.asarray(weights, dtype=np.float32).reshape(-1, *grid)
    peak = float(shares.max(initial=1e-6))
    looked_away = 1 - shares.sum(axis=(1, 2))
    looks_away = bool((looked_away > LEAST_LOOKED_AWAY).any())
    width, gap, title_height = 1.8, 0.2, 0.43 if looks_away else 0.27  # inches
    height = width * image.shape[0] / image.shape[1]
    panels = [
        ("", image),
        *zip(words, (_tinted(image, share / peak, _dots(width)) for share in shares), strict=True),
    ]
    num_columns = min(len(panels), PANEL_COLUMNS)
    bottom = MARGIN + -(-len(panels) // PANEL_COLUMNS) * (title_height + height + gap)
    page_width = 2 * MARGIN + num_columns * (width + gap) - gap
    with _figure(path, width=page_width, height=bottom + MARGIN) as figure:
        page = _Page(figure)
        for position, (word, pixels) in enumerate(panels):
            row, column = divmod(position, PANEL_COLUMNS)
            left, top = MARGIN + column * (width + gap), MARGIN + row * (title_height + height + gap)
            for line in wrap(word, width, size=11, weight="bold", max_lines=1):
                page.text(left, top, line, size=11, weight="bold")
            if looks_away and position:
                page.text(
                    left,
                    top + 0.22,
                    f"{looked_away[position - 1]:.0%} not at the image",
                    size=8.5,
                    color=GREY,
                )
            page.picture(left, top + title_height, width, height, pixels)
        if words:
            _scale(page, bottom, peak)


def _scale(page: "_Page", top: float, peak: float) -> None:
    """Say what the colours of an attention sheet mean."""
    ramp = _tinted(np.full((12, 120, 3), 255, np.uint8), np.linspace(0, 1, 120)[None], 120)
    page.text(MARGIN, top, "attention to a cell: 0", size=8.5, color=GREY)
    page.picture(MARGIN + 1.5, top + 0.02, 1.0, 0.1, ramp)
    page.text(MARGIN + 2.57, top, f"{100 * peak:.0f} %", size=8.5, color=GREY)


def _tinted(image: np.ndarray, strength: np.ndarray, width: int) -> np.ndarray:
    """Return the picture in pale grey, `width` dots wide, orange where `strength`, in 0..1 by cell, is high.

    Cells are interpolated smoothly (bicubic). What shows is the root, so that small shares are seen.
    """
    size = (width, max(1, round(width * image.shape[0] / image.shape[1])))
    grey = np.asarray(Image.fromarray(image).convert("L").resize(size, Image.Resampling.LANCZOS)) / 255
    roots = Image.fromarray(np.sqrt(strength, dtype=np.float32)).resize(size, Image.Resampling.BICUBIC)
    opacity = 0.85 * np.clip(np.asarray(roots), 0, 1)[..., None]
    pale = (255 * (0.4 + 0.6 * grey))[..., None]
    return np.round((1 - opacity) * pale + opacity * np.array(ImageColor.getrgb(ORANGE))).astype(np.uint8)


def wrap(text: str, width: float, *, size: float, weight: Weight = "normal", max_lines: int) -> list[str]:
    """Break a text into at most `max_lines` lines of at most `width` inches; an ellipsis is the rest."""
    lines: list[str] = []
    for word in text.split():
        extended = f"{lines[-1]} {word}" if lines else word
        if lines and _width(extended, size, weight) <= width:
            lines[-1] = extended
        elif len(lines) < max_lines:
            lines.append(word)
        else:
            lines[-1] = extended  # too wide: shortened below
            break
    return [_shortened(line, width, size, weight) for line in lines]


def _shortened(line: str, width: float, size: float, weight: Weight) -> str:
    if _width(line, size, weight) <= width:
        return line
    fitting = bisect_right(
        range(1, len(line)), width, key=lambda length: _width(line[:length] + "…", size, weight)
    )
    return line[:fitting].rstrip() + "…"


def _width(line: str, size: float, weight: Weight) -> float:
    """Inches that a line takes; 2 % are added, for letters are moved to whole pixels as they are drawn."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=FONT, size=size, weight=weight)
    with _missing_letters_are_boxes():
        width, _, _ = text_to_path.get_text_width_height_descent(line, font, ismath=False)
    return 1.02 * width / 72


class _Page:
    """A figure whose places are inches from its top left corner."""

    def __init__(self, figure: "Figure") -> None:
        self._figure = figure
        self._width, self._height = figure.get_size_inches()

    def text(
        self, left: float, top: float, line: str, *, size: float, weight: str = "normal", color: str = INK
    ) -> None:
        x, y = left / self._width, 1 - top / self._height
        self._figure.text(x, y, line, size=size, weight=weight, color=color, va="top")

    def picture(self, left: float, top: float, width: float, height: float, pixels: np.ndarray) -> None:
        """Draw uint8 pixels, height x width x 3, as large as the place allows, in its middle."""
        place = (_dots(width), _dots(height))
        padded = ImageOps.pad(Image.fromarray(pixels), place, Image.Resampling.LANCZOS, color=PALE)
        self._figure.figimage(np.asarray(padded), _dots(left), _dots(self._height) - _dots(top) - place[1])


def _dots(inches: float) -> int:
    return max(1, round(inches * DOTS_PER_INCH))


@contextmanager
def _figure(path: Path, *, width: float, height: float) -> Iterator["Figure"]:
    """Yield an empty figure of so many inches; it is written to `path` when the block ends, or not at all."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(), _missing_letters_are_boxes():
        mpl.rcdefaults()  # whatever the user's own matplotlibrc says
        mpl.rcParams.update(STYLE)
        figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH)
        FigureCanvasAgg(figure)
        yield figure
        with whole_file(path) as aside:
            figure.savefig(
                aside, format="png", metadata={"Software": None}
            )  # it would name matplotlib's version


@contextmanager
def _missing_letters_are_boxes() -> Iterator[None]:
    """Keep matplotlib from warning of each letter that its font lacks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield
