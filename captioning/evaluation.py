"""A model and a split -> hypotheses, each image decoded once -> scores."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, field_validator

from captioning import bootstrap
from captioning.batches import assemble
from captioning.captioner import AnyCaptioner, Captioner
from captioning.decoding import decode_split, pixel_reader
from captioning.examples import Examples
from captioning.forcing import likelihoods
from captioning.generation import GenerationSettings
from captioning.grammars import NONE
from captioning.metrics import MetricNames
from captioning.params import Settings
from captioning.records import SPLITS, Hypothesis, Likelihood
from captioning.scoring import Scorer, scores_of_images, value_of
from captioning.slices import Slice, cut, parts_of

NUMBER_AT_END = re.compile(r"(?<![0-9])[0-9]{1,18}\Z")
"""Of an image id; 64 bits hold it."""


class EvaluateSettings(Settings):
    """The `evaluate` section."""

    split: str
    """Whose images are captioned and scored."""
    metrics: MetricNames
    bootstrap_samples: int = Field(ge=100)
    """Of the images, from which the intervals of the scores come."""
    min_images_of_slice: int = Field(ge=1)
    """Smaller parts of the split are not scored apart."""
    generation: GenerationSettings
    """How captions are decoded, here and by the registered model."""

    @field_validator("split")
    @classmethod
    def _is_split(cls, split: str) -> str:
        if split not in SPLITS:
            raise ValueError(f"no split {split!r}; available: {', '.join(SPLITS)}")
        return split


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a model said about a split and what it is worth; all by image id, in the order of the examples."""

    hypotheses: dict[str, Hypothesis]
    references: dict[str, list[str]]
    """Raw captions."""
    scores: dict[str, float]
    """Of the whole split, by score name."""
    scores_of_images: dict[str, dict[str, float]]
    """Without the scores that only a set has."""
    intervals: dict[str, tuple[float, float]]
    """Of the scores of the split: 95 %, by bootstrap over images; a score that has none is missing here."""
    slices: list[Slice]
    """Worst first within a group."""
    signature: str
    """One line to cite beside the scores: metrics, tokenizer, versions, numbers of images and references, decoding."""


def predict(captioner: AnyCaptioner, examples: Examples, settings: EvaluateSettings) -> dict[str, Hypothesis]:
    """Caption each image of a split once, by image id."""
    return decode_split(
        captioner,
        examples,
        pixel_reader(examples, captioner.device),
        settings.generation,
    )


def coco_results(hypotheses: Mapping[str, Hypothesis]) -> list[dict[str, int | str]]:
    """Return captions in the form of COCO's results file: `[{"image_id": 391895, "caption": "a man ..."}, ...]`.

    COCO's image id is the number at the end of its file names. Where such numbers do not tell all images apart, as in
    most data sets, every id stays the text that it is.
    """
    found = [NUMBER_AT_END.search(image_id) for image_id in hypotheses]
    numbers = [int(own[0]) for own in found if own]
    ids: Iterable[int | str] = numbers if len({*numbers}) == len(hypotheses) else hypotheses
    return [
        {"image_id": image_id, "caption": own.text}
        for image_id, own in zip(ids, hypotheses.values(), strict=True)
    ]


def evaluate(
    captioner: AnyCaptioner, examples: Examples, settings: EvaluateSettings, images: Path | None = None
) -> Evaluation:
    """Caption each image of a split once and score the captions.

    Args:
        captioner: whose captions are scored.
        examples: of the split.
        settings: section `evaluate`.
        images: the table of kept images (`data/clean/images.parquet`), for slices by source and original size.

    Raises:
        ValueError: a metric needs what is not there, or gives no number.
    """
    references = examples.references()
    scorer = Scorer(references, settings.metrics, given=("train_references", "vocabulary", "likelihoods"))
    further: dict[str, Any] = {"vocabulary": captioner.vocabulary}
    if "train_references" in scorer.reads:
        further["train_references"] = Examples(examples.folder, "train").references()
    found: dict[str, Likelihood] = {}
    further["likelihoods"] = found
    hypotheses = decode_split(
        captioner,
        examples,
        pixel_reader(examples, captioner.device),
        settings.generation,
        observe=_forcing(captioner, examples, found) if "likelihoods" in scorer.reads else None,
    )
    scores = scorer.measure({image_id: own.text for image_id, own in hypotheses.items()}, **further)
    return Evaluation(
        hypotheses=hypotheses,
        references=references,
        scores={name: value_of(own) for name, own in scores.items()},
        scores_of_images=scores_of_images(scores, [*hypotheses]),
        intervals=bootstrap.intervals(scores, num_samples=settings.bootstrap_samples),
        slices=cut(
            parts_of(references, images, captioner.vocabulary.tokens),
            scores,
            [*hypotheses],
            min_images=settings.min_images_of_slice,
            num_samples=settings.bootstrap_samples,
        ),
        signature=scorer.signature(decoding=describe(settings.generation)),
    )


def _forcing(
    captioner: AnyCaptioner, examples: Examples, found: dict[str, Likelihood]
) -> Callable[[np.ndarray, Any], None]:
    """Return a function of positions and features that fills `found` with the likelihoods of the references."""
    if not isinstance(captioner, Captioner):
        raise ValueError(
            "perplexity and token_accuracy are of a single captioner, and this is an ensemble: "
            "remove them from evaluate.metrics, or evaluate its members"
        )

    def observe(positions: np.ndarray, features_BLD: torch.Tensor) -> None:
        batch = assemble(examples, positions, features_BLD)
        found.update(zip(batch.image_ids, likelihoods(captioner, batch), strict=True))

    return observe


def describe(generation: GenerationSettings) -> str:
    """Return how captions were decoded as a signature says it: `beam, beam width 3, min words 1, max words 24`."""
    words = []
    for key, value in generation.model_dump().items():
        if isinstance(value, dict):
            words.append(f"{key} {' '.join(map(str, value.values()))}")
        elif key != "method" and value not in (None, [], NONE):
            words.append(f"{key} {'/'.join(value) if isinstance(value, list) else value}")
    return ", ".join([generation.method, *words]).replace("_", " ")
