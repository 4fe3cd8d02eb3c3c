"""The section `preprocess` of params.yaml."""

from typing import Literal

from pydantic import Field

from captioning.images import PixelTransform
from captioning.params import Settings
from captioning.tokens import TokensName


class PreprocessSettings(Settings):
    """The `preprocess` section."""

    image: PixelTransform
    """Size of the stored pixels."""
    storage: Literal["pixels", "jpeg"]
    """`pixels`: as training reads them; `jpeg`: a sixth of the disk, decoded each time they are read."""
    jpeg_quality: int = Field(ge=1, le=100)
    """Of the files stored by `storage: jpeg`."""
    tokens: TokensName
    """A module of captioning/tokens: how captions are cut into words."""
    min_word_count: int = Field(ge=1)
    """Rarer words of the train captions become `<unk>`."""
    max_words: int = Field(ge=1)
    """Longer captions are cut for training. References never are."""
    images_per_shard: int = Field(ge=1)
    """A shard is 1 to 4 GB at best: 8,192 images of 256 x 256 pixels are 1.6 GB."""
