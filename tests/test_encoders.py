import copy
import pickle
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torchvision.ops import StochasticDepth

from captioning import encoders
from captioning.encoders.image_encoder import ImageEncoder, tokens_to_grid
from captioning.encoders.torchvision_network import normalisation

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


class Family(NamedTuple):
    """One small network of a family, at images that are nearly its smallest."""

    name: str
    side: int
    feature_dim: int
    grid: tuple[int, int]
    start: str
    trained: tuple[str, ...]
    """Modules with parameters from `start` on."""


FAMILIES = [
    Family("alexnet", 96, 256, (2, 2), "features.6", ("features.6", "features.8", "features.10")),
    Family("vgg11", 64, 512, (2, 2), "features.15", ("features.16", "features.18")),
    Family("resnet18", 64, 512, (2, 2), "layer3", ("layer3", "layer4")),
    Family(
        "densenet121",
        64,
        1024,
        (2, 2),
        "features.denseblock4",
        ("features.denseblock4", "features.norm5"),
    ),
    Family("squeezenet1_1", 64, 512, (3, 3), "features.11", ("features.11", "features.12")),
    Family("inception_v3", 107, 2048, (2, 2), "Mixed_7b", ("Mixed_7b", "Mixed_7c")),
    Family("googlenet", 64, 1024, (2, 2), "inception5a", ("inception5a", "inception5b")),
    Family("efficientnet_b0", 64, 1280, (2, 2), "features.7", ("features.7", "features.8")),
    Family("efficientnet_v2_s", 64, 1280, (2, 2), "features.6", ("features.6", "features.7")),
    Family("convnext_tiny", 64, 768, (2, 2), "features.6", ("features.6", "features.7")),
    Family("swin_t", 64, 768, (2, 2), "features.6", ("features.6", "features.7", "norm")),
    Family(
        "vit_b_32",
        64,
        768,
        (2, 2),
        "encoder.layers.encoder_layer_10",
        ("encoder.layers.encoder_layer_10", "encoder.layers.encoder_layer_11", "encoder.ln"),
    ),
    Family("regnet_y_400mf", 64, 440, (2, 2), "trunk_output.block4", ("trunk_output.block4",)),
    Family("mobilenet_v2", 64, 1280, (2, 2), "features.17", ("features.17", "features.18")),
    Family("mobilenet_v3_small", 64, 576, (2, 2), "features.11", ("features.11", "features.12")),
    Family("mnasnet0_5", 64, 1280, (2, 2), "layers.13", ("layers.13", "layers.14", "layers.15")),
    Family("shufflenet_v2_x0_5", 64, 1024, (2, 2), "stage4", ("stage4", "conv5")),
    Family("maxvit_t", 224, 512, (7, 7), "blocks.3", ("blocks.3",)),
]


def _images(height: int, width: int | None = None, *, num_images: int = 2) -> torch.Tensor:
    """Return different images, uint8."""
    generator = torch.Generator().manual_seed(0)
    shape = (num_images, 3, height, width or height)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def _build(
    name: str,
    height: int = 64,
    width: int | None = None,
    *,
    layer: str | None = None,
    pooled: bool = False,
    state: Mapping[str, torch.Tensor] | None = None,
) -> ImageEncoder:
    torch.manual_seed(0)
    settings = encoders.Settings(name=name, weights="none", layer=layer, pooled=pooled)
    return encoders.build(settings, height=height, width=width or height, state=state)


def _statistics(encoder: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in encoder.named_buffers() if "running_" in name}


def _moved(encoder: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    """Return the running statistics that are no longer what they were."""
    return {name for name, value in _statistics(encoder).items() if not torch.equal(value, before[name])}


def _is_inside(name: str, modules: tuple[str, ...]) -> bool:
    return name.startswith(tuple(f"network.{module}." for module in modules))


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.name)
def built(request: pytest.FixtureRequest) -> Iterator[tuple[Family, ImageEncoder]]:
    yield request.param, _build(request.param.name, request.param.side)


def test_every_family_gives_the_grid_that_is_derived(built: tuple[Family, ImageEncoder]):
    family, encoder = built
    assert (encoder.feature_dim, encoder.grid) == (family.feature_dim, family.grid)
    with torch.inference_mode():
        features_BLD = encoder.eval()(_images(family.side))
    assert features_BLD.shape == (2, family.grid[0] * family.grid[1], family.feature_dim)
    assert features_BLD.dtype == torch.float32
    assert not torch.equal(features_BLD[0], features_BLD[1])


def test_a_gray_channel_gives_exactly_the_features_of_three_equal_ones(built: tuple[Family, ImageEncoder]):
    family, encoder = built
    gray_B1HW = torch.randint(0, 256, (2, 1, family.side, family.side), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(encoder.eval()(gray_B1HW), encoder(gray_B1HW.expand(-1, 3, -1, -1)))


def test_a_pooled_encoder_gives_the_mean_of_the_grid(built: tuple[Family, ImageEncoder]):
    family, encoder = built
    pooled = _build(family.name, family.side, pooled=True, state=encoder.network.state_dict())
    assert (pooled.feature_dim, pooled.grid) == (family.feature_dim, (1, 1))
    with torch.inference_mode():
        expected = encoder.eval()(_images(family.side)).mean(dim=1, keepdim=True)
        torch.testing.assert_close(pooled(_images(family.side)), expected)


def test_a_frozen_encoder_in_training_does_what_it_does_in_evaluation(built: tuple[Family, ImageEncoder]):
    family, encoder = built
    encoder.set_trainable(None)
    before = _statistics(encoder)
    features = encoder.eval()(_images(family.side))
    again = encoder.train()(_images(family.side))
    assert not encoder.is_trainable
    assert not again.requires_grad
    assert torch.equal(features, again)
    assert not _moved(encoder, before)


def test_a_folded_encoder_gives_the_same_features_and_leaves_the_encoder_as_it_was(
    built: tuple[Family, ImageEncoder],
):
    family, encoder = built
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.normal_(module.running_mean, 0, 0.1)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    images = _images(family.side)
    with torch.inference_mode():
        expected = encoder.eval()(images)
        found = encoder.folded().eval()(images)
    assert (found - expected).abs().max() <= 2e-5 * expected.abs().max()
    after = encoder.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_each_batchnorm_after_a_convolution_is_folded():
    folded = _build("resnet18").folded()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())


def test_what_runs_from_the_start_on_is_trained_and_nothing_before(built: tuple[Family, ImageEncoder]):
    family, encoder = built
    encoder.set_trainable(family.start)
    before = _statistics(encoder)
    encoder.train()(_images(family.side)).sum().backward()
    got = {name for name, parameter in encoder.named_parameters() if parameter.grad is not None}
    assert encoder.is_trainable
    assert got == {name for name, _ in encoder.named_parameters() if _is_inside(name, family.trained)}
    assert _moved(encoder, before) == {name for name in before if _is_inside(name, family.trained)}
    encoder.zero_grad(set_to_none=True)


@pytest.mark.parametrize("name", ["resnet18", "vit_b_32", "swin_t"])
def test_all_of_an_encoder_can_be_trained(name: str):
    encoder = _build(name)
    encoder.set_trainable("all")
    encoder.train()(_images(64)).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())
    kinds = (nn.Dropout, nn.BatchNorm2d, StochasticDepth)
    assert all(module.training for module in encoder.modules() if isinstance(module, kinds))
    assert not any(module.training for module in encoder.eval().modules())


def test_a_start_inside_a_stage_counts_parameters_that_belong_to_no_layer():
    encoder = _build("vit_b_32")
    encoder.set_trainable("conv_proj")
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    encoder.set_trainable("encoder.layers.encoder_layer_0")
    frozen = {name for name, parameter in encoder.named_parameters() if not parameter.requires_grad}
    assert frozen == {
        f"network.{name}"
        for name in ("class_token", "conv_proj.weight", "conv_proj.bias", "encoder.pos_embedding")
    }


def test_what_is_trained_can_be_changed_in_the_middle_of_training():
    encoder = _build("resnet18").train()
    assert not any(module.training for module in encoder.network.modules())
    encoder.set_trainable("layer4")
    assert encoder.network.get_submodule("layer4.1.bn2").training
    assert not encoder.network.get_submodule("layer3.1.bn2").training
    encoder.set_trainable("layer4.1.bn2")
    assert encoder.network.get_submodule("layer4.1.bn2").training
    assert not encoder.network.get_submodule("layer4.1.bn1").training
    encoder.set_trainable(None)
    assert not any(module.training for module in encoder.network.modules())


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("resnet18", "stages: all, conv1, bn1, relu, maxpool, layer1, layer2, or a module inside one"),
        ("regnet_y_400mf", "stages: all, stem, trunk_output.block1, trunk_output.block2, or a module"),
        ("mobilenet_v2", "stages: all, features.0, features.1, features.2, or a module inside one"),
    ],
)
def test_an_unknown_start_is_refused_with_the_stages_that_exist(name: str, known: str):
    layers = {
        "resnet18": "layer2",
        "regnet_y_400mf": "trunk_output.block2",
        "mobilenet_v2": "features.2",
    }
    encoder = _build(name, layer=layers[name])
    with pytest.raises(
        ValueError, match=f"{name!r} has no module 'layer9' on the way to its features; {known}"
    ):
        encoder.set_trainable("layer9")


def test_a_start_after_which_nothing_is_learned_is_refused():
    with pytest.raises(ValueError, match=r"'squeezenet1_1' has no parameters from 'features.2' on; begin at"):
        _build("squeezenet1_1", layer="features.2").set_trainable("features.2")


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda encoder: pickle.loads(pickle.dumps(encoder))])
def test_a_copy_of_an_encoder_is_an_encoder_of_its_own(duplicate):
    encoder = _build("resnet18", layer="layer3")
    encoder.set_trainable("layer3")
    encoder.train()
    other = duplicate(encoder)
    assert torch.equal(other(_images(64)), encoder(_images(64)))
    assert [own.requires_grad for own in other.parameters()] == [
        own.requires_grad for own in encoder.parameters()
    ]
    other.set_trainable(None)
    assert torch.equal(other.eval()(_images(64)), other.train()(_images(64)))
    assert encoder.is_trainable
    assert not other.is_trainable


def test_a_compiled_encoder_gives_the_same_features_whatever_is_trained():
    encoder = _build("resnet18", layer="layer2")
    compiled = torch.compile(encoder, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(_images(64)), encoder(_images(64)))
    encoder.set_trainable("layer2")
    before = _statistics(encoder.train())
    compiled(_images(64)).sum().backward()
    assert _moved(encoder, before) == {name for name in before if ".layer2." in name}
    assert encoder.network.get_submodule("layer2.0.conv1").weight.grad is not None


def test_synchronised_batch_normalisation_stays_frozen_where_it_was():
    encoder = _build("resnet18")
    encoder.set_trainable("layer4")
    nn.SyncBatchNorm.convert_sync_batchnorm(encoder)
    encoder.train()
    assert not encoder.network.get_submodule("layer3.1.bn2").training
    assert encoder.network.get_submodule("layer4.1.bn2").training


@pytest.mark.parametrize(
    ("name", "layer"),
    [("resnet18", "layer1"), ("swin_t", "features.0"), ("densenet121", "features.denseblock1")],
)
def test_cells_are_in_reading_order(name: str, layer: str):
    encoder = _build(name, 64, 96, layer=layer)
    assert encoder.grid == (16, 24)
    images = torch.zeros(2, 3, 64, 96, dtype=torch.uint8)
    images[1, :, :8, -8:] = 255  # the top right corner
    with torch.inference_mode():
        changed = (encoder(images)[1] - encoder(images)[0]).abs().sum(dim=1).view(16, 24)
    row, column = divmod(int(changed.argmax()), 24)
    assert row <= 2
    assert column >= 21


def test_tokens_are_a_grid_with_the_proportions_of_the_image():
    tokens = torch.arange(8.0).view(1, 8, 1)
    grid = tokens_to_grid(tokens, num_prefix_tokens=2, height=32, width=48)
    assert grid[0, :, :, 0].tolist() == [[2, 3, 4], [5, 6, 7]]
    with pytest.raises(ValueError, match="7 tokens are no grid of images of 32 x 48 pixels; name another"):
        tokens_to_grid(tokens, num_prefix_tokens=1, height=32, width=48)


def test_features_are_those_of_the_torchvision_network_on_normalised_pixels():
    torch.manual_seed(0)
    network = torchvision.models.resnet18(weights=None)
    state = copy.deepcopy(network.state_dict())
    network.fc, network.avgpool = nn.Identity(), nn.Identity()
    pixels = torchvision.transforms.functional.normalize(_images(64).float() / 255, **IMAGENET)
    encoder = _build("resnet18", state=state)
    with torch.inference_mode():
        expected = network.eval()(pixels).view(2, 512, 4).transpose(1, 2)
        torch.testing.assert_close(encoder(_images(64)), expected, atol=1e-4, rtol=1e-4)


def test_networks_that_came_from_tensorflow_get_its_normalisation():
    torch.manual_seed(0)
    network = torchvision.models.googlenet(weights=None, init_weights=False).eval()
    encoder = _build("googlenet", layer="conv1", state=network.state_dict())
    with torch.inference_mode():
        expected = network.conv1((_images(64).float() / 255 - 0.5) / 0.5).flatten(2).transpose(1, 2)
        torch.testing.assert_close(encoder(_images(64)), expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "mean", "deviation"),
    [
        ("resnet101", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("efficientnet_v2_l", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ],
)
def test_pixels_are_normalised_as_those_the_weights_were_trained_with(name, mean, deviation):
    assert normalisation(name) == (mean, deviation)


def test_a_layer_may_be_a_vector_of_the_classifier():
    torch.manual_seed(0)
    network = torchvision.models.alexnet(weights=None).eval()
    encoder = _build("alexnet", layer="classifier.4", pooled=True, state=network.state_dict())
    assert (encoder.feature_dim, encoder.grid) == (4096, (1, 1))
    network.classifier = network.classifier[:5]
    pixels = torchvision.transforms.functional.normalize(_images(64).float() / 255, **IMAGENET)
    with torch.inference_mode():
        torch.testing.assert_close(encoder(_images(64)), network(pixels).unsqueeze(1), atol=1e-4, rtol=1e-4)
    encoder.set_trainable("classifier.1")
    assert [name for name, own in encoder.network.named_parameters() if own.requires_grad] == [
        f"classifier.{name}" for name in ("1.weight", "1.bias", "4.weight", "4.bias")
    ]
    with pytest.raises(
        ValueError, match=r"'alexnet' gives one vector an image at layer 'classifier.4'; set pooled"
    ):
        _build("alexnet", layer="classifier.4")


def test_what_comes_after_the_layer_is_no_part_of_the_encoder():
    encoder = _build("resnet18", layer="layer1.0.bn1")
    assert [name for name, _ in encoder.network.named_modules()][1:] == [
        "conv1", "bn1", "relu", "maxpool", "layer1", "layer1.0", "layer1.0.conv1", "layer1.0.bn1"
    ]  # fmt: skip


def test_an_unknown_layer_is_refused_with_those_that_exist():
    with pytest.raises(
        ValueError, match=r"'resnet18' has no layer 'layer9'; there are conv1.*layer4.*fc, and"
    ):
        _build("resnet18", layer="layer9")


def test_a_layer_with_neither_grid_nor_vector_is_refused():
    layer = "encoder.layers.encoder_layer_0.self_attention"
    with pytest.raises(ValueError, match=f"the output of '{layer}' in 'vit_b_32' is neither a grid nor"):
        _build("vit_b_32", layer=layer)


@pytest.mark.parametrize(
    ("name", "side", "pooled", "message"),
    [
        ("inception_v3", 64, False, "does not take images of 64 x 64 pixels (the smallest square ones are 107 x"),
        ("inception_v3", 64, True, "does not take images of 64 x 64 pixels (the smallest square ones are 75 x 75)"),
        ("resnet18", 32, False, "has one cell (the smallest square ones are 33 x 33): name an earlier layer, or set"),
        ("vit_b_32", 80, False, "takes square images whose side is a multiple of 32 pixels, got 80 x 80"),
        ("maxvit_t", 64, True, "takes square images whose side is a multiple of 224 pixels, got 64 x 64"),
    ],
)  # fmt: skip
def test_images_of_a_size_that_the_network_cannot_take_are_refused(name, side, pooled, message):
    with pytest.raises(ValueError, match=rf"{name}.*{re.escape(message)}"):
        _build(name, side, pooled=pooled)


def test_images_as_small_as_a_refusal_says_are_taken():
    assert _build("inception_v3", 75, pooled=True).feature_dim == 2048


def test_an_unknown_network_is_refused_with_those_that_exist():
    with pytest.raises(ValueError, match=r"torchvision has no network 'resnt'; available: .*resnet101"):
        encoders.Settings(name="resnt", weights="none", layer=None, pooled=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: torchvision.models.squeezenet1_1().state_dict(), "they lack conv1.weight, bn1.weight.* more"),
        (lambda state: state | {"layer1.7.conv1.weight": torch.zeros(1)}, "which has no layer1.7.conv1.weight"),
        (lambda state: state | {"conv1.weight": torch.zeros(1)}, "size mismatch for conv1.weight"),
    ],
)  # fmt: skip
def test_weights_of_another_network_are_refused(change, message: str):
    state = change(dict(torchvision.models.resnet18(weights=None).state_dict()))
    with pytest.raises(ValueError, match=f"the weights do not fit 'resnet18'.*{message}"):
        _build("resnet18", state=state)


def test_weights_may_have_been_trained_for_other_classes():
    network = torchvision.models.resnet18(weights=None, num_classes=7)
    encoder = _build("resnet18", state=network.state_dict())
    torch.testing.assert_close(encoder.network.state_dict()["conv1.weight"], network.conv1.weight)


def test_weights_without_a_version_are_taken_as_those_of_today():
    network = torchvision.models.mnasnet0_5(weights=None)
    encoder = _build("mnasnet0_5", state=dict(network.state_dict()))
    assert torch.equal(encoder.network.state_dict()["layers.0.weight"], network.layers[0].weight)


def test_densenets_older_names_are_understood():
    state = torchvision.models.densenet121(weights=None).state_dict()
    older = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name): own for name, own in state.items()
    }
    name = "features.denseblock1.denselayer1.norm1.weight"
    older["features.denseblock1.denselayer1.norm.1.weight"] = torch.full_like(state[name], 7)
    assert name not in older
    assert (_build("densenet121", state=older).network.state_dict()[name] == 7).all()


def test_vision_transformers_older_names_are_understood():
    state = torchvision.models.vit_b_32(weights=None, image_size=64).state_dict()
    older = {
        name.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): own
        for name, own in state.items()
    }
    name = "encoder.layers.encoder_layer_0.mlp.0.weight"
    assert name not in older
    assert torch.equal(_build("vit_b_32", state=older).network.state_dict()[name], state[name])


def test_positions_of_a_vision_transformer_are_interpolated_to_the_size_of_the_images():
    state = dict(torchvision.models.vit_b_32(weights=None, image_size=96).state_dict())
    rows = torch.tensor([0.0, 1.0, 2.0]).repeat_interleave(3)
    state["encoder.pos_embedding"] = torch.cat([torch.tensor([9.0]), rows]).view(1, 10, 1).repeat(1, 1, 768)
    encoder = _build("vit_b_32", 160, state=state)
    positions = encoder.network.state_dict()["encoder.pos_embedding"][0, :, 0]
    assert positions[0] == 9
    torch.testing.assert_close(positions[[1, 11, 25]], torch.tensor([0.0, 1.0, 2.0]))
    assert positions.numel() == 1 + encoder.grid[0] * encoder.grid[1]


def _settings(weights: str, name: str = "resnet18") -> encoders.Settings:
    return encoders.Settings(name=name, weights=weights, layer=None, pooled=False)


def test_no_weights_are_no_weights(tmp_path: Path):
    assert encoders.read_weights(_settings("none"), tmp_path) is None


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_are_read_from_a_file(tmp_path: Path, suffix: str):
    state = {"conv1.weight": torch.arange(3.0)}
    (torch.save if suffix == ".pth" else save_file)(state, tmp_path / f"own{suffix}")
    read = encoders.read_weights(_settings(f"own{suffix}"), tmp_path)
    assert read is not None
    assert torch.equal(read["conv1.weight"], state["conv1.weight"])


def test_a_missing_weights_file_is_refused_with_those_that_are_there(tmp_path: Path):
    (tmp_path / "none").touch()
    with pytest.raises(
        ValueError, match=r"'resnet.pth' is not in .*, which has none; put the file there or run"
    ):
        encoders.read_weights(_settings("resnet.pth"), tmp_path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_damaged_weights_file_is_refused(tmp_path: Path, suffix: str):
    (tmp_path / f"torn{suffix}").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(ValueError, match=rf"train.encoder.weights: .*torn{suffix} cannot be read: "):
        encoders.read_weights(_settings(f"torn{suffix}"), tmp_path)


def test_a_file_with_more_than_a_state_dict_is_refused(tmp_path: Path):
    torch.save({"epoch": 3, "model": {"conv1.weight": torch.zeros(1)}}, tmp_path / "run.pth")
    with pytest.raises(ValueError, match=r"run.pth holds a dict with epoch, model; expected a state dict"):
        encoders.read_weights(_settings("run.pth"), tmp_path)


def test_real_weights_are_read_from_a_file(shared: Path):
    settings = _settings("mobilenet_v2.pth", "mobilenet_v2")
    state = encoders.read_weights(settings, shared / "data" / "weights")
    encoder = encoders.build(settings, height=224, width=224, state=state)
    with torch.inference_mode():
        features = encoder(_images(224))
    assert encoder.grid == (7, 7)
    share_of_zeros = (features == 0).float().mean()
    assert share_of_zeros > 0.3  # a trained ReLU6 network is sparse; a random one is not this much
    assert features.max() > 1


def test_a_network_of_timm_without_the_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=re.escape("need the package: pip install 'captioning[timm]'")):
        encoders.Settings(name="timm/convnext_base", weights="none", layer=None, pooled=False)


@pytest.fixture
def timm() -> ModuleType:
    module: ModuleType = pytest.importorskip("timm")
    return module


@pytest.mark.parametrize(
    ("name", "layer", "feature_dim", "grid", "start"),
    [
        ("resnet18", None, 512, (2, 3), "layer3"),
        ("resnet18", "layer2", 128, (8, 12), "layer2"),
        ("convnext_atto", None, 320, (2, 3), "stages.3"),
        ("mobilenetv3_small_050", None, 288, (2, 3), "blocks.4"),
        ("efficientnet_b0", None, 1280, (2, 3), "blocks.6"),
        ("vit_tiny_patch16_224", None, 192, (4, 6), "blocks.10"),
        ("vit_tiny_patch16_224", "blocks.5", 192, (4, 6), "blocks.3"),
        ("swin_tiny_patch4_window7_224", None, 768, (2, 3), "layers.3"),
        ("deit_tiny_distilled_patch16_224", None, 192, (4, 6), "blocks.11"),
    ],
)
def test_a_network_of_timm_keeps_the_contract(
    timm: ModuleType, name: str, layer: str | None, feature_dim: int, grid: tuple[int, int], start: str
):
    encoder = _build(f"timm/{name}", 64, 96, layer=layer)
    assert (encoder.feature_dim, encoder.grid) == (feature_dim, grid)
    images = _images(64, 96)
    features_BLD = encoder(images)
    assert features_BLD.shape == (2, grid[0] * grid[1], feature_dim)
    assert torch.equal(encoder.train()(images), features_BLD)
    encoder.set_trainable(start)
    order = [own for own, _ in encoder.network.named_parameters()]
    first = next(position for position, own in enumerate(order) if own.startswith(f"{start}."))
    encoder(images).sum().backward()
    got = {own for own, parameter in encoder.network.named_parameters() if parameter.grad is not None}
    after_pooling = ("head.", "conv_head.") if name.startswith("mobilenetv3") else ("head.",)
    assert got == {own for own in order[first:] if not own.startswith(after_pooling)}
    pooled = _build(f"timm/{name}", 64, 96, layer=layer, pooled=True)
    assert (pooled.feature_dim, pooled.grid, pooled(images).shape) == (
        feature_dim,
        (1, 1),
        (2, 1, feature_dim),
    )


def test_features_of_timm_are_those_of_its_network_on_its_normalisation(timm: ModuleType):
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", num_classes=5).eval()
    encoder = _build("timm/vit_tiny_patch16_224", 224, state=network.state_dict())
    with torch.inference_mode():
        expected = network.forward_features((_images(224).float() / 255 - 0.5) / 0.5)[:, 1:]
        torch.testing.assert_close(encoder(_images(224)), expected, atol=1e-4, rtol=1e-4)


def test_positions_of_timm_are_interpolated_and_load_again(timm: ModuleType):
    state = timm.create_model("vit_tiny_patch16_224").state_dict()
    encoder = _build("timm/vit_tiny_patch16_224", 64, state=state)
    assert encoder.network.state_dict()["pos_embed"].shape == (1, 1 + 16, 192)
    other = _build("timm/vit_tiny_patch16_224", 64)
    other.load_state_dict(encoder.state_dict())
    assert torch.equal(other(_images(64)), encoder(_images(64)))


@pytest.mark.parametrize(
    ("name", "layer", "message"),
    [
        ("resnt18", None, r"timm .* has no network 'resnt18'; most like it: .*timm/resnet18"),
        ("resnet18", "layer9", "timm lists no layer 'layer9' of 'resnet18'; there are act1, layer1, layer2"),
        ("volo_d1_224", None, r"not take images of 64 x 64 pixels \(its own size is 224 x 224\)"),
        ("crossvit_tiny_240", None, r"not take images of 64 x 64|ends in more than one grid; name a layer"),
    ],
)
def test_what_timm_does_not_have_is_refused(timm: ModuleType, name: str, layer: str | None, message: str):
    with pytest.raises(ValueError, match=message):
        _build(f"timm/{name}", 64, layer=layer)


def test_a_network_for_which_timm_has_no_weights_is_refused_with_those_that_have_some(
    timm: ModuleType, tmp_path: Path
):
    assert not timm.is_model_pretrained("convnext_large_mlp.none")
    settings = encoders.Settings.model_construct(
        name="timm/resnet18.none", weights="imagenet", layer=None, pooled=False
    )
    with pytest.raises(
        ValueError, match=r"timm has no weights for 'resnet18.none', but for .*resnet18.a1_in1k"
    ):
        encoders.read_weights(settings, tmp_path)
