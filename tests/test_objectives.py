"""What a training step minimises, against the formulas written out."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from captioning import encoders
from captioning.batches import Batch
from captioning.captioner import Captioner
from captioning.decoders import soft_attention
from captioning.images import PixelTransform
from captioning.training.objectives import CrossEntropy, Loss, SelfCritical
from captioning.vocabulary import BOS, EOS, MARKERS, Vocabulary

VOCABULARY = Vocabulary([*MARKERS, "a", "red", "dog"])
WIDTHS = {"embedding_width": 16, "hidden_width": 16, "dropout": 0.0, "tied_embeddings": False}


def _captioner(decoder: Any) -> Captioner:
    torch.manual_seed(0)
    return Captioner(
        encoder=encoders.Settings(name="resnet18", weights="none", layer="layer2", pooled=False),
        decoder=decoder,
        vocabulary=VOCABULARY,
        transform=PixelTransform(height=32, width=48),
    ).eval()


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return _captioner(
        soft_attention.Settings(name="soft_attention", feature_width=16, attention_width=16, **WIDTHS)
    )


@pytest.fixture
def batch() -> Batch:
    """Two images with captions of 3 and 2 words, and of 1 word and none."""
    generator = torch.Generator().manual_seed(1)
    return Batch(
        inputs=torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8, generator=generator),
        tokens_NT=torch.tensor([[1, 4, 5, 6], [1, 4, 6, 0], [1, 4, 0, 0], [0, 0, 0, 0]]),
        targets_NT=torch.tensor([[4, 5, 6, 2], [4, 6, 2, 0], [4, 2, 0, 0], [0, 0, 0, 0]]),
        lengths_N=torch.tensor([4, 3, 2, 0]),
        image_ids=("one", "two"),
    )


def _cross_entropy(**changes: float) -> CrossEntropy:
    settings = {"label_smoothing": 0.0, "attention_penalty": 0.0, "scheduled_sampling": 0.0}
    return CrossEntropy(name="cross_entropy", **(settings | changes))


def _mean(loss: Loss) -> float:
    return sum(float(own.detach()) / count for own, count in zip(loss.sums, loss.counts, strict=True))


def _log_probabilities(captioner: Captioner, batch: Batch) -> torch.Tensor:
    """Word by word: N x T x V."""
    memory = captioner.decoder.prepare(captioner.features(batch.inputs))
    state, steps = captioner.decoder.start(memory, len(batch.tokens_NT)), []
    for t in range(batch.tokens_NT.shape[1]):
        output, state, _ = captioner.decoder.step(memory, state, batch.tokens_NT[:, t])
        steps.append(torch.log_softmax(captioner.decoder.words.logits(output), dim=1))
    return torch.stack(steps, dim=1).detach()


def test_cross_entropy_is_that_of_the_words_and_not_of_padding(captioner: Captioner, batch: Batch):
    loss = _cross_entropy().loss(captioner, batch)
    expected = -_log_probabilities(captioner, batch).gather(2, batch.targets_NT.unsqueeze(2)).squeeze(2)
    expected = float(expected[batch.targets_NT != 0].sum())
    assert loss.num_reported == 9
    assert float(loss.reported) == pytest.approx(expected, rel=1e-5)
    assert _mean(loss) == pytest.approx(expected / 9, rel=1e-5)


def test_label_smoothing_spreads_a_share_over_all_words(captioner: Captioner, batch: Batch):
    scores_NTV = _log_probabilities(captioner, batch)
    smooth = torch.nn.functional.cross_entropy(
        scores_NTV.flatten(0, 1), batch.targets_NT.flatten(), ignore_index=0, label_smoothing=0.2
    )
    loss = _cross_entropy(label_smoothing=0.2).loss(captioner, batch)
    assert _mean(loss) == pytest.approx(float(smooth), rel=1e-5)
    assert float(loss.reported) == pytest.approx(float(_cross_entropy().loss(captioner, batch).reported))


def test_attention_penalty_is_the_doubly_stochastic_term(captioner: Captioner, batch: Batch):
    memory = captioner.decoder.prepare(captioner.features(batch.inputs))
    attention = captioner.decoder(memory, batch.tokens_NT, batch.lengths_N).attention_WL
    per_caption = [own.sum(dim=0) for own in attention.split((4, 3, 2))]
    expected = torch.stack([(1 - own).square().mean() for own in per_caption]).mean()
    term = _mean(_cross_entropy(attention_penalty=2.0).loss(captioner, batch)) - _mean(
        _cross_entropy().loss(captioner, batch)
    )
    assert term == pytest.approx(2 * float(expected.detach()), rel=1e-4)


def test_a_batch_without_weight_adds_nothing(captioner: Captioner, batch: Batch):
    loss = _cross_entropy(attention_penalty=1.0).loss(captioner, replace(batch, weight=0.0))
    numbers = (*loss.sums, *loss.counts, loss.reported, loss.num_reported)
    assert [float(torch.as_tensor(own).detach()) for own in numbers] == [0] * 6


def test_scheduled_sampling_replaces_a_growing_share_of_the_words_read(captioner: Captioner, batch: Batch):
    objective, many = _cross_entropy(scheduled_sampling=1.0), []
    for progress in (0.0, 0.5, 1.0):
        torch.manual_seed(0)
        changed = [objective.prepare(captioner, batch, progress, None).tokens_NT for _ in range(20)]
        assert all(torch.equal(own[:, 0], batch.tokens_NT[:, 0]) for own in changed), (
            "<bos> is never replaced"
        )
        assert all(torch.equal(own[3], batch.tokens_NT[3]) for own in changed), "an empty row stays empty"
        many.append(sum(int((own != batch.tokens_NT).sum()) for own in changed))
    assert many[0] == 0
    assert many[0] < many[1] < many[2]


def test_self_critical_training_raises_the_reward():
    """The reward is the number of dogs; a model that begins with chance learns to say nothing else."""
    captioner = _captioner(
        soft_attention.Settings(name="soft_attention", feature_width=16, attention_width=16, **WIDTHS)
    )
    images = torch.zeros(4, 3, 32, 48, dtype=torch.uint8)
    empty = torch.full((4, 1), BOS)
    batch = Batch(
        inputs=captioner.features(images).detach(),
        tokens_NT=empty,
        targets_NT=torch.full((4, 1), EOS),
        lengths_N=torch.ones(4, dtype=torch.long),
        image_ids=("a", "b", "c", "d"),
    )

    def dogs(image_ids: Any, words_BK: list[list[list[int]]]) -> np.ndarray:
        return np.array([[words.count(6) for words in own] for own in words_BK], dtype=float)

    objective = SelfCritical(name="self_critical", num_samples=5, max_words=4)
    optimizer = torch.optim.Adam(captioner.decoder.parameters(), lr=0.01)
    rewards = []
    for _ in range(30):
        drawn = objective.prepare(captioner, batch, 0.0, dogs)
        assert drawn.advantages_N is not None
        assert drawn.advantages_N.view(4, 5).sum(dim=1).abs().max() < 1e-5
        loss = objective.loss(captioner, drawn)
        optimizer.zero_grad()
        (loss.sums[0] / loss.counts[0]).backward()
        optimizer.step()
        rewards.append(float(loss.reported) / loss.num_reported)
    assert rewards[0] < 1.5
    assert np.mean(rewards[-5:]) > 3.5
