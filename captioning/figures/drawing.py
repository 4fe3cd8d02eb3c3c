"""What all figures share: their look, text that fits, pictures in place, and the same bytes for the same input."""

import warnings
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image, ImageOps

from captioning.outputs import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Weight = Literal["normal", "bold"]

BLUE, ORANGE, INK, GREY, PALE = "#0072B2", "#D55E00", "#222222", "#666666", "#F2F2F2"
PALETTE = (BLUE, ORANGE, "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Okabe and Ito's, which the colour-blind tell apart; their yellow is too pale on white."""
FONT = "DejaVu Sans"
"""Comes with matplotlib: the same letters on every machine."""
DOTS_PER_INCH = 120
MARGIN = 0.35
"""Inches."""

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
    "svg.hashsalt": "captioning",  # or names inside differ from run to run
}


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


class Page:
    """A figure whose places are inches from its top left corner."""

    def __init__(self, figure: "Figure") -> None:
        self._figure = figure
        self._width, self._height = figure.get_size_inches()

    def text(
        self, left: float, top: float, line: str, *, size: float, weight: str = "normal", color: str = INK
    ) -> None:
        """Write one line."""
        x, y = left / self._width, 1 - top / self._height
        self._figure.text(x, y, line, size=size, weight=weight, color=color, va="top")

    def picture(self, left: float, top: float, width: float, height: float, pixels: np.ndarray) -> None:
        """Draw uint8 pixels, height x width x 3, as large as the place allows, in its middle."""
        place = (dots(width), dots(height))
        padded = ImageOps.pad(Image.fromarray(pixels), place, Image.Resampling.LANCZOS, color=PALE)
        self._figure.figimage(np.asarray(padded), dots(left), dots(self._height) - dots(top) - place[1])


def dots(inches: float) -> int:
    """Return the dots that so many inches take, at least one."""
    return max(1, round(inches * DOTS_PER_INCH))


@contextmanager
def saved_figure(
    target: Path | BytesIO, *, width: float, height: float, form: str = "png"
) -> Iterator["Figure"]:
    """Yield an empty figure of so many inches; it is written to `target` when the block ends, or not at all.

    `form` is png or svg, whose letters are outlines: they look alike on every machine.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(), _missing_letters_are_boxes():
        mpl.rcdefaults()  # whatever the user's own matplotlibrc says
        mpl.rcParams.update(STYLE)
        figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH)
        FigureCanvasAgg(figure)
        yield figure
        # Unless told not to, files name matplotlib's version and the date.
        metadata = {"Software": None} if form == "png" else {"Date": None, "Creator": None}
        if isinstance(target, BytesIO):
            figure.savefig(target, format=form, metadata=metadata)
        else:
            with whole_file(target) as aside:
                figure.savefig(aside, format=form, metadata=metadata)


@contextmanager
def _missing_letters_are_boxes() -> Iterator[None]:
    """Keep matplotlib from warning of each letter that its font lacks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield
