"""Optimisers by name: torch's own, with one learning rate for the decoder and one for the encoder."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from captioning.params import Settings


class Adam(Settings):
    """Kingma and Ba (2015); weight decay as an L2 penalty."""

    name: Literal["adam"]
    learning_rate: float = Field(gt=0)
    betas: tuple[float, float] = Field(strict=False)
    weight_decay: float = Field(ge=0)


class AdamW(Settings):
    """Loshchilov and Hutter (2019); weight decay beside the gradient."""

    name: Literal["adamw"]
    learning_rate: float = Field(gt=0)
    betas: tuple[float, float] = Field(strict=False)
    weight_decay: float = Field(ge=0)


class SGD(Settings):
    """Stochastic gradient descent."""

    name: Literal["sgd"]
    learning_rate: float = Field(gt=0)
    momentum: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)


class RMSprop(Settings):
    """Tieleman and Hinton (2012)."""

    name: Literal["rmsprop"]
    learning_rate: float = Field(gt=0)
    smoothing: float = Field(gt=0, lt=1)
    momentum: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)


class Adagrad(Settings):
    """Duchi et al. (2011)."""

    name: Literal["adagrad"]
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)


OptimizerSettings = Annotated[Adam | AdamW | SGD | RMSprop | Adagrad, Field(discriminator="name")]
"""`learning_rate` is that of the decoder, at its peak."""

CLASSES: dict[str, Any] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
}
TORCH_NAMES = {"smoothing": "alpha"}


def build(
    settings: Any,
    decoder: Iterable[torch.nn.Parameter],
    encoder: Iterable[torch.nn.Parameter],
    *,
    encoder_learning_rate: float,
) -> torch.optim.Optimizer:
    """Return the optimiser of all parameters that require a gradient; each group keeps its peak as `peak`.

    On a GPU the update of all parameters is one fused kernel, where torch has it.
    """
    groups: list[dict[str, Any]] = [
        {"params": [own for own in parameters if own.requires_grad], "lr": rate, "peak": rate}
        for parameters, rate in ((decoder, settings.learning_rate), (encoder, encoder_learning_rate))
    ]
    groups = [group for group in groups if group["params"]]
    options = settings.model_dump(exclude={"name", "learning_rate"})
    options = {TORCH_NAMES.get(name, name): value for name, value in options.items()}
    is_fused = settings.name in {"adam", "adamw", "sgd"} and all(own.is_cuda for own in groups[0]["params"])
    if is_fused:
        options["fused"] = True
    optimizer: torch.optim.Optimizer = CLASSES[settings.name](groups, lr=settings.learning_rate, **options)
    return optimizer
