"""Any network of timm (`pip install 'captioning[timm]'`), with the size and the normalisation of its own weights."""

import difflib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch

from captioning.encoders.image_encoder import ImageEncoder, load, tokens_to_grid


def check(name: str) -> None:
    """Refuse a name that timm does not have.

    Raises:
        ValueError: with the names most like it, or with how timm is installed.
    """
    timm = _timm()
    known = [*timm.list_models(), *timm.list_pretrained()]
    if name not in known:
        near = ", ".join(f"timm/{own}" for own in difflib.get_close_matches(name, known, n=5, cutoff=0.4))
        raise ValueError(f"timm {timm.__version__} has no network {name!r}; most like it: {near or 'none'}")


def published_weights(name: str) -> dict[str, torch.Tensor]:
    """Return the weights that timm publishes under the name, downloaded where they are not yet there.

    Raises:
        ValueError: there are none.
    """
    timm = _timm()
    if not timm.is_model_pretrained(name):
        tags = ", ".join(f"timm/{own}" for own in timm.list_pretrained(f"{name.partition('.')[0]}.*"))
        raise ValueError(
            f"timm has no weights for {name!r}, but for {tags or 'none of its variants'}; name one, or use "
            "weights: none or a file"
        )
    state: dict[str, torch.Tensor] = timm.create_model(name, pretrained=True).state_dict()
    return state


class Encoder(ImageEncoder):
    """The network without its head, or up to one of the stages that timm lists for it.

    Args:
        name: timm's name of the network, without or with a tag, such as `convnext_base.fb_in22k`.
        layer: a module out of timm's `feature_info`, such as `stages.2`; None is the last hidden state, with the final
            normalisation.
        pooled: one vector an image, the mean over the grid's cells.
        height, width: of the images, in pixels; positional embeddings are interpolated to them.
        state: a timm state dict; None leaves the random initialisation.

    Raises:
        ValueError: the network does not take images of this size, the layer does not exist or gives no grid, or the
            state does not fit the network.
    """

    def __init__(
        self,
        *,
        name: str,
        layer: str | None,
        pooled: bool,
        height: int,
        width: int,
        state: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        timm = _timm()
        network = timm.create_model(name)
        if state is not None:
            head = _head(network)
            needed = [key for key in network.state_dict() if not key.startswith(head)]
            load(network, state, needed=needed, name=name)
        _resize(network, name, height, width)
        network.reset_classifier(0)
        self._index = None if layer is None else _cut(network, name, layer)
        self._height, self._width = height, width  # `run` is called when the encoder is made
        config = timm.data.resolve_model_data_config(network)
        super().__init__(
            network,
            name=name,
            layer=layer,
            pooled=pooled,
            height=height,
            width=width,
            mean=config["mean"],
            deviation=config["std"],
        )

    def run(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the last hidden state, or the output of the layer."""
        network: Any = self.network
        if self._index is not None:
            (grid_BDHW,) = network.forward_intermediates(
                pixels_BCHW, indices=[self._index], output_fmt="NCHW", intermediates_only=True
            )
            return grid_BDHW.permute(0, 2, 3, 1)
        output = network.forward_features(pixels_BCHW)
        if isinstance(output, torch.Tensor) and output.ndim == 4:
            return output if getattr(network, "output_fmt", "NCHW") == "NHWC" else output.permute(0, 2, 3, 1)
        if isinstance(output, torch.Tensor) and output.ndim == 3:
            return tokens_to_grid(
                output, num_prefix_tokens=self._num_prefix_tokens(), height=self._height, width=self._width
            )
        raise ValueError(f"timm's {self.name!r} ends in more than one grid; name a layer")

    def sizes_taken(self) -> str:
        """Say in parentheses the smallest square images, or the network's own size."""
        return super().sizes_taken() or f" (its own size is {_own_size(self.network)})"

    def _num_prefix_tokens(self) -> int:
        stated: int | None = getattr(self.network, "num_prefix_tokens", None)
        # Those say nothing, and have a class token.
        return int(type(self.network).__name__ in {"CoaT", "VOLO"}) if stated is None else stated


def _timm() -> ModuleType:
    try:
        import timm
    except ModuleNotFoundError:
        raise ValueError("networks of timm need the package: pip install 'captioning[timm]'") from None
    module: ModuleType = timm
    return module


def _head(network: Any) -> tuple[str, ...]:
    """Return what the names of the classifier's parameters begin with."""
    stated = network.pretrained_cfg["classifier"] or "head"
    return tuple(f"{name}." for name in ([stated] if isinstance(stated, str) else stated))


def _resize(network: Any, name: str, height: int, width: int) -> None:
    """Prepare a network that is made for one size of images for another; convolutions need nothing."""
    if not hasattr(network, "set_input_size"):
        return
    try:
        network.set_input_size(img_size=(height, width))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(
            f"{name!r} does not take images of {height} x {width} pixels (its own size is {_own_size(network)}): "
            f"{error}"
        ) from None


def _own_size(network: Any) -> str:
    _, height, width = network.pretrained_cfg["input_size"]
    return f"{height} x {width}"


def _cut(network: Any, name: str, layer: str) -> int:
    """Remove what runs after the layer, and return the layer's index among timm's features."""
    layers = [feature["module"] for feature in network.feature_info]
    if layer not in layers:
        raise ValueError(f"timm lists no layer {layer!r} of {name!r}; there are {', '.join(layers)}")
    (index,) = network.prune_intermediate_layers([layers.index(layer)], prune_norm=True)
    return int(index)
