"""JPEG files to 256 x 256 pixels in memory, one thread: the libraries side by side, in rate and in quality."""

import functools
import io
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from bench.photographs import SIDE_PIXELS, photographs
from captioning.images import PixelTransform, decode

MOST_DIFFERENCE = 2.0
"""Mean absolute difference to Pillow's antialiased resize, of 255: more is not the same picture."""
SIZE = (SIDE_PIXELS, SIDE_PIXELS)

Resize = Callable[[bytes], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What one way reaches."""

    name: str
    images_per_second: float
    difference: float
    measure: Callable[[], float]


def _pillow(encoded: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image.convert("RGB").resize(SIZE, Image.Resampling.BILINEAR))


def _ours(encoded: bytes) -> np.ndarray:
    return PixelTransform(height=SIDE_PIXELS, width=SIDE_PIXELS)(decode(encoded)).transpose(1, 2, 0)


def _torchvision(encoded: bytes) -> np.ndarray:
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    pixels = decode_jpeg(torch.frombuffer(bytearray(encoded), dtype=torch.uint8), mode=ImageReadMode.RGB)
    resized = torch.nn.functional.interpolate(pixels[None], SIZE, mode="bilinear", antialias=True)
    values: np.ndarray = resized[0].permute(1, 2, 0).numpy()
    return values


def _opencv(encoded: bytes) -> np.ndarray:
    import cv2

    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
    return np.asarray(cv2.resize(pixels, SIZE, interpolation=cv2.INTER_AREA))


def _simplejpeg(encoded: bytes, smallest: int = 0) -> np.ndarray:
    import cv2
    import simplejpeg

    pixels = simplejpeg.decode_jpeg(encoded, min_height=smallest, min_width=smallest)
    return np.asarray(cv2.resize(pixels, SIZE, interpolation=cv2.INTER_AREA))


def _libvips(encoded: bytes) -> np.ndarray:
    import pyvips

    image = pyvips.Image.thumbnail_buffer(encoded, SIZE[0], height=SIZE[1], size="force")
    return np.asarray(image.colourspace("srgb").numpy()[..., :3])


def _decoding_alone(encoded: bytes) -> np.ndarray:
    return decode(encoded)


WAYS: dict[str, Resize] = {
    "captioning.images": _ours,
    "Pillow": _pillow,
    "torchvision": _torchvision,
    "OpenCV, area": _opencv,
    "simplejpeg + OpenCV area": _simplejpeg,
    "simplejpeg at half size + OpenCV area": functools.partial(_simplejpeg, smallest=SIDE_PIXELS),
    "libvips thumbnail": _libvips,
    "decoding alone": _decoding_alone,
}


def rates() -> Rate:
    """Print the table of all ways that are installed; return the fastest of good quality, ours left out."""
    encoded = [photo.read_bytes() for photo in photographs()]
    expected = [_pillow(each).astype(int) for each in encoded]
    print(
        "| JPEG to 256 x 256 in memory, one thread | images/s | mean difference to Pillow, of 255 |\n|---|---|---|"
    )
    found = []
    for name, way in WAYS.items():
        try:
            way(encoded[0])
        except ImportError as error:
            print(f"| {name} | not installed: {error.name} | |")
            continue
        rate = _rate(name, way, encoded, expected)
        shown = f"{rate.difference:.2f}" if rate.difference >= 0 else ""
        print(f"| {name} | {rate.images_per_second:,.0f} | {shown} |", flush=True)
        if name not in {"captioning.images", "decoding alone"} and rate.difference <= MOST_DIFFERENCE:
            found.append(rate)
    return max(found, key=lambda rate: rate.images_per_second)


def _rate(name: str, way: Resize, encoded: list[bytes], expected: list[np.ndarray]) -> Rate:
    def measure() -> float:
        began = time.perf_counter()
        for each in encoded:
            way(each)
        return len(encoded) / (time.perf_counter() - began)

    made = [way(each) for each in encoded[: len(expected)]]
    is_resized = all(own.shape == theirs.shape for own, theirs in zip(made, expected, strict=True))
    difference = (
        float(np.mean([np.abs(a - b).mean() for a, b in zip(made, expected, strict=True)]))
        if is_resized
        else -1.0
    )
    return Rate(
        name=name,
        images_per_second=sorted(measure() for _ in range(5))[2],
        difference=difference,
        measure=measure,
    )
