"""A model and a split -> hypotheses, each image decoded once -> scores."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field, field_validator

from captioning import distributed, lookup, tokenization
from captioning.captioner import Captioner
from captioning.examples import Examples
from captioning.generation import beam_search
from captioning.params import Settings
from captioning.progress import progress
from captioning.records import SPLITS, Hypothesis

BATCH_SIZE = 64
"""Images decoded together; it changes the speed, not the captions."""


class EvaluateSettings(Settings):
    """The `evaluate` section."""

    split: str
    """Whose images are captioned and scored."""
    beam_width: int = Field(ge=1)
    max_words: int = Field(ge=1)
    """At most so many words a caption."""
    metrics: list[str]
    """Names of modules in captioning/metrics."""

    @field_validator("split")
    @classmethod
    def _is_split(cls, split: str) -> str:
        if split not in SPLITS:
            raise ValueError(f"no split {split!r}; available: {', '.join(SPLITS)}")
        return split

    @field_validator("metrics")
    @classmethod
    def _are_metrics(cls, metrics: list[str]) -> list[str]:
        for metric in metrics:
            lookup.find("metrics", metric)
        return metrics


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a model said about a split and what it is worth; all by image id, in the order of the examples."""

    hypotheses: dict[str, Hypothesis]
    references: dict[str, list[str]]
    """Raw captions."""
    scores: dict[str, float]
    """Of the whole split, by score name."""
    scores_of_images: dict[str, dict[str, float]]


def predict(captioner: Captioner, examples: Examples, settings: EvaluateSettings) -> dict[str, Hypothesis]:
    """Caption each image of a split once, by image id."""
    return decode_split(
        captioner,
        examples,
        pixel_reader(examples, captioner.device),
        beam_width=settings.beam_width,
        max_words=settings.max_words,
    )


def coco_results(hypotheses: Mapping[str, Hypothesis]) -> list[dict[str, int | str]]:
    """Return captions in the form of COCO's results file: `[{"image_id": 391895, "caption": "a man ..."}, ...]`.

    COCO's image id is the number at the end of its file names; an id without a number at its end stays text.
    """
    return [
        {
            "image_id": int(number[0]) if (number := re.search(r"\d+$", image_id)) else image_id,
            "caption": own.text,
        }
        for image_id, own in hypotheses.items()
    ]


def evaluate(captioner: Captioner, examples: Examples, settings: EvaluateSettings) -> Evaluation:
    """Caption each image of a split once and score the captions."""
    hypotheses = predict(captioner, examples, settings)
    references = examples.references()
    scorer = Scorer(references, settings.metrics)
    scores, scores_of_images = scorer.score({image_id: own.text for image_id, own in hypotheses.items()})
    return Evaluation(
        hypotheses=hypotheses, references=references, scores=scores, scores_of_images=scores_of_images
    )


Read = Callable[[np.ndarray], torch.Tensor]


def pixel_reader(examples: Examples, device: torch.device) -> Read:
    """Return a function of positions that reads `images_BCHW` uint8 to the device."""
    return lambda positions: torch.from_numpy(examples.images(positions)).to(device)


def decode_split(
    captioner: Captioner,
    examples: Examples,
    read: Read,
    *,
    beam_width: int,
    max_words: int,
    what: str = "decode",
) -> dict[str, Hypothesis]:
    """Return the most probable caption of every image of the split, by image id; `read` gives pixels or features.

    Processes that work together share the images, each image is decoded by one of them, and all get all captions.
    """
    captioner.eval()
    hypotheses: dict[str, Hypothesis] = {}
    own_positions = np.arange(distributed.rank(), len(examples), distributed.num_processes())
    starts = range(0, len(own_positions), BATCH_SIZE)
    for start in progress(starts, total=len(starts), what=what, unit="batches"):
        positions = own_positions[start : start + BATCH_SIZE]
        with torch.inference_mode():
            features = captioner.features(read(positions))
        captions = beam_search(
            captioner.decoder, features, captioner.vocabulary, beam_width=beam_width, max_words=max_words
        )
        for position, own in zip(positions, captions, strict=True):
            hypotheses[examples.image_ids[position]] = own[0]
    of_all = {image_id: own for part in distributed.gather(hypotheses) for image_id, own in part.items()}
    return {image_id: of_all[image_id] for image_id in examples.image_ids}


class Scorer:
    """Scores hypotheses against one set of references, which are tokenized once."""

    def __init__(self, references: dict[str, list[str]], metrics: Sequence[str]) -> None:
        self._references = tokenization.tokenize(references)
        self._metrics = list(metrics)

    def score(self, hypotheses: dict[str, str]) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """Return the scores of the set by score name, and those of each image by image id and score name.

        Raises:
            ValueError: an image has a hypothesis but no references, or the reverse.
        """
        if hypotheses.keys() != self._references.keys():
            odd = sorted(hypotheses.keys() ^ self._references.keys())
            raise ValueError(
                f"{len(odd)} images have a hypothesis or references but not both, such as {odd[:3]}; "
                "each image of the split is decoded once and scored once"
            )
        tokenized = {
            image_id: own[0]
            for image_id, own in tokenization.tokenize({k: [v] for k, v in hypotheses.items()}).items()
        }
        of_set: dict[str, float] = {}
        of_images: dict[str, dict[str, float]] = {image_id: {} for image_id in hypotheses}
        references = {image_id: self._references[image_id] for image_id in tokenized}
        for metric in self._metrics:
            for name, (score, per_image) in (
                lookup.find("metrics", metric).score(tokenized, references).items()
            ):
                of_set[name] = float(score)
                for image_id, own in zip(tokenized, per_image, strict=True):
                    of_images[image_id][name] = float(own)
        return of_set, of_images
