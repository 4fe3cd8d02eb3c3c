"""Examples -> a trained captioner: epochs, validation on decoded captions, early stopping, exact resume.

The result is a function of settings, examples, encoder weights and code. A training that was killed at any moment
continues from its last checkpoint and ends with the same weights and history as one that was not.
"""

import copy
import hashlib
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import BeforeValidator, Field, SerializeAsAny

from captioning.batches import Batch, Batches
from captioning.captioner import Captioner, Loss, device
from captioning.checkpoints import Checkpoints, seed_everything
from captioning.encoders import torchvision_network
from captioning.evaluation import Read, Scorer, decode_split, pixel_reader
from captioning.examples import Examples
from captioning.features import cached_features
from captioning.fingerprints import code_identity, fingerprint
from captioning.images import PixelTransform
from captioning.params import Settings, named_part
from captioning.progress import progress, say
from captioning.vocabulary import Vocabulary

SECONDS_BETWEEN_CHECKPOINTS = float(os.environ.get("CAPTIONING_CHECKPOINT_SECONDS", "60"))
"""Inside an epoch; every epoch's end is saved too. When to save changes nothing in the result."""

Report = Callable[[str, float, int], None]
"""`report(name, value, epoch)`: where the curves go."""


class ValidationSettings(Settings):
    """How the captions that select the checkpoint are decoded, after each epoch."""

    beam_width: int = Field(ge=1)
    max_words: int = Field(ge=1)


class TrainSettings(Settings):
    """The `train` section."""

    seed: int
    encoder: torchvision_network.Settings
    decoder: Annotated[SerializeAsAny[Settings], BeforeValidator(named_part("decoders"))]
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    """Images a step, over all processes; all captions of an image share its encoding."""
    learning_rate: float = Field(gt=0)
    """Of AdamW at its peak; it warms up linearly and falls along a half cosine to zero."""
    warmup_epochs: float = Field(ge=0)
    weight_decay: float = Field(ge=0)
    clip_norm: float = Field(gt=0)
    """Of the gradient of all parameters together."""
    label_smoothing: float = Field(ge=0, lt=1)
    attention_penalty: float = Field(ge=0)
    """Weight of the doubly stochastic term (Show, Attend and Tell, equation 14)."""
    precision: Literal["float32", "bfloat16"]
    """Of the matrix products in training; bfloat16 is faster where the hardware has it (AMX, GPUs)."""
    patience: int = Field(ge=1)
    """Epochs without a better BLEU-4 on val after which training ends."""
    validation: ValidationSettings


@dataclass
class Position:
    """Where a training stands; with weights, optimiser and random states all that a resume needs."""

    epoch: int = 0
    step: int = 0
    """Batches of the epoch already learned from."""
    cross_entropy_sum: float = 0.0
    num_words: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1
    best_bleu_4: float = -1.0


class Training:
    """One training of a captioner on a folder of examples.

    Args:
        examples: folder written by `captioning.examples.write_examples`.
        settings: the `train` section.
        weights: folder of encoder weights.
        work: folder for checkpoints and cached features, outside of any stage's outputs.
    """

    def __init__(self, examples: Path, settings: TrainSettings, *, weights: Path, work: Path) -> None:
        seed_everything(settings.seed)
        self._settings, self._device = settings, device()
        encoder = settings.encoder
        self.captioner = Captioner(
            encoder=encoder,
            decoder=settings.decoder,
            vocabulary=Vocabulary.load(examples / "vocabulary.json"),
            transform=PixelTransform.model_validate_json((examples / "transform.json").read_text()),
            encoder_state=torchvision_network.read_weights(encoder.name, encoder.weights, weights),
        ).to(self._device)
        self._train, self._val = Examples(examples, "train"), Examples(examples, "val")
        self.fingerprint = fingerprint(
            settings.model_dump(),
            self._train.digest,
            self._val.digest,
            _weights_identity(weights, encoder.weights),
            code_identity(),
        )
        folder = work / "train" / self.fingerprint
        folder.mkdir(parents=True, exist_ok=True)
        self._checkpoints = Checkpoints(folder)
        self._features = work / "features"
        self._features.mkdir(parents=True, exist_ok=True)
        self._optimizer = torch.optim.AdamW(
            [parameter for parameter in self.captioner.parameters() if parameter.requires_grad],
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )
        self._position = Position()
        self._best: dict[str, torch.Tensor] = {}

    def run(self, report: Report = lambda *_: None) -> pd.DataFrame:
        """Train to the end and leave the best weights in `captioner`; return one row of scores an epoch.

        `report` receives each of them as it is known, those before a resume too.
        """
        self._resume()
        for row in self._position.history:
            _report_row(row, report)
        batches = Batches(
            self._train,
            self._reader(self._train),
            batch_size=self._settings.batch_size,
            seed=self._settings.seed,
        )
        read_val = self._reader(self._val)
        scorer = Scorer(self._val.references(), ["bleu"])
        position = self._position
        while position.epoch < self._settings.epochs and not self._has_stalled():
            self._learn(batches)
            self._close_epoch(read_val, scorer, report)
        self._load(self._best)
        say(
            f"best of {len(position.history)} epochs: {position.best_epoch}, val BLEU-4 {position.best_bleu_4:.4f}"
        )
        return pd.DataFrame(position.history)

    def close(self) -> None:
        """Forget the checkpoints, once the captioner is saved elsewhere."""
        self._checkpoints.delete()

    def _reader(self, examples: Examples) -> Read:
        if self.captioner.is_encoder_trainable:
            return pixel_reader(examples, self._device)
        features = cached_features(self.captioner.encoder, examples, self._features, self._device)
        return lambda positions: torch.from_numpy(np.asarray(features[positions])).to(self._device)

    def _learn(self, batches: Batches) -> None:
        """Learn from the rest of the epoch, saving now and then."""
        self.captioner.train()
        position, saved = self._position, time.monotonic()
        rest = batches.epoch(position.epoch, first_step=position.step)
        what = f"epoch {position.epoch + 1} of {self._settings.epochs}"
        for batch in progress(rest, total=len(batches) - position.step, what=what, unit="batches"):
            loss = self._step(batch, position.epoch + position.step / len(batches))
            position.step += 1
            position.cross_entropy_sum += float(loss.cross_entropy_sum)
            position.num_words += loss.num_words
            if time.monotonic() - saved >= SECONDS_BETWEEN_CHECKPOINTS:
                self._save()
                saved = time.monotonic()

    def _step(self, batch: Batch, epochs_done: float) -> Loss:
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate(epochs_done)
        loss = self._loss(batch, self._settings.label_smoothing, self._settings.attention_penalty)
        if not torch.isfinite(loss.total):
            raise ValueError(
                f"the loss is {float(loss.total.detach())} in epoch {self._position.epoch + 1}, "
                f"step {self._position.step + 1}, images {list(batch.image_ids[:3])}...; "
                f"lower train.learning_rate (now {self._settings.learning_rate}) or train.clip_norm"
            )
        self._optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(
            [parameter for group in self._optimizer.param_groups for parameter in group["params"]],
            self._settings.clip_norm,
        )
        self._optimizer.step()
        return loss

    def _loss(self, batch: Batch, label_smoothing: float = 0.0, attention_penalty: float = 0.0) -> Loss:
        with torch.autocast(
            self._device.type, torch.bfloat16, enabled=self._settings.precision == "bfloat16"
        ):
            return self.captioner.loss(
                inputs=batch.inputs,
                tokens_NT=batch.tokens_NT.to(self._device),
                targets_NT=batch.targets_NT.to(self._device),
                lengths_N=batch.lengths_N,
                label_smoothing=label_smoothing,
                attention_penalty=attention_penalty,
            )

    def _learning_rate(self, epochs_done: float) -> float:
        settings = self._settings
        if epochs_done < settings.warmup_epochs:
            return settings.learning_rate * (epochs_done + 0.01) / (settings.warmup_epochs + 0.01)
        done = (epochs_done - settings.warmup_epochs) / max(settings.epochs - settings.warmup_epochs, 1e-9)
        return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))

    def _close_epoch(self, read_val: Read, scorer: Scorer, report: Report) -> None:
        """Validate, keep the weights if they are the best, save, and report."""
        position = self._position
        row = {"epoch": position.epoch + 1, "train_loss": position.cross_entropy_sum / position.num_words}
        row |= {"val_loss": self._val_loss(read_val), **self._val_scores(read_val, scorer)}
        position.history.append({name: round(value, 6) for name, value in row.items()})
        if row["val_bleu_4"] > position.best_bleu_4:
            position.best_bleu_4, position.best_epoch = row["val_bleu_4"], position.epoch + 1
            self._best = copy.deepcopy(self._weights())
        position.epoch, position.step = position.epoch + 1, 0
        position.cross_entropy_sum, position.num_words = 0.0, 0
        self._save()  # before anything is said: a line to a closed pipe would end the process
        _report_row(row, report)
        say(
            f"epoch {row['epoch']} of {self._settings.epochs}: train loss {row['train_loss']:.3f}, "
            f"val loss {row['val_loss']:.3f}, val BLEU-4 {row['val_bleu_4']:.4f}"
        )

    @torch.inference_mode()
    def _val_loss(self, read: Read) -> float:
        self.captioner.eval()
        losses = [
            self._loss(batch)
            for batch in Batches(self._val, read, batch_size=self._settings.batch_size, seed=None).epoch(0)
        ]
        return float(sum(loss.cross_entropy_sum for loss in losses)) / sum(loss.num_words for loss in losses)

    def _val_scores(self, read: Read, scorer: Scorer) -> dict[str, float]:
        settings = self._settings.validation
        hypotheses = decode_split(
            self.captioner,
            self._val,
            read,
            beam_width=settings.beam_width,
            max_words=settings.max_words,
            what="validate",
        )
        scores, _ = scorer.score({image_id: hypothesis.text for image_id, hypothesis in hypotheses.items()})
        return {f"val_{name}": score for name, score in scores.items()}

    def _has_stalled(self) -> bool:
        position = self._position
        return bool(position.history) and position.epoch - position.best_epoch >= self._settings.patience

    def _weights(self) -> dict[str, torch.Tensor]:
        """Return what training moves; a frozen encoder is known from its own weights."""
        part = self.captioner if self.captioner.is_encoder_trainable else self.captioner.decoder
        return part.state_dict()

    def _load(self, weights: dict[str, torch.Tensor]) -> None:
        part = self.captioner if self.captioner.is_encoder_trainable else self.captioner.decoder
        part.load_state_dict(weights)

    def _save(self) -> None:
        self._checkpoints.save(
            {
                "position": asdict(self._position),
                "weights": self._weights(),
                "best": self._best,
                "optimizer": self._optimizer.state_dict(),
            }
        )

    def _resume(self) -> None:
        state: dict[str, Any] | None = self._checkpoints.load()
        if state is None:
            return
        self._position = Position(**state["position"])
        self._load(state["weights"])
        self._best = state["best"]
        self._optimizer.load_state_dict(state["optimizer"])
        say(f"resuming at epoch {self._position.epoch + 1}, step {self._position.step + 1}")


def _report_row(row: dict[str, float], report: Report) -> None:
    for name, value in row.items():
        if name != "epoch":
            report(name, value, int(row["epoch"]))


def _weights_identity(folder: Path, name: str) -> str:
    return hashlib.sha256((folder / name).read_bytes()).hexdigest()
