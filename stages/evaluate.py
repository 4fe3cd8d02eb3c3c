"""Caption the test images once each and score them.

    python -m stages.evaluate data/examples models/captioner reports/training/history.csv reports

Takes about a minute on two cores for 1,000 images; most of it is METEOR and the figures.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from captioning import figures, params, tokenization
from captioning.captioner import Captioner
from captioning.distributed import device
from captioning.evaluation import EvaluateSettings, Evaluation, coco_results, evaluate, predict
from captioning.examples import Examples, split_names
from captioning.outputs import whole_file, whole_folder
from captioning.progress import say
from captioning.records import PREDICT
from stages import run

SHEET_SCORE = "rouge_l"
"""What the contact sheet is sorted by: unlike BLEU-4, it tells single captions apart."""
NUM_ATTENTION_SHEETS = 3


def main(examples_folder: Path, model: Path, history: Path, reports: Path) -> None:
    """Write metrics.json, hypotheses.jsonl, figures, and predictions.json of the images without captions."""
    settings = params.load("evaluate")
    captioner = Captioner.load(model, device())
    examples = Examples(examples_folder, settings.split)
    evaluation = evaluate(captioner, examples, settings)
    reports.mkdir(parents=True, exist_ok=True)
    write_hypotheses(evaluation, reports / "hypotheses.jsonl")
    write_predictions(captioner, examples_folder, settings, reports / "predictions.json")
    draw(evaluation, captioner, examples, pd.read_csv(history), reports / "figures")
    summary = {
        settings.split: {name: round(score, 6) for name, score in evaluation.scores.items()},
        "tokenizer": tokenization.PTB,
        "num_images": len(evaluation.hypotheses),
    }
    (reports / "metrics.json").write_text(json.dumps(summary, indent=1) + "\n")
    scores = ", ".join(f"{name} {score:.4f}" for name, score in evaluation.scores.items())
    say(f"evaluate: {len(evaluation.hypotheses):,} {settings.split} images, {scores}")


def write_hypotheses(evaluation: Evaluation, path: Path) -> None:
    """Write one JSON line an image: its hypothesis, its references and its own scores."""
    with path.open("w") as file:
        for image_id, hypothesis in evaluation.hypotheses.items():
            row = {
                "image_id": image_id,
                "hypothesis": hypothesis.text,
                "log_probability": round(hypothesis.log_probability, 5),
                "references": evaluation.references[image_id],
                "scores": {
                    name: round(score, 6) for name, score in evaluation.scores_of_images[image_id].items()
                },
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_predictions(
    captioner: Captioner, examples_folder: Path, settings: EvaluateSettings, path: Path
) -> None:
    """Write the captions of the images that have no references, as COCO's server takes them; [] without such images."""
    hypotheses = {}
    if PREDICT in split_names(examples_folder):
        hypotheses = predict(captioner, Examples(examples_folder, PREDICT), settings)
        say(f"evaluate: {len(hypotheses):,} images without references are captioned in {path}")
    with whole_file(path) as aside:
        aside.write_text(json.dumps(coco_results(hypotheses), ensure_ascii=False) + "\n")


def draw(
    evaluation: Evaluation, captioner: Captioner, examples: Examples, history: pd.DataFrame, folder: Path
) -> None:
    """Draw the learning curves, the contact sheet, and where the model looked in a few pictures."""
    with whole_folder(folder) as aside:
        figures.learning_curves(history, aside / "learning_curves.png")
        score_name = SHEET_SCORE if SHEET_SCORE in evaluation.scores else next(iter(evaluation.scores))
        scores = [evaluation.scores_of_images[image_id][score_name] for image_id in examples.image_ids]
        shown = figures.best_median_worst(scores)
        rows = [
            (
                examples.images([position])[0].transpose(1, 2, 0),
                evaluation.hypotheses[examples.image_ids[position]].text,
                evaluation.references[examples.image_ids[position]],
                scores[position],
            )
            for positions in shown
            for position in positions
        ]
        figures.contact_sheet(rows, aside / "captions.png", score_name=score_name)
        pixels_BCHW = examples.images(range(min(NUM_ATTENTION_SHEETS, len(examples))))
        captions = captioner.caption_pixels(torch.from_numpy(pixels_BCHW), with_attention=True)
        for number, (pixels, (best, *_)) in enumerate(zip(pixels_BCHW, captions, strict=True), start=1):
            if best.attention is not None:
                weights_TL, path = np.array(best.attention), aside / f"attention_{number}.png"
                figures.attention_sheet(
                    pixels.transpose(1, 2, 0), best.words, weights_TL, captioner.encoder.grid, path
                )


if __name__ == "__main__":
    run(main)
