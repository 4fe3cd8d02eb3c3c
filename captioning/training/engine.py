"""Examples -> a trained captioner: phases of epochs, validation on decoded captions, early stopping, exact resume.

The result is a function of settings, examples, weights and code. A training that was killed at any moment continues
from its last checkpoint and ends with the same weights and history as one that was not.
"""

import copy
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from captioning import distributed, encoders, word_vectors
from captioning.captioner import Captioner
from captioning.checkpoints import Checkpoints, seed_everything
from captioning.examples import Examples
from captioning.fingerprints import code_identity, file_identity, fingerprint
from captioning.images import PixelTransform
from captioning.language_model import LanguageModel
from captioning.metrics import higher_is_better
from captioning.progress import progress, say
from captioning.rewards import CiderReward
from captioning.training.objectives import Loss, Reward, SelfCritical
from captioning.training.phases import Phase
from captioning.training.schedules import Moment
from captioning.training.settings import PhaseSettings, TrainSettings
from captioning.training.termination import EXIT_CODE, Termination
from captioning.training.validation import Validator
from captioning.vocabulary import Vocabulary

SECONDS_BETWEEN_CHECKPOINTS = float(os.environ.get("CAPTIONING_CHECKPOINT_SECONDS", "60"))
"""Inside an epoch; every epoch's end is saved too. When to save changes nothing in the result."""
STEPS_BETWEEN_CHECKS = 16
"""Losses are looked at so often: a look waits for the accelerator."""

NUM_CAPTIONS_REPORTED = 16
SAID = ("train_loss", "train_reward", "val_loss")
"""Scores of an epoch's line, beside the one that selects."""

Report = Callable[[int, Mapping[str, float], Mapping[str, str]], None]
"""`report(epoch, scores, captions)`: where the curves go, and some of val's captions by image id."""


@dataclass
class Position:
    """Where a training stands; with weights, optimiser and random states all that a resume needs."""

    phase: int = 0
    epoch: int = 0
    """Epochs that are over, of all phases."""
    epoch_of_phase: int = 0
    step: int = 0
    """Steps of the epoch that are over."""
    reported_sum: float = 0.0
    num_reported: float = 0.0
    seconds: float = 0.0
    """Of work, before a resume too."""
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1
    best_score: float = 0.0

    @property
    def phase_history(self) -> list[dict[str, float]]:
        """Rows of the present phase."""
        return self.history[len(self.history) - self.epoch_of_phase :]


class Training:
    """One training of a captioner on a folder of examples, by this process or, under torchrun, by several together.

    Args:
        examples: folder written by `captioning.preprocessing.write_examples`.
        settings: the `train` section.
        weights: folder of encoder weights and word vectors.
        work: folder for checkpoints and cached features, outside of any stage's outputs.
    """

    def __init__(self, examples: Path, settings: TrainSettings, *, weights: Path, work: Path) -> None:
        seed_everything(settings.seed)
        self._settings = settings
        self.captioner = Captioner(
            encoder=settings.encoder,
            decoder=settings.decoder,
            vocabulary=Vocabulary.load(examples / "vocabulary.json"),
            transform=PixelTransform.model_validate_json((examples / "transform.json").read_text()),
            encoder_state=encoders.read_weights(settings.encoder, weights),
        )
        if settings.word_vectors.file != "none":
            word_vectors.initialise(
                self.captioner.decoder.words,
                weights / settings.word_vectors.file,
                self.captioner.vocabulary,
                trainable=settings.word_vectors.trainable,
            )
        self.captioner.to(distributed.device())
        torch.manual_seed(settings.seed + distributed.rank())  # dropout of its own, from the same weights
        for phase in (*settings.phases, settings.phases[0]):  # a wrong name is refused now, not in hours
            self.captioner.encoder.set_trainable(phase.encoder.train_from)
        self._train, self._val = Examples(examples, "train"), Examples(examples, "val")
        if settings.language_model is not None:
            vocabulary = self.captioner.vocabulary
            captions = (caption for own in self._train.references().values() for caption in own)
            self.captioner.language_model = LanguageModel.learn(
                map(vocabulary.encode, captions), len(vocabulary), settings.language_model
            )
        self.fingerprint = fingerprint(
            settings.model_dump(),
            self._train.digest,
            self._val.digest,
            file_identity(weights / settings.encoder.weights),
            file_identity(weights / settings.word_vectors.file),
            code_identity(),
        )
        folder = work / "train" / self.fingerprint
        folder.mkdir(parents=True, exist_ok=True)
        self._checkpoints = Checkpoints(folder)
        self._features = work / "features"
        self._features.mkdir(parents=True, exist_ok=True)
        self._position = Position()
        self._best: dict[str, torch.Tensor] = {}
        self._waiting: list[tuple[tuple[str, ...], Loss]] = []
        self._termination = Termination()
        self._num_captions = 0
        """Learned from in this epoch, by this run."""

    def run(self, report: Report = lambda *_: None) -> pd.DataFrame:
        """Train to the end and leave the best weights in `captioner`; return one row of scores an epoch.

        `report` receives each of them as it is known, those before a resume too.

        Raises:
            ValueError: a loss is not finite, or a score that the settings ask for is not there.
            SystemExit: SIGTERM came; the state is saved, and the next run continues.
        """
        state = self._resume()
        for row in self._position.history:
            report(int(row["epoch"]), _curves(row), {})
        validator = Validator(self._val, self._settings.validation)
        row = dict.fromkeys(validator.names, 0.0)
        for own in self._settings.phases:  # a score that will not be there is refused now, not after an epoch
            own.schedule.factor(Moment(step=0, steps_per_epoch=1, epochs=own.epochs, history=[row]))
        position = self._position
        with self._termination.heard():
            while position.phase < len(self._settings.phases) and self._may_go_on():
                settings = self._settings.phases[position.phase]
                phase = self.phase(position.phase)
                if state is not None:
                    phase.load_state_dict(state)
                    state = None
                while position.epoch_of_phase < settings.epochs and not self._has_ended(settings):
                    began, self._num_captions = time.monotonic(), 0
                    self._learn(phase)
                    self._close_epoch(phase, validator, report, began)
                self._say_fruitless()
                position.phase, position.epoch_of_phase = position.phase + 1, 0
                self._load(self._best)
        self._load(self._best)
        select = self._settings.validation.select
        say(
            f"best of {len(position.history)} epochs: {position.best_epoch}, val {select} {position.best_score:.4f}"
        )
        history = pd.DataFrame(position.history)
        return history.assign(kept=(history["epoch"] == position.best_epoch).astype(int))

    def close(self) -> None:
        """Forget the checkpoints, once the captioner is saved elsewhere."""
        self._checkpoints.delete()

    def phase(self, number: int) -> Phase:
        """Return a phase, counted from 0, that begins with the present weights."""
        settings = self._settings.phases[number]
        reward: Reward | None = None
        if isinstance(settings.objective, SelfCritical):
            reward = CiderReward(self._train.references(), self.captioner.vocabulary)
        return Phase(
            self.captioner,
            settings,
            self._train,
            features=self._features,
            seed=self._settings.seed,
            reward=reward,
        )

    def _learn(self, phase: Phase) -> None:
        """Learn from the rest of the epoch, saving now and then."""
        self.captioner.train()
        position, began = self._position, time.monotonic()
        saved, spent = began, position.seconds
        rest = phase.batches(position.epoch, first_step=position.step)
        num_steps = phase.steps_per_epoch
        what = f"epoch {position.epoch + 1}, phase {position.phase + 1} of {len(self._settings.phases)}"
        with self._termination.put_off():
            for batch in progress(rest, total=num_steps - position.step, what=what, unit="batches"):
                moment = Moment(
                    step=position.epoch_of_phase * num_steps + position.step,
                    steps_per_epoch=num_steps,
                    epochs=phase.settings.epochs,
                    history=position.phase_history,
                )
                self._waiting.append((batch.image_ids, phase.step(batch, moment)))
                self._num_captions += int((batch.lengths_N > 0).sum() * batch.weight)
                position.step += 1
                position.seconds = spent + time.monotonic() - began
                is_due = time.monotonic() - saved >= SECONDS_BETWEEN_CHECKPOINTS
                if self._agree(is_due or self._termination.is_told):
                    self._save(phase)
                    saved = time.monotonic()
                    self._end_if_told()
                elif len(self._waiting) >= STEPS_BETWEEN_CHECKS:
                    self._add_up()
        self._add_up()

    def _measured(self, seconds: float) -> dict[str, float]:
        """Return what is no function of the settings: how fast the epoch was, and how full a GPU's memory."""
        [num_captions] = distributed.add([float(self._num_captions)])
        measured = {"captions_per_second": num_captions / max(seconds, 1e-9)}
        if self.captioner.device.type == "cuda":
            measured["gpu_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
            with suppress(Exception):  # of a driver without NVML, for a figure that is nice to have
                measured["gpu_use_percent"] = float(torch.cuda.utilization())
        return measured

    @staticmethod
    def _agree(wish: bool) -> bool:
        """Return whether any process wishes it."""
        return distributed.add([float(wish)])[0] > 0

    def _add_up(self) -> None:
        """Add the losses of the steps since the last look to the epoch's, and refuse one that is not finite."""
        if not self._waiting:
            return
        position = self._position
        values = torch.stack([loss.reported for _, loss in self._waiting]).double().tolist()
        minimised = torch.stack([loss.minimised for _, loss in self._waiting]).tolist()
        first_step = position.step - len(self._waiting)
        for number, (image_ids, loss) in enumerate(self._waiting):
            value = minimised[number]
            if not math.isfinite(value):
                learning_rate = self._settings.phases[position.phase].optimizer.learning_rate
                raise ValueError(
                    f"the loss is {value} in epoch {position.epoch + 1}, step {first_step + number + 1}, "
                    f"images {list(image_ids[:3])}...; the checkpoint before it is kept in {self._checkpoints.folder}: "
                    f"lower optimizer.learning_rate (now {learning_rate}) or clip_norm of "
                    f"train.phases.{position.phase}"
                )
            position.reported_sum += values[number]
            position.num_reported += loss.num_reported
        self._waiting.clear()

    def _close_epoch(self, phase: Phase, validator: Validator, report: Report, began: float) -> None:
        """Validate, keep the weights if they are the best, save, and report."""
        position = self._position
        measured = self._measured(time.monotonic() - began)
        reported, num_reported = distributed.add([position.reported_sum, position.num_reported])
        row: dict[str, float] = {"epoch": position.epoch + 1, "phase": position.phase + 1}
        row |= phase.settings.objective.scores(reported / num_reported)
        validating = time.monotonic()
        phase.share_buffers()
        with phase.averaged():
            validation = validator(self.captioner, phase.reader(self._val))
            row |= phase.learning_rates() | validation.scores
            score = row[f"val_{self._settings.validation.select}"]
            sign = 1 if higher_is_better(self._settings.validation.select) else -1
            if position.best_epoch < 0 or sign * score > sign * position.best_score:
                position.best_score, position.best_epoch = score, position.epoch + 1
                self._best = copy.deepcopy(self._weights())
        position.history.append({name: round(value, 6) for name, value in row.items()})
        position.epoch, position.epoch_of_phase, position.step = (
            position.epoch + 1,
            position.epoch_of_phase + 1,
            0,
        )
        position.reported_sum, position.num_reported = 0.0, 0.0
        position.seconds += time.monotonic() - validating
        with self._termination.put_off():
            self._save(phase)  # before anything is said: a line to a closed pipe would end the process
        captions = dict(islice(validation.captions.items(), NUM_CAPTIONS_REPORTED))
        measured["training_seconds"] = position.seconds  # of all epochs so far, validation included
        report(position.epoch, _curves(position.history[-1]) | measured, captions)
        say(
            f"epoch {row['epoch']}: "
            + ", ".join(f"{name.replace('_', ' ')} {row[name]:.3f}" for name in SAID if name in row)
            + f", val {self._settings.validation.select} {score:.4f}"
        )
        self._end_if_told()

    def _has_ended(self, settings: PhaseSettings) -> bool:
        position = self._position
        if not position.epoch_of_phase or position.step:
            return False
        last_of_others = position.epoch - position.epoch_of_phase
        waited = position.epoch - max(position.best_epoch, last_of_others)
        last = position.history[-1]
        is_stalled = settings.patience is not None and waited >= settings.patience
        gap = last["val_loss"] - last.get("train_loss", math.inf)
        is_overfit = settings.max_gap is not None and gap > settings.max_gap
        return is_stalled or is_overfit or self._is_out_of_time()

    def _may_go_on(self) -> bool:
        """Return whether a phase may begin or, after a resume, go on; an epoch that has begun is ended in any case."""
        position = self._position
        return not position.history or position.step > 0 or not self._is_out_of_time()

    def _say_fruitless(self) -> None:
        position = self._position
        if position.best_epoch <= position.epoch - position.epoch_of_phase:
            say(
                f"phase {position.phase + 1} gave no better val {self._settings.validation.select}: "
                f"the weights of epoch {position.best_epoch} are kept"
            )

    def _is_out_of_time(self) -> bool:
        hours = self._settings.max_hours
        return hours is not None and self._agree(self._position.seconds >= 3600 * hours)

    def _trained(self) -> torch.nn.Module:
        """Return what training moves; an encoder frozen in all phases is known from its own weights."""
        is_tuned = any(phase.encoder.train_from is not None for phase in self._settings.phases)
        return self.captioner if is_tuned else self.captioner.decoder

    def _weights(self) -> dict[str, torch.Tensor]:
        return self._trained().state_dict()

    def _load(self, weights: dict[str, torch.Tensor]) -> None:
        self._trained().load_state_dict(weights)

    def _save(self, phase: Phase) -> None:
        self._add_up()
        sums = distributed.gather((self._position.reported_sum, self._position.num_reported))
        self._checkpoints.save(
            {
                "position": asdict(self._position),
                "sums": sums,
                "weights": self._weights(),
                "best": self._best,
                "phase": phase.state_dict(),
            }
        )

    def _resume(self) -> Mapping[str, Any] | None:
        state = self._checkpoints.load()
        if state is None:
            return None
        self._position = Position(**state["position"])
        sums = state["sums"]
        if len(sums) == distributed.num_processes():
            self._position.reported_sum, self._position.num_reported = sums[distributed.rank()]
        elif not distributed.is_first():
            self._position.reported_sum, self._position.num_reported = 0.0, 0.0
        else:
            self._position.reported_sum, self._position.num_reported = map(sum, zip(*sums, strict=True))
        self._load(state["weights"])
        self._best = state["best"]
        say(f"resuming at epoch {self._position.epoch + 1}, step {self._position.step + 1}")
        phase: Mapping[str, Any] = state["phase"]
        return phase

    def _end_if_told(self) -> None:
        """End the process where SIGTERM came to any of them; what is newest has just been saved."""
        if self._agree(self._termination.is_told):
            position = self._position
            say(f"told to end: saved at epoch {position.epoch + 1}, step {position.step}; run again to go on")
            sys.exit(EXIT_CODE)


def _curves(row: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name != "epoch"}
