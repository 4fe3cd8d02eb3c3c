"""Image bytes, from a file or an archive -> uint8 pixels the right way up; the one transform that training and serving
share."""

import contextlib
import functools
import io
import warnings
import zipfile
from pathlib import Path
from typing import Literal

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import Field

from captioning.params import Settings

MAX_PIXELS = 100_000_000
"""Larger pictures are refused before they are decoded (decompression bombs)."""
MAX_BYTES = 100_000_000
"""Larger members of an archive are not unpacked."""
MAX_EXPANSION = 200
"""Nor are those of more than a megabyte that unpack to so many times their size."""
COMMON_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF")
"""Pillow's names of what people have pictures in. Others of its formats start programs (EPS) or are obscure: whoever
reads files of strangers names these to `decode`."""
JPEG_BEGINS = b"\xff\xd8\xff"
PLAIN_COLOURS = {"Gray", "YCbCr", "RGB"}
"""Of JPEG files that simplejpeg decodes as Pillow does, pixel for pixel; not so CMYK."""
APPLICATION_MARKERS = range(0xE0, 0xF0)
"""Second bytes of the JPEG segments that may hold EXIF data; they come first in a file."""
ORIENTATION_TAG = 0x0112
WHITE = 255
DARK = 192
"""Of a drawing whatever is darker is ink, its gray edges, too."""
CONTENT_MARGIN = 0.02
"""White around the ink, in longer sides of what it covers."""
QUARTER_TURNS: dict[object, tuple[int, bool]] = {
    2: (0, True),
    3: (2, False),
    4: (2, True),
    5: (3, True),
    6: (3, False),
    7: (1, True),
    8: (1, False),
}
"""EXIF orientation -> quarter turns to the left, and whether left and right are then swapped, to be upright."""


class BadImage(ValueError):
    """A picture that cannot be used; the message says why, in words fit for a table of reasons."""


class TooManyPixels(BadImage):
    """A picture that is larger than it may be, seen from its header."""


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
            BadImage: the member is larger than a picture should be, or expands like a decompression bomb.
        """
        if not archive:
            return (self._folder / member).read_bytes()
        if archive not in self._archives:
            self._archives[archive] = zipfile.ZipFile(self._folder / archive)
        found = self._archives[archive].getinfo(member)
        expansion = found.file_size / max(found.compress_size, 1)
        if found.file_size > MAX_BYTES or (found.file_size > 1_000_000 and expansion > MAX_EXPANSION):
            raise BadImage(
                f"{member} of {archive} unpacks from {found.compress_size:,} to {found.file_size:,} bytes"
            )
        with self._archives[archive].open(found) as file:
            return file.read(found.file_size + 1)  # no more than it states; zipfile checks the rest


@functools.lru_cache(maxsize=1)
def open_folder(folder: Path) -> ImageFolder:
    """Return the one reader of this process: a large archive's directory is not read again for each piece of work."""
    return ImageFolder(folder)


def decode(
    encoded: bytes, *, max_pixels: int | None = None, formats: tuple[str, ...] | None = None
) -> np.ndarray:
    """Decode any picture to uint8, H x W x 3, upright.

    EXIF orientation is applied; transparency is laid on white; 16-bit values are scaled to 8; of an animation
    the first frame is taken.

    Args:
        encoded: a file.
        max_pixels: larger pictures are refused before they are decoded; `MAX_PIXELS` by default.
        formats: Pillow's names of those that are read, such as PNG; by default every one that it knows.

    Raises:
        TooManyPixels: width x height is more than `max_pixels`.
        BadImage: the bytes are empty, no picture, or cut short.
    """
    if not encoded:
        raise BadImage("the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged EXIF data beside a sound picture
            return _decode(encoded, max_pixels or MAX_PIXELS, formats)
    except (BadImage, MemoryError):  # a machine short of memory says nothing about the picture
        raise
    except Image.DecompressionBombError as error:
        raise TooManyPixels(f"the picture is too large: {error}") from None
    except UnidentifiedImageError:  # its own message holds a memory address
        raise BadImage(f"not a picture: it begins with {encoded[:16]!r}") from None
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error and more for damaged files
        raise BadImage(f"not a readable picture: {error}".replace("\n", " ")) from None


def _decode(encoded: bytes, max_pixels: int, formats: tuple[str, ...] | None) -> np.ndarray:
    if encoded.startswith(JPEG_BEGINS):
        with contextlib.suppress(ValueError):  # damaged: Pillow says how, or knows what to do
            height, width, colours, _ = simplejpeg.decode_jpeg_header(encoded)
            _refuse_too_large(width, height, max_pixels)
            if colours in PLAIN_COLOURS:
                return _turned(simplejpeg.decode_jpeg(encoded), _orientation(encoded))
    image: Image.Image = Image.open(io.BytesIO(encoded), formats=formats)  # reads the header only
    _refuse_too_large(image.width, image.height, max_pixels)
    image.load()
    return np.array(_to_rgb(ImageOps.exif_transpose(image)))


def _refuse_too_large(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise TooManyPixels(f"{width} x {height} pixels are more than {max_pixels:,}")


def _orientation(encoded: bytes) -> object:
    """Return the EXIF orientation of a JPEG file, which Pillow reads where the file has any EXIF data."""
    start = len(JPEG_BEGINS) - 1
    while encoded[start] == 0xFF and encoded[start + 1] in APPLICATION_MARKERS:
        if encoded[start + 4 : start + 8] == b"Exif":
            return Image.open(io.BytesIO(encoded)).getexif().get(ORIENTATION_TAG)
        start += 2 + int.from_bytes(encoded[start + 2 : start + 4])
    return None


def _turned(pixels: np.ndarray, orientation: object) -> np.ndarray:
    """Return the pixels of a camera held in the way that EXIF calls `orientation`, upright."""
    turns, is_mirrored = QUARTER_TURNS.get(orientation, (0, False))
    upright = np.rot90(pixels, turns)
    return np.ascontiguousarray(upright[:, ::-1] if is_mirrored else upright)


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


def encode_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Return the JPEG file, uint8 bytes, of pixels C x H x W; colours at half the resolution, as cameras store them."""
    upright = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    is_gray = upright.shape[2] == 1
    encoded = simplejpeg.encode_jpeg(
        upright, quality, "GRAY" if is_gray else "RGB", colorsubsampling="Gray" if is_gray else "420"
    )
    return np.frombuffer(encoded, np.uint8)


class PixelTransform(Settings):
    """How an upright RGB picture becomes the pixels that a model sees. It travels with the examples and the model.

    The steps come in the order of the keys below. Those that are not stated do nothing: they are for drawings, dark on
    white.
    """

    height: int
    """Pixels."""
    width: int
    """Pixels."""
    channels: Literal[1, 3] = 3
    """1: gray, stored once; every encoder takes it for red, green and blue alike."""
    max_speck_pixels: int = Field(default=0, ge=0)
    """Dark specks of at most so many pixels, which touch nothing, become white; 0 keeps all."""
    crop: Literal["none", "content"] = "none"
    """`content`: white borders are cut off, but for a little margin."""
    turn: Literal["none", "landscape"] = "none"
    """`landscape`: pictures higher than wide are turned by a quarter to the left."""
    fit: Literal["stretch", "pad"] = "stretch"
    """`stretch`: the whole picture in other proportions; `pad`: in its own, in the middle of white."""

    @property
    def keeps_proportions(self) -> bool:
        """Return whether what is shown is as it was drawn; then the original's proportions are of no use."""
        return self.fit == "pad" or self.crop != "none" or self.turn != "none"

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Return uint8, channels x height x width, of uint8 H x W x 3; resized bilinearly with antialiasing."""
        if self.channels == 1:
            pixels = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
        if self.max_speck_pixels:
            pixels = _without_specks(pixels, self.max_speck_pixels)
        if self.crop == "content":
            pixels = _content(pixels)
        if self.turn == "landscape" and pixels.shape[0] > pixels.shape[1]:
            pixels = np.rot90(pixels)
        if self.fit == "stretch":
            return _resized(pixels, self.height, self.width)
        return self._padded(pixels)

    def _padded(self, pixels: np.ndarray) -> np.ndarray:
        scale = min(self.height / pixels.shape[0], self.width / pixels.shape[1])
        height, width = (max(round(side * scale), 1) for side in pixels.shape[:2])
        top, left = (self.height - height) // 2, (self.width - width) // 2
        padded = np.full((self.channels, self.height, self.width), WHITE, np.uint8)
        padded[:, top : top + height, left : left + width] = _resized(pixels, height, width)
        return padded


def _resized(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return C x `height` x `width` of H x W x C."""
    if pixels.shape[:2] == (height, width):
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))
    import torch

    pixels_1CHW = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(pixels_1CHW, (height, width), mode="bilinear", antialias=True)
    values: np.ndarray = resized[0].contiguous().numpy()
    return values


def _is_dark(pixels: np.ndarray) -> np.ndarray:
    return pixels.min(axis=2) < DARK


def _without_specks(pixels: np.ndarray, most: int) -> np.ndarray:
    """Return the pixels with dark spots of at most so many pixels painted white; pixels that touch belong together."""
    from scipy import ndimage  # type: ignore[import-untyped]

    spots, _ = ndimage.label(_is_dark(pixels), structure=np.ones((3, 3)))
    is_speck = np.bincount(spots.ravel()) <= most
    is_speck[0] = False  # the paper
    cleaned = pixels.copy()
    cleaned[is_speck[spots]] = WHITE
    return cleaned


def _content(pixels: np.ndarray) -> np.ndarray:
    """Return the rectangle of all that is dark, with a margin; the whole picture where nothing is."""
    is_dark = _is_dark(pixels)
    rows, columns = np.flatnonzero(is_dark.any(axis=1)), np.flatnonzero(is_dark.any(axis=0))
    if not len(rows):
        return pixels
    height, width = rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0]
    margin = max(round(CONTENT_MARGIN * max(height, width)), 1)
    content = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.pad(content, ((margin, margin), (margin, margin), (0, 0)), constant_values=WHITE)
