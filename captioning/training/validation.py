"""A captioner and the val split -> one row of scores: how likely the references are, and how good decoded captions."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

from captioning import distributed
from captioning.batches import Batches
from captioning.captioner import Captioner
from captioning.decoding import Read, decode_split
from captioning.examples import Examples
from captioning.forcing import likelihoods
from captioning.scoring import Scorer
from captioning.training.settings import ValidationSettings

BATCH_SIZE = 64
"""Images scored together; it changes the speed, not the scores."""
OF_WORDS = ("val_loss", "val_accuracy", "val_top_5_accuracy")


@dataclass(frozen=True)
class Validation:
    """What an epoch is worth."""

    scores: dict[str, float]
    """`val_loss` a word (natural logarithm), `val_accuracy`, `val_top_5_accuracy` of words given those before them,
    and the scores of decoded captions, `val_bleu_4` and others."""
    captions: dict[str, str]
    """Decoded, by image id."""


class Validator:
    """Scores captioners on one val split, on all processes together.

    Raises:
        ValueError: `select` is not among the scores.
    """

    names: tuple[str, ...]
    """Of the scores."""

    def __init__(self, val: Examples, settings: ValidationSettings) -> None:
        self._val, self._settings = val, settings
        references = val.references() if distributed.is_first() else None
        self._scorer = Scorer(references, settings.metrics) if references is not None else None
        of_captions: list[str] = distributed.first(
            _names_of_scores(references, settings) if references is not None else []
        )
        if settings.select not in of_captions:
            raise ValueError(
                f"train.validation.select: {settings.select!r} is not among the scores of val "
                f"({', '.join(of_captions)}); add its metric to train.validation.metrics"
            )
        self.names = (*OF_WORDS, *(f"val_{name}" for name in of_captions))

    def __call__(self, captioner: Captioner, read: Read) -> Validation:
        """Return the scores, the same on every process."""
        scores = self._score_words(captioner, read)
        hypotheses = decode_split(
            captioner,
            self._val,
            read,
            self._settings.generation,
            what="validate",
        )
        captions = {image_id: own.text for image_id, own in hypotheses.items()}
        of_captions = distributed.first(self._scorer.score(captions)[0] if self._scorer else {})
        return Validation(scores | {f"val_{name}": score for name, score in of_captions.items()}, captions)

    def _score_words(self, captioner: Captioner, read: Read) -> dict[str, float]:
        captioner.eval()
        loss = num_right = num_in_top_5 = num_words = 0.0
        ranks = {"rank": distributed.rank(), "num_ranks": distributed.num_processes()}
        for batch in Batches(self._val, read, batch_size=BATCH_SIZE, seed=None, **ranks).epoch(0):
            for own in likelihoods(captioner, batch) if batch.weight else []:
                loss -= own.log_likelihood
                num_right += own.num_right
                num_in_top_5 += own.num_in_top_5
                num_words += own.num_words
        *of_all, num_of_all = distributed.add([loss, num_right, num_in_top_5, num_words])
        return {name: own / num_of_all for name, own in zip(OF_WORDS, of_all, strict=True)}


def _names_of_scores(references: Mapping[str, list[str]], settings: ValidationSettings) -> list[str]:
    """Return the names of the scores of captions, which a few references tell."""
    few = dict(islice(references.items(), 2))
    scores, _ = Scorer(few, settings.metrics).score({image_id: own[0] for image_id, own in few.items()})
    return [*scores]
