"""Image bytes, from a file or an archive -> 3-channel uint8 pixels the right way up; the one transform that
training and serving share."""

import io
import warnings
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from captioning.params import Settings

MAX_PIXELS = 100_000_000
"""Larger pictures are refused before they are decoded (decompression bombs)."""


class BadImage(ValueError):
    """A picture that cannot be used; the message says why, in words fit for a table of reasons."""


class ImageFolder:
    """Read image bytes out of the archives and files of one folder.

    Open handles do not survive a fork or a pickle: they are opened lazily and dropped when pickled.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._archives: dict[str, zipfile.ZipFile] = {}

    def __getstate__(self) -> dict[str, object]:
        return {"_folder": self._folder, "_archives": {}}

    def read(self, archive: str, member: str) -> bytes:
        """Return the bytes of `member` of the zip file `archive`, or of the file `member` where `archive` is empty.

        Raises:
            OSError, KeyError, zipfile.BadZipFile: the file or the member is missing or damaged.
        """
        if not archive:
            return (self._folder / member).read_bytes()
        if archive not in self._archives:
            self._archives[archive] = zipfile.ZipFile(self._folder / archive)
        return self._archives[archive].read(member)


def decode(encoded: bytes) -> Image.Image:
    """Decode any picture to RGB, upright.

    EXIF orientation is applied; transparency is laid on white; 16-bit values are scaled to 8; of an animation
    the first frame is taken.

    Raises:
        BadImage: the bytes are empty, no picture, cut short, or more than `MAX_PIXELS`.
    """
    if not encoded:
        raise BadImage("the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged EXIF data beside a sound picture
            image = _open_upright(encoded)
    except BadImage:
        raise
    except UnidentifiedImageError:  # its own message holds a memory address
        raise BadImage(f"not a picture: it begins with {encoded[:16]!r}") from None
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error and more for damaged files
        raise BadImage(f"not a readable picture: {error}".replace("\n", " ")) from None
    return _to_rgb(image)


def _open_upright(encoded: bytes) -> Image.Image:
    image: Image.Image = Image.open(io.BytesIO(encoded))
    if image.width * image.height > MAX_PIXELS:
        raise BadImage(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS:,}")
    image.load()
    return ImageOps.exif_transpose(image)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit gray: Pillow's own conversion would clip at 255
        values = np.asarray(image, dtype=np.float64)
        scale = 65535.0 if values.max(initial=0) > 255 else 255.0
        image = Image.fromarray(np.uint8(np.round(np.clip(values / scale, 0, 1) * 255)))
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(background, image)
    return image.convert("RGB")


class PixelTransform(Settings):
    """How an upright RGB picture becomes the pixels that a model sees. It travels with the examples and the model."""

    height: int
    """Pixels."""
    width: int
    """Pixels."""

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Return uint8, 3 x height x width: the whole picture, resized with antialiased bilinear filtering."""
        resized = image.resize((self.width, self.height), Image.Resampling.BILINEAR)
        return np.ascontiguousarray(np.asarray(resized, dtype=np.uint8).transpose(2, 0, 1))
