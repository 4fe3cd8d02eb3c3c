"""How trainings went: losses and scores by epoch, of one run, and of several laid over each other.

A history is a table with one row an epoch, as the training writes it: `epoch`, `phase`, `train_loss` (or `train_reward`
where captions were rewarded), `val_loss`, further scores of val, and `kept`, 1 for the epoch whose weights were kept.
What a history lacks, or states as infinite, is left out.
"""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from captioning.figures.drawing import BLUE, GREY, ORANGE, PALETTE, saved_figure
from captioning.metrics import higher_is_better
from captioning.score_names import label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OF_WORDS = ("val_loss", "val_accuracy", "val_top_5_accuracy")
"""Scores of val given the words before, which are not those of decoded captions."""
USUAL = "val_bleu_4"
"""Shown where nothing tells by which score the epoch was kept."""
STYLES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)))
"""Of lines: one a round through the colours."""
LOSS_TITLE, REWARD_TITLE = "Loss, nats a word", "Reward of drawn captions"


def learning_curves(history: pd.DataFrame, path: Path) -> None:
    """Draw losses and the score that selects by epoch, and mark the kept epoch."""
    panels = panels_of(history)
    with saved_figure(path, width=4.75 * len(panels), height=3.6) as figure:
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _draw_panel(axes, history, panel)
        figure.tight_layout(w_pad=3)


def learning_curve(history: pd.DataFrame, panel: str, target: BytesIO) -> None:
    """Draw one panel of `panels_of` alone as SVG, with letters that can be read on a phone."""
    with saved_figure(target, width=3.7, height=2.9, form="svg") as figure:
        _draw_panel(figure.subplots(), history, panel)
        figure.tight_layout()


def panels_of(history: pd.DataFrame) -> list[str]:
    """Return what there is to draw of a history: `loss`, and the score that selects, such as `val_bleu_4`."""
    score = selecting_score(history)
    has_loss = any(_has(history, column) for column in ("train_loss", "val_loss"))
    return [*(["loss"] if has_loss else []), *([score] if score else [])] or ["loss"]


def selecting_score(history: pd.DataFrame) -> str | None:
    """Return the column whose best epoch was kept; None where no caption was decoded.

    It is among those whose first best value is the kept epoch's; of several, BLEU-4 if it is one, else the last.
    """
    scores = [name for name in history.columns if name.startswith("val_") and name not in OF_WORDS]
    scores = [name for name in scores if _has(history, name)]
    if not scores:
        return None
    kept = kept_epoch(history)
    best = [name for name in scores if _best_epoch(history, name) == kept]
    candidates = best or scores
    return USUAL if USUAL in candidates else candidates[-1]


def _best_epoch(history: pd.DataFrame, column: str) -> int:
    values = history[column]
    is_more_better = higher_is_better(column.removeprefix("val_"))
    return int(history["epoch"].iloc[int(values.argmax() if is_more_better else values.argmin())])


def kept_epoch(history: pd.DataFrame) -> int | None:
    """Return the epoch whose weights were kept; None where the history does not say."""
    if "kept" not in history or not history["kept"].any():
        return None
    return int(history["epoch"].iloc[int(history["kept"].argmax())])


def curves_of_runs(histories: Mapping[str, pd.DataFrame], path: Path) -> str | None:
    """Lay the val losses and a score of several runs over each other, by run name; return the score.

    It is one that all of them have: the one by which most kept their epoch. Where there is none, only losses are drawn.
    """
    score = common_score(list(histories.values()))
    panels = ["val_loss", *([score] if score else [])]
    num_legend_rows = -(-len(histories) // 2)
    height = 3.4 + 0.22 * num_legend_rows
    with saved_figure(path, width=9.5 if score else 5.2, height=height) as figure:
        for axes, column in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            axes.set_title(LOSS_TITLE + ", val" if column == "val_loss" else _title(column))
            for number, (name, history) in enumerate(histories.items()):
                if _has(history, column):
                    _curve_of_run(axes, history, column, number, name)
            _number_epochs(axes, pd.concat([own["epoch"] for own in histories.values()]))
        lines, names = axes.get_legend_handles_labels()
        figure.tight_layout(w_pad=3, rect=(0, 0.22 * num_legend_rows / height, 1, 1))
        figure.legend(lines, names, loc="lower left", ncols=2, bbox_to_anchor=(0.03, 0), columnspacing=3)
    return score


def common_score(histories: list[pd.DataFrame]) -> str | None:
    """Return the score of val that all histories have and by which most kept their epoch; None where there is none."""
    chosen = [selecting_score(history) for history in histories]
    shared = [
        name
        for name in dict.fromkeys(name for name in [*chosen, USUAL] if name)
        if all(_has(history, name) for history in histories)
    ]
    return max(shared, key=lambda name: (chosen.count(name), name == USUAL)) if shared else None


def _curve_of_run(axes: "Axes", history: pd.DataFrame, column: str, number: int, name: str) -> None:
    round_, place = divmod(number, len(PALETTE))
    color, style = PALETTE[place], STYLES[round_ % len(STYLES)]
    axes.plot(history["epoch"], history[column], color=color, linestyle=style, linewidth=2, label=name)
    if (kept := kept_epoch(history)) is not None:
        at_kept = history[history["epoch"] == kept]
        axes.plot(at_kept["epoch"], at_kept[column], "o", color=color, markersize=8)


def _draw_panel(axes: "Axes", history: pd.DataFrame, panel: str) -> None:
    if panel == "loss":
        _draw_losses(axes, history)
    else:
        _draw_score(axes, history, panel)
    column = "val_loss" if panel == "loss" else panel
    kept = kept_epoch(history)
    if kept is not None and _has(history, column):
        axes.plot(kept, _finite(history, column)[history["epoch"] == kept], "o", color=ORANGE, markersize=9)
        axes.axvline(kept, color=GREY, linewidth=1, linestyle=(0, (2, 3)), zorder=0)
    for epoch, phase in _later_phases(history):
        axes.axvline(epoch - 0.5, color=GREY, linewidth=0.8, zorder=0)
        axes.text(
            epoch - 0.4, 0.02, f"phase {phase}", transform=axes.get_xaxis_transform(), color=GREY, size=8
        )
    _number_epochs(axes, history["epoch"])


def _draw_losses(axes: "Axes", history: pd.DataFrame) -> None:
    axes.set_title(LOSS_TITLE)
    for column, color, name in (("train_loss", BLUE, "train"), ("val_loss", ORANGE, "val")):
        if _has(history, column):
            _curve(axes, history, column, color, name)
    if axes.lines:
        axes.legend()


def _draw_score(axes: "Axes", history: pd.DataFrame, column: str) -> None:
    axes.set_title(_title(column))
    _curve(axes, history, column, ORANGE, "val")
    values, kept = _finite(history, column), kept_epoch(history)
    axes.set_ylim(bottom=min(0.0, float(values.min())), top=max(1.15 * float(values.max()), 0.01))
    at_kept = values[history["epoch"] == kept]
    if kept is None or at_kept.isna().all():
        return
    value = float(at_kept.iloc[0])
    along = (kept - history["epoch"].min() + 0.5) / len(history)
    axes.annotate(
        f"{value:.3f} at epoch {kept}, kept",
        (kept, value),
        xytext=(0, 9),
        textcoords="offset points",
        ha="left" if along < 0.3 else "right" if along > 0.7 else "center",
        weight="bold",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
    )


def _curve(axes: "Axes", history: pd.DataFrame, column: str, color: str, name: str) -> None:
    axes.plot(
        history["epoch"], history[column], color=color, linewidth=2, marker="o", markersize=3.5, label=name
    )


def _number_epochs(axes: "Axes", epochs: "pd.Series[int]") -> None:
    axes.set_xlim(epochs.min() - 0.5, epochs.max() + 0.5)
    locator: Any = axes.xaxis.get_major_locator()
    locator.set_params(integer=True, min_n_ticks=1)
    axes.set_xlabel("epoch")


def _later_phases(history: pd.DataFrame) -> list[tuple[int, int]]:
    """Return the first epoch and the number of every phase but the first."""
    if "phase" not in history:
        return []
    begins = history[history["phase"].ne(history["phase"].shift())].iloc[1:]
    return [(int(epoch), int(phase)) for epoch, phase in zip(begins["epoch"], begins["phase"], strict=True)]


def _title(column: str) -> str:
    return f"{label(column.removeprefix('val_'))} of decoded val captions"


def _has(history: pd.DataFrame, column: str) -> bool:
    return column in history and bool(_finite(history, column).notna().any())


def _finite(history: pd.DataFrame, column: str) -> "pd.Series[float]":
    return history[column].where(np.isfinite(history[column]))
