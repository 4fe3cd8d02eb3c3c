"""Examples -> batches of images with all their captions, in an order that is a function of seed and epoch alone."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from captioning.examples import Examples
from captioning.vocabulary import BOS, EOS, PAD


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B images with K captions each, N = B x K rows; an image is encoded once, whatever the number of its captions.

    Images come with the longest caption first. One with fewer than K captions has empty rows of length 0.
    """

    inputs: torch.Tensor
    """images_BCHW uint8, or features_BLD where they are cached."""
    tokens_NT: torch.Tensor
    """int64: `<bos>` and the words; padded with `<pad>`."""
    targets_NT: torch.Tensor
    """int64: the words and `<eos>`; padded with `<pad>`."""
    lengths_N: torch.Tensor
    """int64, on the CPU: words and one marker, or 0."""
    image_ids: tuple[str, ...]
    weight: float = 1.0
    """0 for a batch that a process is given only because it must take part in every step."""
    advantages_N: torch.Tensor | None = None
    """How much better than expected each caption is, where the captions were drawn from the model."""
    reward: float = 0.0
    """Their mean reward."""


def collate(captions: Sequence[Sequence[np.ndarray]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pad the word ids of `captions` (by image and caption) to tokens_NT, targets_NT and lengths_N."""
    num_rows = max(len(own) for own in captions)
    lengths_BK = torch.zeros(len(captions), num_rows, dtype=torch.long)
    for image, own in enumerate(captions):
        lengths_BK[image, : len(own)] = torch.tensor([len(tokens) + 1 for tokens in own])
    tokens_BKT = torch.full((len(captions), num_rows, int(lengths_BK.max())), PAD)
    targets_BKT = tokens_BKT.clone()
    for image, own in enumerate(captions):
        for row, tokens in enumerate(own):
            words = torch.from_numpy(np.asarray(tokens, dtype=np.int64))
            tokens_BKT[image, row, 0] = BOS
            tokens_BKT[image, row, 1 : len(words) + 1] = words
            targets_BKT[image, row, : len(words)] = words
            targets_BKT[image, row, len(words)] = EOS
    return tokens_BKT.flatten(0, 1), targets_BKT.flatten(0, 1), lengths_BK.flatten()


def assemble(
    examples: Examples, positions: Sequence[int] | np.ndarray, inputs: torch.Tensor, *, weight: float = 1.0
) -> Batch:
    """Return the batch of the images at `positions` with all their captions; `inputs` are their pixels or features."""
    captions = [examples.tokens(position) for position in positions]
    longest_first = np.argsort([-max(map(len, own)) for own in captions], kind="stable")
    tokens_NT, targets_NT, lengths_N = collate([captions[image] for image in longest_first])
    return Batch(
        inputs=inputs[torch.from_numpy(longest_first)],
        tokens_NT=tokens_NT,
        targets_NT=targets_NT,
        lengths_N=lengths_N,
        image_ids=tuple(examples.image_id(positions[image]) for image in longest_first),
        weight=weight,
    )


class Batches:
    """The batches of a split, or one process's share of each; `read` turns image positions into pixels or features."""

    def __init__(
        self,
        examples: Examples,
        read: Callable[[np.ndarray], torch.Tensor],
        *,
        batch_size: int,
        seed: int | None,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        self._examples, self._read, self._batch_size, self._seed = examples, read, batch_size, seed
        self._rank, self._num_ranks = rank, num_ranks

    def __len__(self) -> int:
        return math.ceil(len(self._examples) / self._batch_size)

    def epoch(self, epoch: int, *, first_step: int = 0) -> Iterator[Batch]:
        """Yield the batches from `first_step` on, shuffled anew each epoch; without a seed in the examples' order."""
        order = np.arange(len(self._examples))
        if self._seed is not None:
            order = np.random.default_rng((self._seed, epoch)).permutation(order)
        for step in range(first_step, len(self)):
            of_all = np.sort(order[step * self._batch_size : (step + 1) * self._batch_size])
            positions = of_all[self._rank :: self._num_ranks]
            weight = float(len(positions) > 0)
            if not len(positions):
                positions = of_all[:1]
            yield assemble(self._examples, positions, self._read(positions), weight=weight)
