"""Random changes of train images, each image by itself, on the device: what stays true to its captions."""

from dataclasses import replace

import torch
from pydantic import Field
from torch import nn
from torchvision.transforms import v2

from captioning.batches import Batch
from captioning.params import Settings
from captioning.vocabulary import Vocabulary

SIDES = ("left", "right")
"""Words that a mirrored image exchanges."""


class AugmentationSettings(Settings):
    """How much train images are changed; each amount is drawn anew for each image."""

    min_crop_share: float = Field(gt=0, le=1)
    """Of the image's area that stays; 1 crops nothing. What a caption names may be cut away below some 0.8."""
    brightness: float = Field(ge=0, le=1)
    contrast: float = Field(ge=0, le=1)
    saturation: float = Field(ge=0, le=1)
    """Factors drawn from 1 - x to 1 + x."""
    hue: float = Field(ge=0, le=0.5)
    """Of the colour circle. Captions name colours: above 0.05 they stop being true."""
    flip: bool
    """Whether half of the images are mirrored, and `left` and `right` exchanged in their captions."""
    views: int | None = Field(ge=1)
    """How many changed versions of each image a frozen encoder sees, one an epoch in turn; null is a new one always."""


class Augmentation(nn.Module):
    """`images_BCHW` uint8 -> the same, changed by torch's global random numbers, each image by itself."""

    def __init__(self, settings: AugmentationSettings, height: int, width: int) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        if settings.min_crop_share < 1:
            parts.append(
                v2.RandomResizedCrop((height, width), scale=(settings.min_crop_share, 1.0), antialias=True)
            )
        jitter = {name: getattr(settings, name) for name in ("brightness", "contrast", "saturation", "hue")}
        if any(jitter.values()):
            parts.append(v2.ColorJitter(**jitter))
        self._change = v2.Compose(parts) if parts else nn.Identity()

    @torch.no_grad()
    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Return changed images of the same size."""
        return torch.stack([self._change(image) for image in images_BCHW])


def mirror(batch: Batch, vocabulary: Vocabulary) -> Batch:
    """Mirror half of the images, drawn at random, and exchange `left` and `right` in their captions."""
    is_mirrored_B = torch.rand(len(batch.inputs)) < 0.5
    images_BCHW = batch.inputs.clone()
    images_BCHW[is_mirrored_B.to(images_BCHW.device)] = images_BCHW[
        is_mirrored_B.to(images_BCHW.device)
    ].flip(3)
    is_mirrored_N = is_mirrored_B.repeat_interleave(len(batch.tokens_NT) // len(batch.inputs))
    exchanged_V = torch.arange(len(vocabulary))
    left, right = (vocabulary.words.index(side) if side in vocabulary.words else None for side in SIDES)
    if left is not None and right is not None:
        exchanged_V[left], exchanged_V[right] = right, left
    tokens_NT, targets_NT = (
        torch.where(is_mirrored_N.unsqueeze(1), exchanged_V[words_NT], words_NT)
        for words_NT in (batch.tokens_NT, batch.targets_NT)
    )
    return replace(batch, inputs=images_BCHW, tokens_NT=tokens_NT, targets_NT=targets_NT)
