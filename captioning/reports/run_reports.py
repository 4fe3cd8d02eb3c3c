"""Everything that the evaluate stage shows of a run: figures, page, cards."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from captioning import figures
from captioning.evaluation import Evaluation
from captioning.outputs import whole_file, whole_folder
from captioning.reports.cards import data_card, model_card
from captioning.reports.data_facts import DataFacts
from captioning.reports.model_facts import FILE, ModelFacts
from captioning.reports.page import evaluation_page
from captioning.reports.pictures import Look, Ranking
from captioning.reports.word_errors import word_errors
from captioning.score_names import label


def draw_figures(history: pd.DataFrame, ranking: Ranking, looks: Sequence[Look], folder: Path) -> None:
    """Draw the learning curves, the contact sheet, and where the model looked, into a folder that appears whole."""
    with whole_folder(folder) as aside:
        figures.learning_curves(history, aside / "learning_curves.png")
        figures.contact_sheet(
            [(own.image, own.hypothesis, own.references, own.score) for own in ranking.shown],
            aside / "captions.png",
            score_name=label(ranking.score_name),
            higher_is_better=ranking.higher_is_better,
        )
        for number, look in enumerate(looks, start=1):
            path = aside / f"attention_{number}.png"
            figures.attention_sheet(look.shown.image, look.words, look.weights_TL, look.grid, path)


def write_reports(
    evaluation: Evaluation,
    *,
    split: str,
    model: ModelFacts,
    data: DataFacts,
    history: pd.DataFrame,
    ranking: Ranking,
    looks: Sequence[Look],
    examples_digest: str,
    folder: Path,
) -> None:
    """Write evaluation.html, data_card.md, model_card.md and model.json."""
    errors = word_errors(evaluation.hypotheses, evaluation.references, model.tokens)
    texts = {
        "evaluation.html": evaluation_page(
            evaluation,
            split=split,
            model=model,
            history=history,
            ranking=ranking,
            looks=looks,
            errors=errors,
        ),
        "data_card.md": data_card(data, examples_digest=examples_digest),
        "model_card.md": model_card(evaluation, split=split, model=model, data=data, errors=errors),
    }
    for name, text in texts.items():
        with whole_file(folder / name) as aside:
            aside.write_text(text, encoding="utf-8")
    model.write(folder / FILE)
