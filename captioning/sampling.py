"""Captions drawn at random from a model's own distribution, as self-critical training learns from them."""

from dataclasses import dataclass
from typing import Any

import torch

from captioning.generation import forbid
from captioning.vocabulary import BOS, EOS, PAD


@dataclass(frozen=True, kw_only=True)
class Samples:
    """K captions of each of B images, N = B x K rows, on the CPU.

    The tensors are those of `captioning.batches.Batch`, but a caption that was cut has no `<eos>` in its targets.
    """

    words_BK: list[list[list[int]]]
    """Word ids, with `<eos>` last where the caption has ended; images in the order of their features."""
    longest_first: torch.Tensor
    """B int64: the images in the order that the tensors below, and teacher forcing, have them."""
    tokens_NT: torch.Tensor
    targets_NT: torch.Tensor
    lengths_N: torch.Tensor


def allowed_log_probabilities(logits_NV: torch.Tensor) -> torch.Tensor:
    """Return float32 log-probabilities of the words that may be generated, which share all of it; -inf for the others.

    Words are drawn from this distribution, so their log-likelihood is to be taken from it too: the gradient of another
    one is not that of the expected reward.
    """
    return torch.log_softmax(_allowed(logits_NV), dim=1)


@torch.no_grad()  # inference mode would make tensors that autograd refuses to save
def sample(
    decoder: Any,
    features_BLD: torch.Tensor,
    *,
    num_samples: int,
    max_words: int,
    generator: torch.Generator | None = None,
) -> Samples:
    """Draw `num_samples` captions of each image, word by word, from the distribution of `allowed_log_probabilities`.

    The decoder is used in the mode it is in. For self-critical training that is evaluation mode: what is rewarded are
    captions of the model that will be used, not of as many others as there are dropout masks.

    Args:
        decoder: see `captioning.decoders`.
        features_BLD: grid features of B images.
        num_samples: K.
        max_words: draws at most, that of `<eos>` included; a caption that has not ended by then is cut.
        generator: of the random numbers, on the features' device; torch's own where there is none.
    """
    num_rows, device = len(features_BLD) * num_samples, features_BLD.device
    memory = decoder.prepare(features_BLD)
    state = decoder.start(memory, num_rows)
    words_N = torch.full((num_rows,), BOS, device=device)
    has_ended_N = torch.zeros(num_rows, dtype=torch.bool, device=device)
    drawn: list[torch.Tensor] = []
    for _ in range(max_words):
        output, state, _ = decoder.step(memory, state, words_N)
        words_N = _draw(decoder.words.logits(output), generator).masked_fill(has_ended_N, PAD)
        drawn.append(words_N)
        has_ended_N = has_ended_N | (words_N == EOS)
        if bool(has_ended_N.all()):
            break
    return _samples(torch.stack(drawn, dim=1).cpu().view(-1, num_samples, len(drawn)))


def _allowed(logits_NV: torch.Tensor) -> torch.Tensor:
    return forbid(logits_NV.to(torch.float32, copy=True))


def _draw(logits_NV: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """Draw a word for each row by one random number; `torch.multinomial` makes V and takes 12 times as long."""
    cumulative_NV = torch.softmax(_allowed(logits_NV), dim=1).cumsum(dim=1)
    total_N1 = cumulative_NV[:, -1:]
    random_N1 = torch.rand(total_N1.shape, generator=generator, device=total_N1.device)
    # The first word with a larger sum: never one of probability 0, and always one, as random * total < total.
    drawn_N = torch.searchsorted(cumulative_NV, random_N1 * total_N1, right=True).squeeze(1)
    # Logits that are not finite, for which there is none, show in the loss and not as an index.
    return drawn_N.clamp_(max=logits_NV.shape[1] - 1)


def _samples(targets_BKT: torch.Tensor) -> Samples:
    lengths_BK = (targets_BKT != PAD).sum(dim=2)
    longest_first = lengths_BK.amax(dim=1).argsort(descending=True, stable=True)
    targets_NT = targets_BKT[longest_first].flatten(0, 1)
    read_NT = targets_NT[:, :-1].masked_fill(targets_NT[:, :-1] == EOS, PAD)
    return Samples(
        words_BK=[
            [words[:length] for words, length in zip(*own, strict=True)]
            for own in zip(targets_BKT.tolist(), lengths_BK.tolist(), strict=True)
        ],
        longest_first=longest_first,
        tokens_NT=torch.cat([torch.full_like(targets_NT[:, :1], BOS), read_NT], dim=1),
        targets_NT=targets_NT,
        lengths_N=lengths_BK[longest_first].flatten(),
    )
