from pathlib import Path

import pytest
import torch
import torchvision

from captioning.encoders.torchvision_network import Encoder, Settings, read_weights

IMAGES = torch.randint(
    0, 256, (2, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


@pytest.mark.parametrize(
    ("name", "feature_dim", "grid"),
    [
        ("alexnet", 256, (6, 6)),
        ("vgg11", 512, (7, 7)),
        ("resnet18", 512, (7, 7)),
        ("densenet121", 1024, (7, 7)),
        ("squeezenet1_1", 512, (13, 13)),
        ("mobilenet_v2", 1280, (7, 7)),
        ("efficientnet_b0", 1280, (7, 7)),
        ("inception_v3", 2048, (5, 5)),
        ("convnext_tiny", 768, (7, 7)),
        ("swin_t", 768, (7, 7)),
        ("vit_b_32", 768, (7, 7)),
        ("regnet_y_400mf", 440, (7, 7)),
    ],
)
def test_any_torchvision_network_gives_its_native_grid(name: str, feature_dim: int, grid: tuple[int, int]):
    encoder = Encoder(name=name, layer=None, height=224, width=224).eval()
    assert (encoder.feature_dim, encoder.grid) == (feature_dim, grid)
    with torch.inference_mode():
        features_BLD = encoder(IMAGES)
    assert features_BLD.shape == (2, grid[0] * grid[1], feature_dim)
    assert features_BLD.dtype == torch.float32
    assert not torch.equal(features_BLD[0], features_BLD[1])


def test_cells_are_in_reading_order():
    encoder = Encoder(name="resnet18", layer="layer1", height=64, width=96).eval()
    assert encoder.grid == (16, 24)
    images = torch.zeros(2, 3, 64, 96, dtype=torch.uint8)
    images[1, :, :8, -8:] = 255  # the top right corner
    with torch.inference_mode():
        changed = (encoder(images)[1] - encoder(images)[0]).abs().sum(dim=1).view(16, 24)
    row, column = divmod(int(changed.argmax()), 24)
    assert row <= 2
    assert column >= 21


def test_features_are_those_of_the_torchvision_network_on_normalised_pixels():
    torch.manual_seed(0)
    state = torchvision.models.resnet18(weights=None).state_dict()
    network = torchvision.models.resnet18(weights=None)
    network.load_state_dict(state)
    network.fc, network.avgpool = torch.nn.Identity(), torch.nn.Identity()
    pixels = torchvision.transforms.functional.normalize(
        IMAGES.float() / 255, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]
    )
    encoder = Encoder(name="resnet18", layer=None, height=224, width=224, state=state).eval()
    with torch.inference_mode():
        expected = network.eval()(pixels).view(2, 512, 49).transpose(1, 2)
        torch.testing.assert_close(encoder(IMAGES), expected, atol=1e-4, rtol=1e-4)


def test_unknown_layer_is_refused_with_those_that_exist():
    with pytest.raises(
        ValueError, match=r"'resnet18' has no grid 'layer9' for images of 64 x 64.*layer1.*layer4"
    ):
        Encoder(name="resnet18", layer="layer9", height=64, width=64)


def test_unknown_network_is_refused_with_those_that_exist():
    with pytest.raises(ValueError, match=r"torchvision has no network 'resnt'; available: .*resnet101"):
        Settings(name="resnt", weights="none", layer=None, trainable=False)


def test_weights_of_another_network_are_refused():
    state = torchvision.models.squeezenet1_1(weights=None).state_dict()
    with pytest.raises(ValueError, match="the weights do not fit torchvision's 'resnet18'"):
        Encoder(name="resnet18", layer=None, height=64, width=64, state=state)


def test_a_missing_weights_file_is_refused_with_those_that_are_there(tmp_path: Path):
    (tmp_path / "none").touch()
    with pytest.raises(
        ValueError, match=r"'resnet.pth' is not in .*, which has none; put the file there or run"
    ):
        read_weights("resnet18", "resnet.pth", tmp_path)


def test_real_weights_are_read_from_a_file(shared: Path):
    state = read_weights("mobilenet_v2", "mobilenet_v2.pth", shared / "data" / "weights")
    encoder = Encoder(name="mobilenet_v2", layer=None, height=224, width=224, state=state).eval()
    with torch.inference_mode():
        features = encoder(IMAGES)
    assert (
        features == 0
    ).float().mean() > 0.3  # a trained ReLU6 network is sparse; a random one is not this much
    assert features.max() > 1
