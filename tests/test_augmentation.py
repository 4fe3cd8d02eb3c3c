"""Changed images keep their size and stay true to their captions."""

from typing import Any

import pytest
import torch

from captioning.batches import Batch
from captioning.training.augmentation import Augmentation, AugmentationSettings, mirror
from captioning.vocabulary import MARKERS, Vocabulary

NOTHING: dict[str, Any] = {
    "min_crop_share": 1.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "saturation": 0.0,
    "hue": 0.0,
    "flip": False,
    "views": None,
}


def _images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (6, 3, 20, 30), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(
    "change",
    [{"min_crop_share": 0.5}, {"brightness": 0.5}, {"contrast": 0.5}, {"saturation": 0.5}, {"hue": 0.3}],
    ids=lambda change: next(iter(change)),
)
def test_each_change_keeps_the_size_and_differs_from_image_to_image(change: dict[str, float]):
    torch.manual_seed(0)
    images = _images()[:1].expand(6, -1, -1, -1)
    changed = Augmentation(AugmentationSettings(**(NOTHING | change)), 20, 30)(images)
    assert changed.shape == images.shape
    assert changed.dtype == torch.uint8
    assert not torch.equal(changed[0], images[0])
    assert not torch.equal(changed[0], changed[1])


def test_without_any_change_images_stay_as_they_are():
    assert torch.equal(Augmentation(AugmentationSettings(**NOTHING), 20, 30)(_images()), _images())


def test_a_mirrored_image_has_left_and_right_exchanged_in_its_captions():
    vocabulary = Vocabulary([*MARKERS, "dog", "left", "right"])
    tokens_NT = torch.tensor([[1, 4, 5], [1, 6, 0]] * 6)
    batch = Batch(
        inputs=_images(),
        tokens_NT=tokens_NT,
        targets_NT=tokens_NT,
        lengths_N=torch.tensor([3, 2] * 6),
        image_ids=tuple("abcdef"),
    )
    torch.manual_seed(1)
    changed = mirror(batch, vocabulary)
    is_mirrored = [
        torch.equal(own, image.flip(2)) for own, image in zip(changed.inputs, _images(), strict=True)
    ]
    assert 0 < sum(is_mirrored) < 6
    for image, mirrored in enumerate(is_mirrored):
        expected = [[1, 4, 6], [1, 5, 0]] if mirrored else [[1, 4, 5], [1, 6, 0]]
        assert changed.tokens_NT[2 * image : 2 * image + 2].tolist() == expected
        assert mirrored or torch.equal(changed.inputs[image], batch.inputs[image])
    assert torch.equal(changed.tokens_NT, changed.targets_NT)
