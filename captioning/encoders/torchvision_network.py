"""Any torchvision classification network as a grid encoder: AlexNet to ConvNeXt, Swin and ViT."""

import warnings
from pathlib import Path

import torch
import torchvision
from pydantic import field_validator
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from captioning.params import Settings as PartSettings

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
"""Of pixels scaled to [0, 1]; all of torchvision's ImageNet weights were trained with them."""


CLASSIFIERS = {"classifier", "fc", "head", "heads", "aux1", "aux2", "AuxLogits"}
"""torchvision's names for what comes after the features; SqueezeNet's classifier is a convolution too."""


class Settings(PartSettings):
    """The `train.encoder` section."""

    name: str
    """A torchvision classification network, such as `resnet101`."""
    weights: str
    """`imagenet`, `none`, or the name of a state dict in weights/."""
    layer: str | None
    """Module whose output is the grid, such as `layer3`; null is the last grid before pooling."""
    trainable: bool
    """False: frozen, in evaluation mode, its features are computed once."""

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        known = torchvision.models.list_models(module=torchvision.models)
        if name not in known:
            raise ValueError(f"torchvision has no network {name!r}; available: {', '.join(known)}")
        return name


class Encoder(nn.Module):
    """Pixels -> the network's native grid of features, `images_BCHW` uint8 -> `features_BLD` float32.

    Args:
        name: torchvision's name of the network.
        layer: module whose output is the grid; None is the last output with more than one cell, before any pooling
            to a fixed size.
        height, width: of the images, in pixels.
        state: a torchvision state dict; None leaves the random initialisation.

    Raises:
        ValueError: the layer does not exist or gives no grid, or the state dict does not fit the network.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(
        self,
        *,
        name: str,
        layer: str | None,
        height: int,
        width: int,
        state: dict[str, torch.Tensor] | None = None,
    ) -> None:
        super().__init__()
        network = _network(name, height)
        if state is not None:
            _load(network, state, name)
        node, shape = _find_grid(network, layer, torch.zeros(1, 3, height, width), name)
        with warnings.catch_warnings():  # of layers, such as dropout, that only training runs
            warnings.filterwarnings("ignore", message="NOTE: The nodes obtained by tracing")
            self.network = create_feature_extractor(network, {node: "grid"})
        self.has_class_token = len(shape) == 3
        self.feature_dim = shape[1] if len(shape) == 4 else shape[2]
        self.grid = (shape[2], shape[3]) if len(shape) == 4 else _square(shape[1] - 1)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer(
            "deviation", torch.tensor(IMAGENET_DEVIATION).view(3, 1, 1) * 255, persistent=False
        )
        # Convolutions on a CPU: 21 -> 67 images/s for mobilenet_v2.
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the grid's cells in reading order, `features_BLD` float32."""
        pixels_BCHW = (images_BCHW.float() - self.mean) / self.deviation
        grid = self.network(pixels_BCHW.contiguous(memory_format=torch.channels_last))["grid"]
        if self.has_class_token:
            return grid[:, 1:].float()
        return grid.flatten(2).transpose(1, 2).float().contiguous()


def read_weights(name: str, weights: str, folder: Path) -> dict[str, torch.Tensor] | None:
    """Return the state dict that `weights` means: `imagenet`, `none` or a file in `folder`.

    Raises:
        ValueError: the file does not exist, or torchvision has no ImageNet weights for this network.
    """
    if weights == "none":
        return None
    if weights == "imagenet":
        available = torchvision.models.get_model_weights(name)
        if not len(available):
            raise ValueError(f"torchvision has no ImageNet weights for {name!r}; use weights: none or a file")
        return available.DEFAULT.get_state_dict(progress=False, check_hash=True)
    path = folder / weights
    if not path.is_file():
        known = sorted(file.name for file in folder.iterdir() if file.suffix != ".md")
        raise ValueError(
            f"train.encoder.weights: {weights!r} is not in {folder}/, which has {', '.join(known)}; put the file there "
            "or run `captioning use RECIPE train.encoder.weights=FILE`"
        )
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    state: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _network(name: str, height: int) -> nn.Module:
    extra: dict[str, object] = {"init_weights": True} if name in {"googlenet", "inception_v3"} else {}
    if name.startswith("vit_"):
        extra["image_size"] = height
    network: nn.Module = torchvision.models.get_model(name, weights=None, **extra)
    return network.eval()


def _load(network: nn.Module, state: dict[str, torch.Tensor], name: str) -> None:
    floats = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    try:
        network.load_state_dict(floats)
    except RuntimeError as error:
        raise ValueError(f"the weights do not fit torchvision's {name!r}: {str(error)[:500]}") from None


@torch.inference_mode()
def _find_grid(
    network: nn.Module, layer: str | None, images: torch.Tensor, name: str
) -> tuple[str, tuple[int, ...]]:
    """Return the module whose output is the grid and that output's shape, from one run on an empty image."""
    outputs: dict[str, tuple[int, ...]] = {}

    def record(path: str) -> None:
        def hook(module: nn.Module, _: object, output: object) -> None:
            is_feature = (
                not isinstance(module, nn.AdaptiveAvgPool2d) and path.partition(".")[0] not in CLASSIFIERS
            )
            if isinstance(output, torch.Tensor) and is_feature and _is_grid(output, path):
                outputs[path] = tuple(output.shape)

        network.get_submodule(path).register_forward_hook(hook)

    for path, _ in list(network.named_modules()):
        if path:
            record(path)
    network(images)
    for module in network.modules():
        module._forward_hooks.clear()
    if layer is None and outputs:
        layer = list(outputs)[-1]
    if layer not in outputs:
        height, width = images.shape[2:]
        raise ValueError(
            f"{name!r} has no grid {layer!r} for images of {height} x {width} pixels; "
            f"grids: {', '.join(outputs) or 'none'}"
        )
    return layer, outputs[layer]


def _is_grid(output: torch.Tensor, path: str) -> bool:
    if output.ndim == 4:
        return output.shape[2] * output.shape[3] > 1
    return output.ndim == 3 and path == "encoder"  # a vision transformer's class token and patches


def _square(num_cells: int) -> tuple[int, int]:
    side = round(num_cells**0.5)
    return (side, num_cells // side)
