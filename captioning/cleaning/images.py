"""An encoded image -> its size, brightness and digests, and the verdict: kept, or quarantined, and why."""

import contextlib
import hashlib
import io
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image
from pydantic import Field

from captioning.cleaning.near_duplicates import perceptual_hash
from captioning.images import MAX_PIXELS, BadImage, decode
from captioning.params import Settings

ANIMATED_FORMATS = {"GIF", "PNG", "WEBP", "AVIF"}
"""Where further frames are an animation; in MPO they are previews, in TIFF pages."""
BLOCK_PIXELS = 1 << 22
"""Counted at a time, which bounds the memory for large pictures."""


class ImageLimits(Settings):
    """What an image must be."""

    min_side_pixels: int = Field(ge=1)
    """Of the shorter side."""
    max_side_pixels: int = Field(ge=1)
    """Of the longer side; larger pictures are not decoded."""
    max_aspect_ratio: float = Field(ge=1)
    """Longer side / shorter side."""
    min_pixel_deviation: float = Field(ge=0)
    """0..255; flatter pictures show nothing. 0 keeps all, for drawings are mostly of one colour."""
    keep_animated: bool
    """Whether the first frame of an animation stands for it, or it is quarantined."""


class Measurement(NamedTuple):
    """What one look at an image found; `reason` is empty where it can be kept."""

    width: int = 0
    """Pixels, upright."""
    height: int = 0
    mode: str = ""
    """Pillow's name for the pixels as encoded: RGB, L, CMYK, P, ..."""
    num_bytes: int = 0
    sha256: str = ""
    """Of the encoded bytes."""
    pixel_mean: float = 0.0
    """Over rows, columns and channels of the decoded picture, 0..255."""
    pixel_deviation: float = 0.0
    """Over rows and columns, 0..255; the root mean square of the three channels'."""
    phash: str = ""
    """Perceptual hash, 16 hexadecimal digits; empty where none was asked for."""
    reason: str = ""
    detail: str = ""


def measure_image(encoded: bytes, limits: ImageLimits, *, with_phash: bool = False) -> Measurement:
    """Decode an image, say its size, brightness and digests, and whether it can be kept.

    What its header says to be too large or animated is not decoded.
    """
    header = _read_header(encoded)
    known = header._replace(num_bytes=len(encoded), sha256=hashlib.sha256(encoded).hexdigest())
    known = _judge_header(known, limits)
    if known.reason:
        return known
    try:
        pixels = decode(encoded)
    except BadImage as error:
        return known._replace(reason="undecodable", detail=str(error))
    pixel_mean, pixel_deviation = _brightness(pixels)
    return _judge_pixels(
        known._replace(
            height=pixels.shape[0],
            width=pixels.shape[1],
            pixel_mean=pixel_mean,
            pixel_deviation=pixel_deviation,
            phash=perceptual_hash(pixels) if with_phash else "",
        ),
        limits,
    )


def _read_header(encoded: bytes) -> Measurement:
    """Return size and mode as encoded; empty where that is no picture, of which `decode` says what is wrong with it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(encoded))
    except Image.DecompressionBombError:
        return Measurement(reason="too-large", detail=f"more than {MAX_PIXELS:,} pixels")
    except Exception:
        return Measurement()
    header = Measurement(width=image.width, height=image.height, mode=image.mode)
    with contextlib.suppress(Exception):  # of a damaged second frame
        if image.format in ANIMATED_FORMATS and getattr(image, "is_animated", False):
            return header._replace(reason="animated", detail=f"an animation in {image.format}")
    return header


def _judge_header(known: Measurement, limits: ImageLimits) -> Measurement:
    if known.width * known.height > MAX_PIXELS:
        return known._replace(
            reason="too-large", detail=f"{known.width} x {known.height} pixels are more than {MAX_PIXELS:,}"
        )
    if max(known.width, known.height) > limits.max_side_pixels:
        return known._replace(
            reason="too-large",
            detail=f"{known.width} x {known.height} pixels; the longer side may have {limits.max_side_pixels}",
        )
    if known.reason == "animated" and limits.keep_animated:
        return known._replace(reason="", detail="")
    return known


def _judge_pixels(known: Measurement, limits: ImageLimits) -> Measurement:
    shorter, longer = sorted((known.width, known.height))
    size = f"{known.width} x {known.height} pixels"
    if shorter < limits.min_side_pixels:
        return known._replace(
            reason="too-small", detail=f"{size}; the shorter side needs {limits.min_side_pixels}"
        )
    if longer > limits.max_aspect_ratio * shorter:
        return known._replace(
            reason="too-elongated", detail=f"{size} are more than {limits.max_aspect_ratio:g} to 1"
        )
    if known.pixel_deviation < limits.min_pixel_deviation:
        return known._replace(
            reason="near-blank",
            detail=f"pixels deviate by {known.pixel_deviation:.3f} of 255; at least "
            f"{limits.min_pixel_deviation:g} is asked for",
        )
    return known


def _brightness(pixels: np.ndarray) -> tuple[float, float]:
    """Return mean and deviation of uint8 H x W x 3 from exact counts, without floats of the picture's size."""
    counts = np.zeros((3, 256), dtype=np.int64)
    num_rows = max(BLOCK_PIXELS // pixels.shape[1], 1)
    for start in range(0, len(pixels), num_rows):
        counts += np.reshape(Image.fromarray(pixels[start : start + num_rows]).histogram(), (3, 256))
    values, num_pixels = np.arange(256), pixels.shape[0] * pixels.shape[1]
    means_C = counts @ values / num_pixels
    variances_C = counts @ values**2 / num_pixels - means_C**2
    return float(means_C.mean()), float(max(variances_C.mean(), 0.0) ** 0.5)
