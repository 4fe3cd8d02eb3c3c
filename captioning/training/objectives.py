"""What a step minimises: the cross-entropy of reference captions, or minus the reward of captions drawn from the model.

An objective first prepares a batch without gradients (draws words or captions), then returns sums over the batch. Means
are taken over all processes together, so that the number of processes changes nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field

from captioning.batches import Batch
from captioning.captioner import Captioner
from captioning.forcing import Words, force
from captioning.params import Settings
from captioning.recurrence import Forced
from captioning.sampling import allowed_log_probabilities, sample

Reward = Callable[[Sequence[str], list[list[list[int]]]], np.ndarray]
"""`reward(image_ids, words_BK) -> B x K`: what each of an image's captions is worth."""


@dataclass(frozen=True)
class Loss:
    """Sums over a batch; what is minimised is the sum of sum / count of each term, over all processes."""

    sums: tuple[torch.Tensor, ...]
    """Of each term, differentiable."""
    counts: tuple[float, ...]
    """Of what each term adds up."""
    reported: torch.Tensor
    """Sum of what the training's curve shows: the cross-entropy without smoothing, or the reward."""
    num_reported: float
    minimised: torch.Tensor = field(default_factory=lambda: torch.zeros(()))
    """What the step minimised, this process's share of it."""


class CrossEntropy(Settings):
    """Teacher forcing: the log-likelihood of the reference captions."""

    name: Literal["cross_entropy"]
    label_smoothing: float = Field(ge=0, lt=1)
    attention_penalty: float = Field(ge=0)
    """Weight of the doubly stochastic term (Show, Attend and Tell, equation 14)."""
    scheduled_sampling: float = Field(ge=0, le=1)
    """Share of the words read that the model drew itself, by the phase's end; it grows linearly from 0."""

    def prepare(self, captioner: Captioner, batch: Batch, progress: float, reward: Reward | None) -> Batch:
        """Replace some of the words read by words drawn from the model.

        Bengio et al. (2015), in the parallel form of Duckworth et al. (2019) with one pass: the words are drawn from
        the distributions that teacher forcing gives, so that any decoder can be trained with it.
        """
        share = self.scheduled_sampling * progress
        if not share:
            return batch
        with torch.no_grad():
            forced, words = force(captioner, batch)
            probabilities = torch.softmax(captioner.decoder.words.logits(forced.output_WE).float(), dim=1)
            drawn_W = torch.multinomial(probabilities, 1).squeeze(1)
            is_read_W = (words.step_W + 1 < batch.tokens_NT.shape[1]) & (
                torch.rand(len(drawn_W), device=drawn_W.device) < share
            )
            tokens_NT = batch.tokens_NT.to(drawn_W.device, copy=True)
            tokens_NT[words.row_W[is_read_W], words.step_W[is_read_W] + 1] = drawn_W[is_read_W]
        return replace(batch, tokens_NT=tokens_NT)

    @staticmethod
    def scores(reported: float) -> dict[str, float]:
        """Return the score of an epoch whose mean `Loss.reported` is given."""
        return {"train_loss": reported}

    def loss(self, captioner: Captioner, batch: Batch) -> Loss:
        """Return the cross-entropy a word, and the attention penalty a caption and cell."""
        forced, words = force(captioner, batch)
        log_probabilities = torch.log_softmax(captioner.decoder.words.logits(forced.output_WE).float(), dim=1)
        log_likelihood_W = log_probabilities.gather(1, words.targets_W.unsqueeze(1)).squeeze(1)
        cross_entropy = -log_likelihood_W.sum()
        smoothed = cross_entropy
        if self.label_smoothing:
            uniform = -log_probabilities.mean(dim=1).sum()
            smoothed = (1 - self.label_smoothing) * cross_entropy + self.label_smoothing * uniform
        if forced.choice_loss is not None:
            smoothed = smoothed + forced.choice_loss(log_likelihood_W.detach()).sum()
        num_words = float(len(words.targets_W)) * batch.weight
        sums, counts = [smoothed * batch.weight], [num_words]
        if self.attention_penalty:
            penalty, count = self._penalty(forced, words, batch)
            sums.append(self.attention_penalty * penalty * batch.weight)
            counts.append(count * batch.weight)
        return Loss(tuple(sums), tuple(counts), cross_entropy.detach() * batch.weight, num_words)

    def _penalty(self, forced: Forced, words: Words, batch: Batch) -> tuple[torch.Tensor, float]:
        """Return the sum over captions and cells of (1 - what the cell got over the caption)^2, and their number."""
        assert forced.attention_WL is not None, "the settings were checked"
        num_cells = forced.attention_WL.shape[1]
        attended_NL = forced.attention_WL.new_zeros(len(batch.tokens_NT), num_cells)
        attended_NL = attended_NL.index_add(0, words.row_W, forced.attention_WL)
        is_caption_N = batch.lengths_N > 0
        rest_NL = 1 - attended_NL[is_caption_N.nonzero().squeeze(1).to(attended_NL.device)]
        return rest_NL.square().sum(), float(rest_NL.numel())


class SelfCritical(Settings):
    """Self-critical sequence training (Rennie et al., 2017) with the mean of an image's other samples as baseline.

    The baseline is that of Luo (2020), "A Better Variant of Self-Critical Sequence Training". Captions are drawn in
    evaluation mode, as the model speaks when it is used. `<eos>` is a word of its own, in the reward as in the loss, so
    that a caption that breaks off is worth less.
    """

    name: Literal["self_critical"]
    num_samples: int = Field(ge=2)
    max_words: int = Field(ge=1)

    def prepare(self, captioner: Captioner, batch: Batch, progress: float, reward: Reward | None) -> Batch:
        """Return a batch of captions drawn from the model, with the advantage of each."""
        assert reward is not None, "self-critical training has a reward"
        was_training = captioner.training
        captioner.eval()
        with torch.no_grad():
            drawn = sample(
                captioner.decoder,
                captioner.features(batch.inputs),
                num_samples=self.num_samples,
                max_words=self.max_words,
            )
        captioner.train(was_training)
        rewards_BK = reward(batch.image_ids, drawn.words_BK)
        total_B1 = rewards_BK.sum(axis=1, keepdims=True)
        advantages_BK = rewards_BK - (total_B1 - rewards_BK) / (self.num_samples - 1)
        order_B = drawn.longest_first
        return replace(
            batch,
            inputs=batch.inputs[order_B.to(batch.inputs.device)],
            image_ids=tuple(batch.image_ids[image] for image in order_B.tolist()),
            tokens_NT=drawn.tokens_NT,
            targets_NT=drawn.targets_NT,
            lengths_N=drawn.lengths_N,
            advantages_N=torch.from_numpy(advantages_BK[order_B.numpy()]).flatten().float(),
            reward=float(rewards_BK.mean()),
        )

    @staticmethod
    def scores(reported: float) -> dict[str, float]:
        """Return the score of an epoch whose mean `Loss.reported` is given."""
        return {"train_reward": reported}

    def loss(self, captioner: Captioner, batch: Batch) -> Loss:
        """Return minus the log-likelihood of the captions drawn, each times its advantage, a word."""
        assert batch.advantages_N is not None, "prepare has run"
        forced, words = force(captioner, batch)
        assert forced.choice_loss is None, "the settings were checked"
        log_probabilities = allowed_log_probabilities(captioner.decoder.words.logits(forced.output_WE))
        log_likelihood_W = log_probabilities.gather(1, words.targets_W.unsqueeze(1)).squeeze(1)
        advantages_W = batch.advantages_N.to(log_likelihood_W.device)[words.row_W]
        num_images = float(len(batch.image_ids)) * batch.weight
        total = -(advantages_W * log_likelihood_W).sum() * batch.weight
        reported = torch.full((), batch.reward * num_images, device=total.device)
        return Loss((total,), (float(len(words.targets_W)) * batch.weight,), reported, num_images)


ObjectiveSettings = Annotated[CrossEntropy | SelfCritical, Field(discriminator="name")]
