"""Captions drawn at random from a model's own distribution, as self-critical training learns from them."""

from dataclasses import dataclass
from typing import Any

import torch

from captioning.generation import Captions, Sampler, forbid, search
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
    return torch.log_softmax(forbid(logits_NV.to(torch.float32, copy=True)), dim=1)


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
    parts = search(
        decoder,
        features_BLD,
        Sampler(num_samples, lambda captions: _random(captions, generator)),
        lambda scores_NV, _: forbid(scores_NV),
        max_words=max_words,
    )
    words_of = {
        image: [ids[: ids.index(EOS) + 1] if EOS in ids else ids for ids in own]
        for part in parts
        for image, own in zip(
            part.images_B.tolist(),
            part.words_NT[:, 1:].view(len(part.images_B), num_samples, -1).tolist(),
            strict=True,
        )
    }
    return _samples([words_of[image] for image in range(len(words_of))])


def _random(captions: Captions, generator: torch.Generator | None) -> torch.Tensor:
    return torch.rand(len(captions.scores_N), generator=generator, device=captions.scores_N.device)


def _samples(words_BK: list[list[list[int]]]) -> Samples:
    lengths_BK = torch.tensor([[len(words) for words in own] for own in words_BK])
    longest_first = lengths_BK.amax(dim=1).argsort(descending=True, stable=True)
    targets_NT = torch.full((lengths_BK.numel(), int(lengths_BK.max())), PAD)
    rows = (words for image in longest_first.tolist() for words in words_BK[image])
    for target_T, words in zip(targets_NT, rows, strict=True):
        target_T[: len(words)] = torch.tensor(words)
    read_NT = targets_NT[:, :-1].masked_fill(targets_NT[:, :-1] == EOS, PAD)
    return Samples(
        words_BK=words_BK,
        longest_first=longest_first,
        tokens_NT=torch.cat([torch.full_like(targets_NT[:, :1], BOS), read_NT], dim=1),
        targets_NT=targets_NT,
        lengths_N=lengths_BK[longest_first].flatten(),
    )
