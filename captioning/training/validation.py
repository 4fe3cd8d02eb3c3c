"""A captioner and the val split -> one row of scores: how likely the references are, and how good decoded captions."""

from dataclasses import dataclass

import torch

from captioning import distributed
from captioning.batches import Batches
from captioning.captioner import Captioner
from captioning.evaluation import Read, Scorer, decode_split
from captioning.examples import Examples
from captioning.training.objectives import force
from captioning.training.settings import ValidationSettings

BATCH_SIZE = 64
"""Images scored together; it changes the speed, not the scores."""
NUM_TOP = 5


@dataclass(frozen=True)
class Validation:
    """What an epoch is worth."""

    scores: dict[str, float]
    """`val_loss` a word (natural logarithm), `val_accuracy`, `val_top_5_accuracy` of words given those before them,
    and the scores of decoded captions, `val_bleu_4` and others."""
    captions: dict[str, str]
    """Decoded, by image id."""


class Validator:
    """Scores captioners on one val split, on all processes together."""

    def __init__(self, val: Examples, settings: ValidationSettings) -> None:
        self._val, self._settings = val, settings
        self._scorer = Scorer(val.references(), settings.metrics) if distributed.is_first() else None

    def __call__(self, captioner: Captioner, read: Read) -> Validation:
        """Return the scores, the same on every process.

        Raises:
            ValueError: `select` is not among the scores.
        """
        scores = self._score_words(captioner, read)
        hypotheses = decode_split(
            captioner,
            self._val,
            read,
            beam_width=self._settings.beam_width,
            max_words=self._settings.max_words,
            what="validate",
        )
        captions = {image_id: own.text for image_id, own in hypotheses.items()}
        of_captions = distributed.first(self._scorer.score(captions)[0] if self._scorer else {})
        if self._settings.select not in of_captions:
            raise ValueError(
                f"train.validation.select: {self._settings.select!r} is not among the scores of val "
                f"({', '.join(of_captions)}); add its metric to train.validation.metrics"
            )
        return Validation(scores | {f"val_{name}": score for name, score in of_captions.items()}, captions)

    @torch.inference_mode()
    def _score_words(self, captioner: Captioner, read: Read) -> dict[str, float]:
        captioner.eval()
        sums = torch.zeros(4, dtype=torch.float64)
        ranks = {"rank": distributed.rank(), "num_ranks": distributed.num_processes()}
        for batch in Batches(self._val, read, batch_size=BATCH_SIZE, seed=None, **ranks).epoch(0):
            forced, words = force(captioner, batch)
            scores = torch.log_softmax(captioner.decoder.words.logits(forced.output_WE).float(), dim=1)
            target_W1 = words.targets_W.unsqueeze(1)
            top = scores.topk(min(NUM_TOP, scores.shape[1]), dim=1).indices == target_W1
            loss, num_words = -scores.gather(1, target_W1).sum(), float(len(target_W1))
            of_batch = [float(own) for own in (loss, top[:, 0].sum(), top.sum())]
            sums += batch.weight * torch.tensor([*of_batch, num_words], dtype=torch.float64)
        *of_all, num_of_all = distributed.add(sums.tolist())
        names = ("val_loss", "val_accuracy", "val_top_5_accuracy")
        return {name: own / num_of_all for name, own in zip(names, of_all, strict=True)}
