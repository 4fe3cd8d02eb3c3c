"""Hypotheses and references -> scores, each of a metric's module, with all that is needed to resample them."""

import inspect
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from types import ModuleType
from typing import Any

import numpy as np

from captioning import lookup, tokenization
from captioning.metrics import READABLE, TOKENIZED, Statistics

RAW = "none"
"""Of scores that no tokenizer had a part in."""
ALWAYS_GIVEN = frozenset({"hypotheses", "references", "raw_hypotheses", "raw_references"})

Scores = dict[str, Statistics | float]


class Scorer:
    """Scores hypotheses against one set of references, which are tokenized once, together with the first hypotheses.

    Args:
        references: raw captions by image id.
        metrics: names of modules in captioning/metrics.
        given: what `measure` will be given besides hypotheses, of `captioning.metrics.READABLE`.

    Raises:
        ValueError: there are no images, an image has no references, or a metric reads what will not be given.
        OSError: a metric's program cannot be used.
    """

    def __init__(
        self, references: Mapping[str, Sequence[str]], metrics: Sequence[str], *, given: Collection[str] = ()
    ) -> None:
        if not references:
            raise ValueError("there are no images to score: the split is empty; correct the section split")
        if without := [image_id for image_id, own in references.items() if not own]:
            raise ValueError(
                f"{len(without)} images have no reference caption, such as {without[:3]}, and cannot be scored; "
                "leave them out of the split, or give them the split predict"
            )
        self._references = {image_id: list(own) for image_id, own in references.items()}
        self._tokenized: dict[str, list[str]] = {}
        self._modules = {name: lookup.find("metrics", name) for name in metrics}
        for name, module in self._modules.items():
            if lacking := sorted(_reads(module) - ALWAYS_GIVEN - {*given}):
                raise ValueError(
                    f"the metric {name!r} reads {', '.join(lacking)}, which is not to be had here: name it in "
                    "evaluate.metrics, not in train.validation.metrics"
                )
            getattr(module, "check", lambda: None)()

    @property
    def reads(self) -> frozenset[str]:
        """Return what the metrics read, of `captioning.metrics.READABLE`."""
        return frozenset().union(*map(_reads, self._modules.values()))

    def measure(self, hypotheses: Mapping[str, str], **further: Any) -> Scores:
        """Return the scores by score name; the rows of their statistics are in the order of `hypotheses`.

        Raises:
            ValueError: an image has a hypothesis but no references, or the reverse, or a score is not a number.
            OSError: Java cannot be used.
        """
        self._check_images(hypotheses)
        texts = dict(hypotheses)
        readable: dict[str, Any] = {
            "raw_hypotheses": texts,
            "raw_references": {image_id: self._references[image_id] for image_id in texts},
        } | further
        if "likelihoods" in self.reads:
            readable["likelihoods"] = {image_id: further["likelihoods"][image_id] for image_id in texts}
        if self.reads & TOKENIZED:
            readable |= self._tokenize(texts)
        scores: Scores = {}
        for metric, module in self._modules.items():
            own = module.score(**{name: readable[name] for name in _reads(module)})
            _check_numbers(metric, own, texts)
            scores |= own
        return scores

    def score(self, hypotheses: Mapping[str, str]) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """Return the scores of the set by score name, and those of each image by image id and score name.

        Raises as `measure` does.
        """
        scores = self.measure(hypotheses)
        return {name: value_of(own) for name, own in scores.items()}, scores_of_images(scores, [*hypotheses])

    def signature(self, *, decoding: str) -> str:
        """Return a line to cite beside the scores: what was measured, by which programs, on what, decoded how."""
        num_references = sum(map(len, self._references.values()))
        tokenized = f"{tokenization.PTB} tokenizer, coco-caption (pycocoevalcap {version('pycocoevalcap')})"
        return " | ".join(
            [
                f"captioning {version('captioning')}",
                ", ".join(self._modules),
                tokenized if self.reads & TOKENIZED else "raw text",
                f"{len(self._references)} images, {num_references} references",
                decoding,
            ]
        )

    def _check_images(self, hypotheses: Mapping[str, str]) -> None:
        missing = sorted(self._references.keys() - hypotheses.keys())
        extra = sorted(hypotheses.keys() - self._references.keys())
        if missing or extra:
            raise ValueError(
                f"{len(missing)} images have references but no hypothesis{such_as(missing)}, and {len(extra)} have a "
                f"hypothesis but no references{such_as(extra)}; each image is decoded once and scored once"
            )

    def _tokenize(self, hypotheses: Mapping[str, str]) -> dict[str, Any]:
        """Return hypotheses and references in tokens, from one start of the tokenizer."""
        captions = [[text] for text in hypotheses.values()]
        waiting = [] if self._tokenized else [*self._references.values()]
        numbered = {str(number): own for number, own in enumerate(captions + waiting)}
        done = [*tokenization.tokenize(numbered).values()]
        if waiting:
            self._tokenized = dict(zip(self._references, done[len(captions) :], strict=True))
        return {
            "hypotheses": {image_id: own[0] for image_id, own in zip(hypotheses, done, strict=False)},
            "references": {image_id: self._tokenized[image_id] for image_id in hypotheses},
        }


def tokenizer_of(metrics: Sequence[str]) -> str:
    """Return the name of the tokenizer that has a part in the scores of metrics, or that of none."""
    reads = frozenset().union(*(_reads(lookup.find("metrics", name)) for name in metrics))
    return tokenization.PTB if reads & TOKENIZED else RAW


def value_of(score: Statistics | float) -> float:
    """Return a score of the set."""
    return score.of_set if isinstance(score, Statistics) else float(score)


def scores_of_images(scores: Scores, image_ids: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the scores that images have by image id and score name; `image_ids` are the rows of the statistics."""
    columns = {name: own.of_images.tolist() for name, own in scores.items() if isinstance(own, Statistics)}
    return {
        image_id: {name: column[row] for name, column in columns.items()}
        for row, image_id in enumerate(image_ids)
    }


def _reads(module: ModuleType) -> frozenset[str]:
    """Return what a metric reads, by the parameters of its `score`."""
    names = frozenset(inspect.signature(module.score).parameters)
    unknown = sorted(names - READABLE.keys())
    assert not unknown, f"{module.__name__}.score reads {unknown}; a metric can read {', '.join(READABLE)}"
    return names


def _check_numbers(metric: str, scores: Scores, hypotheses: Mapping[str, str]) -> None:
    for name, own in scores.items():
        if not isinstance(own, Statistics):
            if not np.isfinite(own):
                raise ValueError(f"{metric} gave {own} for {name}, expected a number; {_WITHOUT}")
            continue
        rows = np.flatnonzero(~np.isfinite(own.of_images))
        if len(rows):
            image_id, text = [*hypotheses.items()][rows[0]]
            raise ValueError(
                f"{metric} gave {own.of_images[rows[0]]} for {name} of {len(rows)} images, such as {image_id!r} with "
                f"the hypothesis {text!r}, expected a number; {_WITHOUT}"
            )


_WITHOUT = "correct the metric, or remove it from evaluate.metrics"


def such_as(image_ids: Sequence[str]) -> str:
    """Return the first of some images as the end of a message's clause."""
    return f", such as {list(image_ids[:3])}" if image_ids else ""
