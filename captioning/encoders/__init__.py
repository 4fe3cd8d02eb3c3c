"""Networks that turn images into features: any classification network of torchvision, and with its extra of timm.

`train.encoder.name` chooses the network: `resnet101` is torchvision's, `timm/convnext_base.fb_in22k` is timm's. A
module for each of the two libraries has

- `check(name)`: refuse a name that the library does not have;
- `published_weights(name) -> state`: the pretrained state dict that the library publishes under the name;
- `class Encoder(image_encoder.ImageEncoder)`, where the contract of an encoder stands.

The shape of the features and the normalisation of the pixels are derived from network, weights and size of the images.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from pydantic import field_validator

from captioning import lookup
from captioning.params import Settings as PartSettings

if TYPE_CHECKING:  # torch and torchvision take seconds to import
    import torch

    from captioning.encoders.image_encoder import ImageEncoder

TIMM = "timm/"
"""Begins the name of a network of timm."""


class Settings(PartSettings):
    """The `train.encoder` section."""

    name: str
    """A torchvision classification network, such as `resnet101`, or `timm/` and the name of one of timm's."""
    weights: str
    """`imagenet` (those that the library publishes under the name), `none`, or the name of a state dict in weights/."""
    layer: str | None
    """Module whose output is the grid, such as `layer3`, or the vector, such as VGG's `classifier.4`; null is the last
    grid before pooling."""
    pooled: bool
    """True: one vector an image, the mean over the grid's cells."""

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        module, own_name = _library(name)
        module.check(own_name)
        return name


def build(
    settings: Settings, *, height: int, width: int, state: "Mapping[str, torch.Tensor] | None" = None
) -> "ImageEncoder":
    """Return the encoder, frozen.

    Args:
        settings: of `train.encoder`; `weights` is not looked at.
        height, width: of the images, in pixels.
        state: what `read_weights` gave; None leaves the random initialisation.

    Raises:
        ValueError: the network does not take images of this size, the layer does not exist or gives no grid, or the
            state does not fit the network.
    """
    module, own_name = _library(settings.name)
    encoder: ImageEncoder = module.Encoder(
        name=own_name,
        layer=settings.layer,
        pooled=settings.pooled,
        height=height,
        width=width,
        state=state,
    )
    return encoder


def read_weights(settings: Settings, folder: Path) -> "dict[str, torch.Tensor] | None":
    """Return the state dict that `settings.weights` means: published ones, none or a file in `folder`.

    Raises:
        ValueError: the file does not exist or is no state dict, or the library publishes no weights for this network.
    """
    if settings.weights == "none":
        return None
    if settings.weights == "imagenet":
        module, own_name = _library(settings.name)
        published: dict[str, torch.Tensor] = module.published_weights(own_name)
        return published
    path = folder / settings.weights
    if not path.is_file():
        known = sorted(file.name for file in folder.iterdir() if file.suffix != ".md")
        raise ValueError(
            f"train.encoder.weights: {settings.weights!r} is not in {folder}/, which has {', '.join(known)}; put the "
            "file there or run `captioning use RECIPE train.encoder.weights=FILE`"
        )
    return _read_state(path)


def _read_state(path: Path) -> "dict[str, torch.Tensor]":
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"train.encoder.weights: {path} cannot be read: {str(error)[:300]}") from None
    if not isinstance(state, dict) or not all(isinstance(own, torch.Tensor) for own in state.values()):
        keys = f" with {', '.join(map(str, list(state)[:5]))}" if isinstance(state, dict) else ""
        raise ValueError(
            f"train.encoder.weights: {path} holds a {type(state).__name__}{keys}; "
            "expected a state dict: names and tensors"
        )
    return state


def _library(name: str) -> tuple[ModuleType, str]:
    """Return the module that builds the network, and the network's name in its library."""
    kind = "timm_network" if name.startswith(TIMM) else "torchvision_network"
    return lookup.find("encoders", kind), name.removeprefix(TIMM)
