"""Caption the test images once each and score them.

    python -m stages.evaluate data/raw data/clean data/splits data/examples models/captioner reports

Takes about a minute on two cores for 1,000 images; most of it is METEOR and the figures.
"""

from pathlib import Path

import pandas as pd

from captioning import params
from captioning.captioner import Captioner
from captioning.distributed import device
from captioning.evaluation import evaluate
from captioning.examples import Examples
from captioning.progress import say
from captioning.reports import choose, draw_figures, look, read_data_facts, read_model_facts, write_reports
from captioning.reports.results import write_hypotheses, write_metrics, write_predictions, write_slices
from stages import run


def main(raw: Path, clean: Path, splits: Path, examples_folder: Path, model: Path, reports: Path) -> None:
    """Write scores, slices, captions, figures, page and cards, and predictions.json of the images without captions."""
    settings = params.load("evaluate")
    captioner = Captioner.load(model, device())
    examples = Examples(examples_folder, settings.split)
    evaluation = evaluate(captioner, examples, settings, clean / "images.parquet")
    reports.mkdir(parents=True, exist_ok=True)
    write_hypotheses(evaluation, reports / "hypotheses.jsonl")
    write_predictions(captioner, examples_folder, settings, reports / "predictions.json")
    write_slices(evaluation.slices, reports / "slices.json")
    write_metrics(evaluation, settings, reports / "metrics.json")
    history = pd.read_csv(reports / "training" / "history.csv")
    ranking = choose(evaluation, examples, clean)
    looks = look(captioner, examples, ranking, settings.generation)
    draw_figures(history, ranking, looks, reports / "figures")
    write_reports(
        evaluation,
        split=settings.split,
        model=read_model_facts(captioner, model, examples_folder, history),
        data=read_data_facts(raw, clean, splits, examples_folder, reports),
        history=history,
        ranking=ranking,
        looks=looks,
        examples_digest=examples.digest,
        folder=reports,
    )
    scores = ", ".join(f"{name} {score:.4f}" for name, score in evaluation.scores.items())
    say(f"evaluate: {len(evaluation.hypotheses):,} {settings.split} images, {scores}")


if __name__ == "__main__":
    run(main)
