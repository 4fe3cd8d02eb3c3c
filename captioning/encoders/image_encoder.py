"""What the encoders of all libraries have in common: pixels, the shape of the features, which part is trained."""

import bisect
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

LARGEST_SIDE_TRIED = 512
"""Pixels, in the search for the smallest images that a network takes."""


class ImageEncoder(nn.Module):
    """Pixels -> features, `images_BCHW` uint8 -> `features_BLD` float32; L cells in reading order.

    It begins frozen: no parameter has a gradient, and all of the network is in evaluation mode.

    Args:
        network: already with its weights.
        name: of the network.
        layer: whose output `run` returns; None is the last grid.
        pooled: one vector an image (L = 1), the mean over the grid's cells.
        height, width: of the images, in pixels.
        mean, deviation: of each channel of the pixels that the network expects, for pixels scaled to [0, 1].

    Raises:
        ValueError: the network does not take images of this size, or gives no grid where one is asked for.
    """

    mean: torch.Tensor
    deviation: torch.Tensor
    feature_dim: int
    """D."""
    grid: tuple[int, int]
    """Rows and columns of cells, L in total; (1, 1) for one vector an image."""

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        layer: str | None,
        pooled: bool,
        height: int,
        width: int,
        mean: Iterable[float],
        deviation: Iterable[float],
    ) -> None:
        super().__init__()
        self.name, self.layer, self.pooled = name, layer, pooled
        self.network = network.eval()
        self.register_buffer("mean", torch.tensor([*mean]).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("deviation", torch.tensor([*deviation]).view(3, 1, 1) * 255, persistent=False)
        # Convolutions on a CPU: 21 -> 67 images/s for mobilenet_v2.
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._order: dict[str, int] = {}
        shape = self._look(height, width)
        self.grid = (shape[1], shape[2]) if len(shape) == 4 and not pooled else (1, 1)
        self.feature_dim = shape[-1]
        self.set_trainable(None)

    def run(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the network's `grid_BHWD`, or its `vector_BD`, for normalised pixels.

        Raises:
            ValueError: the network's output is neither.
        """
        raise NotImplementedError

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Return `features_BLD` float32."""
        pixels_BCHW = (images_BCHW.float() - self.mean) / self.deviation
        output = self.run(pixels_BCHW.contiguous(memory_format=torch.channels_last)).float()
        cells_BLD = output.flatten(1, 2) if output.ndim == 4 else output.unsqueeze(1)
        return cells_BLD.mean(dim=1, keepdim=True) if self.pooled else cells_BLD.contiguous()

    def folded(self) -> "ImageEncoder":
        """Return the encoder for inference alone, maybe with fewer layers; it cannot be trained.

        Features differ by rounding, a few millionths.
        """
        return self

    @property
    def is_trainable(self) -> bool:
        """Return whether a part of the network is trained."""
        return any(parameter.requires_grad for parameter in self.network.parameters())

    def set_trainable(self, start: str | None) -> None:
        """Train the module `start` and all that runs after it up to the features, and freeze what runs before.

        Code that follows Show, Attend and Tell often tunes a ResNet from `layer2` on; im2txt tunes all of its Inception
        in a second phase.

        Args:
            start: a module's name, such as `layer2` or `features.5`; `all`; None freezes the whole network.

        Raises:
            ValueError: no such module runs before the grid, or there is nothing to be learned from there on.
        """
        if start is None or start == "all":
            self._first_trained = 0 if start else len(self._order)
        elif start in self._order and start in dict(self.network.named_modules()):
            self._first_trained = self._order[start]
        else:
            known = stages(self.network, [name for name, _ in self.network.named_children()])
            raise ValueError(
                f"{self.name!r} has no module {start!r} on the way to its features; "
                f"stages: all, {', '.join(known)}, or a module inside one"
            )
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(self._is_trained(name))
        self.train(self.training)
        if start is not None and not self.is_trainable:
            raise ValueError(f"{self.name!r} has no parameters from {start!r} on; begin at an earlier stage")

    def train(self, mode: bool = True) -> "ImageEncoder":
        """Set training mode; what is frozen stays in evaluation mode, so BatchNorm statistics do not move there."""
        super().train(mode)
        for name, module in self.network.named_modules():
            module.training = mode and self._is_trained(name)
        return self

    def extra_repr(self) -> str:
        """Return what the modules inside do not say."""
        return (
            f"{self.name}, layer={self.layer}, pooled={self.pooled}, grid={self.grid}, "
            f"mean={self.mean.flatten().tolist()}, deviation={self.deviation.flatten().tolist()}"
        )

    def _is_trained(self, name: str) -> bool:
        """Return whether the module or parameter of this name comes at or after the start; one never used does not."""
        return self._order.get(name, -1) >= self._first_trained

    def _look(self, height: int, width: int) -> tuple[int, ...]:
        """Return the shape of the network's output, after one run in which the order of its parts is noted."""
        uses = _Uses(self.network)
        try:
            with uses:
                shape = self._shape(height, width)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(
                f"{self.name!r} does not take images of {height} x {width} pixels{self.sizes_taken()}: "
                f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
            ) from None
        finally:
            uses.close()
        self._order = uses.order
        if len(shape) == 2 and not self.pooled:
            raise ValueError(
                f"{self.name!r} gives one vector an image at layer {self.layer!r}; set pooled: true, or name a layer "
                "with a grid"
            )
        if len(shape) == 4 and shape[1] * shape[2] == 1 and not self.pooled:
            raise ValueError(
                f"the grid of {self.name!r} for images of {height} x {width} pixels has one cell{self.sizes_taken()}: "
                "name an earlier layer, or set pooled: true"
            )
        return shape

    @torch.no_grad()
    def _shape(self, height: int, width: int) -> tuple[int, ...]:
        return tuple(self.run(torch.zeros(1, 3, height, width)).shape)

    def sizes_taken(self) -> str:
        """Say in parentheses the smallest square images that give what is asked for; nothing if there are none."""

        def fits(side: int) -> bool:
            try:
                shape = self._shape(side, side)
            except (RuntimeError, AssertionError, ValueError):
                return False
            return self.pooled or shape[1] * shape[2] > 1

        side = 1 + bisect.bisect_left(range(1, LARGEST_SIDE_TRIED + 1), True, key=fits)
        return f" (the smallest square ones are {side} x {side})" if side <= LARGEST_SIDE_TRIED else ""


class _Uses(TorchFunctionMode):
    """Notes in `order` when each module is entered and each parameter is used for the first time."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.order = {"": 0}
        self._names = {id(parameter): name for name, parameter in network.named_parameters()}
        self._hooks = [
            module.register_forward_pre_hook(lambda _module, _inputs, name=name: self._enter(name))
            for name, module in network.named_modules()
        ]

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, nn.Parameter) and id(value) in self._names:
                self._note(self._names[id(value)])
        return function(*args, **(kwargs or {}))

    def close(self) -> None:
        """Leave the network as it was."""
        for hook in self._hooks:
            hook.remove()

    def _enter(self, path: str) -> None:
        parts = path.split(".")
        for depth in range(1, len(parts) + 1):  # a ModuleList is not called itself
            self._note(".".join(parts[:depth]))

    def _note(self, name: str) -> None:
        self.order.setdefault(name, len(self.order))


def stages(network: nn.Module, names: list[str]) -> list[str]:
    """Return `names` of modules with those opened that hold nearly all of the network, such as VGG's `features`."""
    num_modules = {name: len([*network.get_submodule(name).modules()]) for name in names}
    largest = max(names, key=lambda name: num_modules[name])
    inside = [f"{largest}.{child}" for child, _ in network.get_submodule(largest).named_children()]
    if not inside or num_modules[largest] < 0.9 * sum(num_modules.values()):
        return names
    position = names.index(largest)
    return stages(network, [*names[:position], *inside, *names[position + 1 :]])


def load(
    network: nn.Module, state: Mapping[str, torch.Tensor], *, needed: Collection[str], name: str
) -> None:
    """Put `state` into the network; what is not `needed`, a classifier, may be missing or of another shape.

    Raises:
        ValueError: the state is one of another network.
    """
    own = network.state_dict()
    fitting = OrderedDict(
        (key, value)
        for key, value in state.items()
        if key in needed or key not in own or own[key].shape == value.shape
    )
    # MNASNet refuses a state without a version, and would rebuild itself for one of version 1.
    fitting._metadata = {"": {"version": network._version}}  # type: ignore[attr-defined]
    try:
        missing, unexpected = network.load_state_dict(fitting, strict=False)
    except RuntimeError as error:
        message = " ".join(str(error).split())
        raise ValueError(f"the weights do not fit {name!r}: {message[:500]}") from None
    if missing := [key for key in missing if key in needed]:
        raise ValueError(f"the weights do not fit {name!r}: they lack {_some(missing)}")
    if unexpected:
        raise ValueError(f"the weights do not fit {name!r}, which has no {_some(unexpected)}")


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")


def tokens_to_grid(
    tokens_BTD: torch.Tensor, *, num_prefix_tokens: int, height: int, width: int
) -> torch.Tensor:
    """Return a transformer's patches as `grid_BHWD`, without the class tokens before them.

    Raises:
        ValueError: they are no grid with the proportions of images of `height` x `width` pixels.
    """
    num_patches = tokens_BTD.shape[1] - num_prefix_tokens
    rows = max(1, round((num_patches * height / width) ** 0.5))
    if num_patches % rows:
        raise ValueError(
            f"{num_patches} tokens are no grid of images of {height} x {width} pixels; name another layer"
        )
    return tokens_BTD[:, num_prefix_tokens:].unflatten(1, (rows, num_patches // rows))
