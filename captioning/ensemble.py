"""Several captioners that speak as one: the mean of their next-word probabilities decides."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from captioning.captioner import AnyCaptioner, Captioner
from captioning.recurrence import Forced, Memory, State


class Ensemble(AnyCaptioner):
    """Captioners of one vocabulary, each with an encoder, features and a pixel transform of its own.

    Args:
        captioners: one or more, on one device; the same several times is allowed.

    Raises:
        ValueError: there is none, or their vocabularies differ.
    """

    def __init__(self, captioners: Sequence[Captioner]) -> None:
        super().__init__()
        if not captioners:
            raise ValueError("an ensemble of no captioners: expected one or more")
        self.captioners = nn.ModuleList(captioners)
        self.vocabulary, self.language_model = captioners[0].vocabulary, captioners[0].language_model
        for number, own in enumerate(captioners):
            if own.vocabulary.digest != self.vocabulary.digest:
                raise ValueError(
                    f"the vocabulary of captioner {number} ({len(own.vocabulary)} words) is not that of captioner 0 "
                    f"({len(self.vocabulary)} words), so their words' probabilities have no mean: take captioners that "
                    "were trained on the same data/examples"
                )
        self.decoder = EnsembleDecoder([own.decoder for own in captioners])

    @classmethod
    def load(cls, folders: Sequence[Path], device: str | torch.device = "cpu") -> "Ensemble":
        """Read captioners from the folders that `Captioner.save` wrote."""
        return cls([Captioner.load(folder, device) for folder in folders])

    def pixels(self, images: Sequence[np.ndarray]) -> tuple[torch.Tensor, ...]:
        """Return the pixels that each captioner sees."""
        return tuple(own.pixels(images) for own in self._members)

    def features(self, inputs: torch.Tensor | Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Return the features of each captioner, of inputs for each, or of pixels for all.

        Raises:
            ValueError: pixels for all, and the captioners see pictures of different sizes.
        """
        if isinstance(inputs, torch.Tensor):
            transforms = [own.transform for own in self._members]
            if len(set(transforms)) > 1:
                sizes = ", ".join(f"{own.height} x {own.width}" for own in transforms)
                raise ValueError(
                    f"the captioners of this ensemble see pictures of different sizes ({sizes}), so one tensor of "
                    "pixels does not serve all: give one for each, as `pixels` makes them"
                )
            inputs = [inputs] * len(transforms)
        return tuple(own.features(each) for own, each in zip(self._members, inputs, strict=True))

    @property
    def _members(self) -> list[Any]:
        return list(self.captioners)


class EnsembleDecoder(nn.Module):
    """A decoder (see `captioning.decoders`) whose score of the next word is the log of the mean of its probabilities.

    That is its output, too. Its memory and state are those of its members side by side, named `<number>.<name>`.
    Attention is the mean of the members', where all attend to grids of one size.
    """

    def __init__(self, decoders: Sequence[nn.Module]) -> None:
        super().__init__()
        self.decoders = nn.ModuleList(decoders)
        self.words = _Scores()

    def prepare(self, features: Sequence[torch.Tensor]) -> Memory:
        """Return what is constant per image, of the features of each member."""
        return _side_by_side(
            own.prepare(features_BLD) for own, features_BLD in zip(self._members, features, strict=True)
        )

    def start(self, memory: Memory, num_rows: int) -> State:
        """Return the state before the first word."""
        return _side_by_side(
            own.start(_own(memory, number), num_rows) for number, own in enumerate(self._members)
        )

    def step(
        self, memory: Memory, state: State, tokens_N: torch.Tensor
    ) -> tuple[torch.Tensor, State, torch.Tensor | None]:
        """Read one word; return the scores of the next N x V, the next state, and the attention N x L."""
        outputs, states, attentions = zip(
            *(
                own.step(_own(memory, number), _own(state, number), tokens_N)
                for number, own in enumerate(self._members)
            ),
            strict=True,
        )
        return self._mean(outputs), _side_by_side(states), _mean_attention(attentions)

    def forward(self, memory: Memory, tokens_NT: torch.Tensor, lengths_N: torch.Tensor) -> Forced:
        """Teacher forcing."""
        forced = [own(_own(memory, number), tokens_NT, lengths_N) for number, own in enumerate(self._members)]
        return Forced(
            output_WE=self._mean([own.output_WE for own in forced]),
            attention_WL=_mean_attention([own.attention_WL for own in forced]),
        )

    def _mean(self, outputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the log of the mean probability of each word, ...V."""
        scores = [
            torch.log_softmax(own.words.logits(output).float(), dim=-1)
            for own, output in zip(self._members, outputs, strict=True)
        ]
        return torch.logsumexp(torch.stack(scores), dim=0) - math.log(len(scores))

    @property
    def _members(self) -> list[Any]:
        return list(self.decoders)


class _Scores(nn.Module):
    """The output layer of what are scores already."""

    def logits(self, output_V: torch.Tensor) -> torch.Tensor:
        return output_V


def _side_by_side(parts: Any) -> dict[str, torch.Tensor]:
    return {f"{number}.{name}": own for number, part in enumerate(parts) for name, own in part.items()}


def _own(tensors: dict[str, torch.Tensor], number: int) -> dict[str, torch.Tensor]:
    prefix = f"{number}."
    return {name.removeprefix(prefix): own for name, own in tensors.items() if name.startswith(prefix)}


def _mean_attention(attentions: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    first, *others = attentions
    if first is None or any(own is None or own.shape != first.shape for own in others):
        return None
    return torch.stack([own for own in attentions if own is not None]).mean(dim=0)
