"""Any torchvision classification network: AlexNet to ConvNeXt, Swin and ViT."""

import copy
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.fx.experimental import optimization

from captioning.encoders import light_import
from captioning.encoders.image_encoder import ImageEncoder, load, stages, tokens_to_grid

torchvision = light_import.torchvision()

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
"""Of pixels scaled to [0, 1]; nearly all of torchvision's weights were trained with them."""

HEAD = {"avgpool", "classifier", "fc", "heads"}
"""torchvision's names for what comes after the last grid; SqueezeNet's classifier is a convolution too."""

MAXVIT_SIDE = 224
"""Pixels: four halvings after the stem's must leave partitions of 7 x 7 cells."""


def check(name: str) -> None:
    """Refuse a name that torchvision does not have.

    Raises:
        ValueError: with those that it has.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise ValueError(f"torchvision has no network {name!r}; available: {', '.join(known)}")


def published_weights(name: str) -> dict[str, torch.Tensor]:
    """Return torchvision's default weights, downloaded and checked where they are not yet there.

    Raises:
        ValueError: torchvision has none for this network.
    """
    available = torchvision.models.get_model_weights(name)
    if not len(available):
        raise ValueError(f"torchvision has no ImageNet weights for {name!r}; use weights: none or a file")
    state: dict[str, torch.Tensor] = available.DEFAULT.get_state_dict(progress=False, check_hash=True)
    return state


class Encoder(ImageEncoder):
    """The network up to a layer.

    Args:
        name: torchvision's name of the network.
        layer: module whose output is the grid or the vector; None is the last grid before pooling.
        pooled: one vector an image, the mean over the grid's cells.
        height, width: of the images, in pixels.
        state: a torchvision state dict; None leaves the random initialisation.

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
        network = _network(name, height, width)
        if layer is None:
            layer = _last_before_pooling(network)
        trunk = _up_to(network, layer, name)
        if state is not None:
            load(network, _renamed(network, state), needed=trunk.state_dict(), name=name)
        self._height, self._width = height, width  # `run` is called when the encoder is made
        self._has_tokens = name.startswith("vit_")
        self._has_channels_last = name.startswith("swin_") and layer.split(".")[0] in {"features", "norm"}
        mean, deviation = normalisation(name)
        super().__init__(
            trunk,
            name=name,
            layer=layer,
            pooled=pooled,
            height=height,
            width=width,
            mean=mean,
            deviation=deviation,
        )

    def folded(self) -> "Encoder":
        """Return a copy with each BatchNorm folded into the convolution before it: 1.3 times faster (ResNet101)."""
        folded = copy.deepcopy(self)
        folded.network = optimization.fuse(folded.network, inplace=True)
        return folded

    def run(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the layer's output."""
        output: torch.Tensor = self.network(pixels_BCHW)
        num_axes = output.ndim if isinstance(output, torch.Tensor) else 0
        if num_axes == 2 or (num_axes == 4 and self._has_channels_last):
            return output
        if num_axes == 4:
            return output.permute(0, 2, 3, 1)
        if num_axes == 3 and self._has_tokens:
            return tokens_to_grid(output, num_prefix_tokens=1, height=self._height, width=self._width)
        raise ValueError(
            f"the output of {self.layer!r} in {self.name!r} is neither a grid nor a vector; name a whole stage"
        )


def _network(name: str, height: int, width: int) -> nn.Module:
    """Return the whole network, in evaluation mode: tracing would follow auxiliary classifiers in training mode."""
    extra: dict[str, Any] = {}
    if name in {"googlenet", "inception_v3"}:
        # Their weights come from TensorFlow with its normalisation, to which the networks turn ImageNet's themselves.
        extra = {"init_weights": True, "transform_input": True}
    if name.startswith(("vit_", "maxvit_")):
        is_vit = name.startswith("vit_")
        unit = int(name.rpartition("_")[2]) if is_vit else MAXVIT_SIDE
        if height != width or height % unit:
            raise ValueError(
                f"{name!r} takes square images whose side is a multiple of {unit} pixels, got {height} x {width}"
            )
        extra = {"image_size": height} if is_vit else {"input_size": (height, width)}
    network: nn.Module = torchvision.models.get_model(name, weights=None, **extra)
    return network.eval()


def normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation of the pixels that the network's published weights were trained with."""
    weights = torchvision.models.get_model_weights(name)
    if not len(weights):
        return IMAGENET_MEAN, IMAGENET_DEVIATION
    transform = weights.DEFAULT.transforms()
    return tuple(transform.mean), tuple(transform.std)


class _Tracer(fx.Tracer):
    """Looks only into the modules that `layer` is in: all others stay as they are, whatever they do inside."""

    def __init__(self, layer: str = "") -> None:
        super().__init__()
        self._layer = layer

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not self._layer.startswith(f"{module_qualified_name}.")


def _calls(graph: fx.Graph) -> list[fx.Node]:
    return [node for node in graph.nodes if node.op == "call_module"]


def _last_before_pooling(network: nn.Module) -> str:
    names = [str(node.target) for node in _calls(_Tracer().trace(network))]
    first_of_head = next(position for position, name in enumerate(names) if name in HEAD)
    return names[first_of_head - 1]


def _up_to(network: nn.Module, layer: str, name: str) -> fx.GraphModule:
    """Return the part of the network that ends with the output of `layer`; its modules are the network's own."""
    graph = _Tracer(layer).trace(network)
    calls = _calls(graph)
    if layer not in [node.target for node in calls]:
        top = list(dict.fromkeys(str(node.target) for node in _calls(_Tracer().trace(network))))
        raise ValueError(
            f"{name!r} has no layer {layer!r}; there are {', '.join(stages(network, top))}, and modules inside them"
        )
    last = next(node for node in reversed(calls) if node.target == layer)
    for node in reversed(list(graph.nodes)):
        if node is last:
            break
        graph.erase_node(node)
    graph.output(last)
    trunk = fx.GraphModule(network, graph, type(network).__name__)
    trunk.graph.eliminate_dead_code()
    trunk.delete_all_unused_submodules()
    trunk.recompile()
    return trunk


def _renamed(network: nn.Module, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the state with the names and positions of this network, as torchvision does it on loading its own."""
    # DenseNet's published weights have the names of an older release: `norm.1` is now `norm1`.
    renamed = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", key): value
        for key, value in state.items()
    }
    if isinstance(network, torchvision.models.VisionTransformer) and "encoder.pos_embedding" in renamed:
        renamed["encoder.pos_embedding"] = renamed["encoder.pos_embedding"].float()
        interpolate_embeddings = torchvision.models.vision_transformer.interpolate_embeddings
        renamed = interpolate_embeddings(network.image_size, network.patch_size, renamed)
    return renamed
