"""One phase of training: its batches, its optimiser and the steps it takes."""

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from captioning import distributed, workers
from captioning.batches import Batch, Batches
from captioning.captioner import Captioner
from captioning.decoding import Read, pixel_reader
from captioning.examples import Examples
from captioning.features import cached_features
from captioning.training import optimizers
from captioning.training.augmentation import Augmentation, mirror
from captioning.training.objectives import Loss, Reward
from captioning.training.schedules import Moment
from captioning.training.settings import PhaseSettings

GROUPS_AHEAD = 2
"""Batches read while the present one is learned from."""


class _Objective(nn.Module):
    """The forward pass that DistributedDataParallel wraps: captioner and batch -> the sums of the loss."""

    def __init__(self, captioner: Captioner, settings: PhaseSettings) -> None:
        super().__init__()
        self.captioner, self._settings = captioner, settings

    def forward(self, batch: Batch) -> Loss:
        with torch.autocast(
            self.captioner.device.type, torch.bfloat16, enabled=self._settings.precision == "bfloat16"
        ):
            return self._settings.objective.loss(self.captioner, batch)


class Phase:
    """A captioner on its way through one phase.

    Args:
        captioner: with the weights that the phase begins with; it is trained in place.
        settings: of the phase.
        train: the train split.
        features: folder of cached features.
        seed: of the order of the images.
        reward: of captions drawn from the model, for an objective that needs one.
    """

    def __init__(
        self,
        captioner: Captioner,
        settings: PhaseSettings,
        train: Examples,
        *,
        features: Path,
        seed: int,
        reward: Reward | None,
    ) -> None:
        self.captioner, self.settings = captioner, settings
        self._train, self._features, self._seed, self._reward = train, features, seed, reward
        captioner.encoder.set_trainable(settings.encoder.train_from)
        self.optimizer = optimizers.build(
            settings.optimizer,
            captioner.decoder.parameters(),
            captioner.encoder.parameters(),
            encoder_learning_rate=settings.encoder.learning_rate,
        )
        self._parameters = [own for group in self.optimizer.param_groups for own in group["params"]]
        self.average: AveragedModel | None = None
        if settings.average_decay is not None:
            self.average = AveragedModel(self._trained)
        self._objective: nn.Module = _Objective(captioner, settings)
        if distributed.num_processes() > 1:
            if captioner.device.type == "cuda" and captioner.encoder.is_trainable:
                _synchronise(captioner)
            self._objective = DistributedDataParallel(self._objective)
        self._augment: Augmentation | None = None
        if settings.augmentation is not None and not settings.augmentation.views:
            _, height, width = train.image_shape
            self._augment = Augmentation(settings.augmentation, height, width)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""
        return math.ceil(len(self._train) / self.settings.batch_size)

    def batches(self, epoch: int, *, first_step: int) -> Iterator[Batch]:
        """Yield this process's share of the epoch's batches, read some steps ahead."""
        batches = self._batches(epoch)
        return workers.ahead(
            batches.epoch(epoch, first_step=first_step), group_size=1, num_groups=GROUPS_AHEAD
        )

    def _batches(self, epoch: int) -> Batches:
        return Batches(
            self._train,
            self.reader(self._train, epoch),
            batch_size=self.settings.batch_size,
            seed=self._seed,
            rank=distributed.rank(),
            num_ranks=distributed.num_processes(),
        )

    def reader(self, examples: Examples, epoch: int = 0) -> Read:
        """Return what reads images for this phase: pixels, or the cached features of a frozen encoder."""
        augmentation = self.settings.augmentation if examples.split == "train" else None
        if self.captioner.encoder.is_trainable or (augmentation and not augmentation.views):
            return pixel_reader(examples, self.captioner.device)
        view, change = 0, None
        if augmentation:
            assert augmentation.views
            view = 1 + epoch % augmentation.views
            change = Augmentation(augmentation, *examples.image_shape[1:])
        features = cached_features(
            self.captioner.encoder, examples, self._features, self.captioner.device, view=view, change=change
        )
        device = self.captioner.device
        return lambda positions: torch.from_numpy(np.asarray(features[positions])).to(device)

    def step(self, batch: Batch, moment: Moment) -> Loss:
        """Learn from one batch; the counts of the loss returned are those of all processes."""
        factor = self.settings.schedule.factor(moment)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        if self._augment is not None:
            batch = replace(batch, inputs=self._augment(batch.inputs))
            if self.settings.augmentation and self.settings.augmentation.flip:
                batch = mirror(batch, self.captioner.vocabulary)
        progress = moment.epochs_done / moment.epochs
        batch = self.settings.objective.prepare(self.captioner, batch, progress, self._reward)
        loss: Loss = self._objective(batch)
        counts = distributed.add(loss.counts)
        total = torch.stack(
            [own / max(count, 1.0) for own, count in zip(loss.sums, counts, strict=True)]
        ).sum()
        self.optimizer.zero_grad(set_to_none=True)
        (
            total * distributed.num_processes()
        ).backward()  # DistributedDataParallel takes the mean of gradients
        if self.settings.clip_value is not None:
            nn.utils.clip_grad_value_(self._parameters, self.settings.clip_value)
        if self.settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self.settings.clip_norm)
        self.optimizer.step()
        if self.average is not None and self.settings.average_decay is not None:
            # As TensorFlow's ExponentialMovingAverage: short at first, for the first weights are the worst.
            decay = min(self.settings.average_decay, (1 + moment.step) / (10 + moment.step))
            self.average.multi_avg_fn = get_ema_multi_avg_fn(decay)
            self.average.update_parameters(self._trained)
        return replace(loss, minimised=total.detach())

    def share_buffers(self) -> None:
        """Give all processes the first one's statistics, which each moved with its own share of the last batch."""
        distributed.share(self._trained.buffers())

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Give the captioner the averaged weights, where there are any, as long as the block lasts."""
        if self.average is None:
            yield
            return
        last = copy.deepcopy(self._trained.state_dict())
        self._trained.load_state_dict(self.average.module.state_dict())
        try:
            yield
        finally:
            self._trained.load_state_dict(last)

    @property
    def _trained(self) -> nn.Module:
        return self.captioner if self.captioner.encoder.is_trainable else self.captioner.decoder

    def learning_rates(self) -> dict[str, float]:
        """Return the present learning rates of decoder and encoder."""
        names = ["learning_rate", "encoder_learning_rate"]
        return {name: group["lr"] for name, group in zip(names, self.optimizer.param_groups, strict=False)}

    def state_dict(self) -> dict[str, Any]:
        """Return what a resume needs beside the weights."""
        average = None if self.average is None else self.average.state_dict()
        return {"optimizer": self.optimizer.state_dict(), "average": average}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])


def _synchronise(module: nn.Module) -> None:
    """Have batch normalisations count over all processes; only torch's own, for a subclass may do more (timm's do)."""
    for name, child in module.named_children():
        if type(child) in {nn.BatchNorm1d, nn.BatchNorm2d}:
            setattr(module, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
        else:
            _synchronise(child)
