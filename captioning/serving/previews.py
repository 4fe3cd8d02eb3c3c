"""A small copy of a picture that came by an address: the page may load nothing from elsewhere, and shows this."""

import base64
from io import BytesIO

import numpy as np
from PIL import Image

MAX_SIDE_PIXELS = 640
JPEG_QUALITY = 85


def preview(pixels: np.ndarray) -> str:
    """Return a JPEG of a picture (uint8, H x W x 3) as a data: address."""
    image = Image.fromarray(pixels)
    image.thumbnail((MAX_SIDE_PIXELS, MAX_SIDE_PIXELS))
    encoded = BytesIO()
    image.save(encoded, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode()
