"""What an evaluation found, for programs: scores, slices, captions, and captions of images without references."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from captioning.captioner import Captioner
from captioning.evaluation import EvaluateSettings, Evaluation, coco_results, predict
from captioning.examples import Examples, split_names
from captioning.outputs import whole_file
from captioning.progress import say
from captioning.records import PREDICT
from captioning.scoring import tokenizer_of
from captioning.slices import Slice
from captioning.tokens.words import split as split_words


def write_metrics(evaluation: Evaluation, settings: EvaluateSettings, path: Path) -> None:
    """Write the scores of the split, their intervals, and what they are scores of."""
    summary = {
        settings.split: _rounded(evaluation.scores),
        "intervals_95": _bounds(evaluation.intervals),
        "tokenizer": tokenizer_of(settings.metrics),
        "signature": evaluation.signature,
        "num_images": len(evaluation.hypotheses),
        "num_captions_without_words": sum(
            not split_words(own.text) for own in evaluation.hypotheses.values()
        ),
    }
    with whole_file(path) as aside:
        aside.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def write_slices(slices: Sequence[Slice], path: Path) -> None:
    """Write the scores of each slice, by group, the worst first."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for own in slices:
        groups.setdefault(own.group, []).append(
            {
                "name": own.name,
                "num_images": own.num_images,
                "scores": _rounded(own.scores),
                "intervals_95": _bounds(own.intervals),
            }
        )
    with whole_file(path) as aside:
        aside.write_text(json.dumps(groups, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _rounded(scores: Mapping[str, float]) -> dict[str, float]:
    return {name: round(score, 6) for name, score in scores.items()}


def _bounds(intervals: Mapping[str, tuple[float, float]]) -> dict[str, list[float]]:
    # Lists, which `dvc metrics` leaves out of its tables: a column each is enough.
    return {name: [round(low, 6), round(high, 6)] for name, (low, high) in intervals.items()}


def write_hypotheses(evaluation: Evaluation, path: Path) -> None:
    """Write one JSON line an image: its hypothesis, its references and its own scores."""
    with whole_file(path) as aside, aside.open("w", encoding="utf-8") as file:
        for image_id, hypothesis in evaluation.hypotheses.items():
            row = {
                "image_id": image_id,
                "hypothesis": hypothesis.text,
                "log_probability": round(hypothesis.log_probability, 5),
                "references": evaluation.references[image_id],
                "scores": _rounded(evaluation.scores_of_images[image_id]),
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
        aside.write_text(json.dumps(coco_results(hypotheses), ensure_ascii=False) + "\n", encoding="utf-8")
