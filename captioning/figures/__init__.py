"""The pictures of runs: learning curves, captions from best to worst, where the decoder looked, runs side by side.

PNG files, the same bytes for the same input. Colours are Okabe and Ito's, which the colour-blind tell apart.
Matplotlib is imported where it is used: it takes a second.
"""

from captioning.figures.curves import (
    curves_of_runs,
    kept_epoch,
    learning_curve,
    learning_curves,
    panels_of,
    selecting_score,
)
from captioning.figures.drawing import wrap
from captioning.figures.scores import ScoredRun, score_dots
from captioning.figures.sheets import (
    LEAST_LOOKED_AWAY,
    Panel,
    attention_panels,
    attention_sheet,
    away,
    best_median_worst,
    contact_sheet,
)

__all__ = [
    "LEAST_LOOKED_AWAY",
    "Panel",
    "ScoredRun",
    "attention_panels",
    "attention_sheet",
    "away",
    "best_median_worst",
    "contact_sheet",
    "curves_of_runs",
    "kept_epoch",
    "learning_curve",
    "learning_curves",
    "panels_of",
    "score_dots",
    "selecting_score",
    "wrap",
]
