"""What printing, copying and scanning do to a drawing, as the competition's pictures and old patents show it."""

from random import Random

import numpy as np
from PIL import Image
from pydantic import Field

from captioning.drawings.styles import Range, Share
from captioning.params import Settings

INK = 128
"""Darker pixels are ink where a smooth drawing is damaged."""


class Defect(Settings):
    """Something that happens to some drawings, to each by another amount."""

    share: Share
    """Of the drawings."""
    most: float = Field(ge=0)
    """The amount is drawn between 0 and this."""

    def draw(self, random: Random) -> float:
        """Return the amount for one drawing, often 0."""
        happens, amount = random.random() < self.share, random.random()
        return amount * self.most if happens else 0.0


class ScanSettings(Settings):
    """How drawings are damaged; all shares 0 leave them smooth and clean but for what `smooth_share` says."""

    smooth_share: Share
    """Drawings with gray edges; the others are black and white, one bit a pixel."""
    threshold: Range
    """0..255: what is darker becomes black, where a drawing is made black and white. High ones make lines thick."""
    coarse: Defect
    """Low resolution: by this share the sides are shrunk."""
    tilt: Defect
    """Degrees by which the paper lay askew, to either side."""
    quarter_turn_share: Share
    """Wide drawings turned by a quarter to the right, as some of the competition's are; `turn: landscape` of
    `preprocess.image` turns them back."""
    salt: Defect
    """Share of the ink that is missing, pixel by pixel."""
    pepper: Defect
    """Share of the paper's pixels that are black."""
    breaks: Defect
    """Holes in lines, per bond, each as wide as a line and up to a fifth of a bond long."""


def scan(
    gray: np.ndarray, settings: ScanSettings, random: Random, *, num_bonds: int, bond_pixels: float
) -> Image.Image:
    """Return a drawing (uint8 H x W, black on white) as a scanner gives it, of mode 1 or L."""
    is_smooth = random.random() < settings.smooth_share
    page = _askew(_coarser(Image.fromarray(gray), settings.coarse.draw(random)), settings.tilt, random)
    is_turned = random.random() < settings.quarter_turn_share
    if is_turned and page.width > page.height:
        page = page.transpose(Image.Transpose.ROTATE_270)
    pixels = np.array(page)
    if not is_smooth:
        pixels = np.where(pixels < settings.threshold.draw(random), 0, 255).astype(np.uint8)
    generator = np.random.default_rng(random.getrandbits(64))
    num_breaks = settings.breaks.draw(random) * num_bonds
    _break(pixels, round(num_breaks), bond_pixels * page.width / gray.shape[1], generator)
    _sprinkle(pixels, settings.salt.draw(random), settings.pepper.draw(random), generator)
    return Image.fromarray(pixels) if is_smooth else Image.fromarray(pixels >= INK)


def _coarser(page: Image.Image, amount: float) -> Image.Image:
    if not amount:
        return page
    width, height = (max(round(side * (1 - amount)), 1) for side in page.size)
    return page.resize((width, height), Image.Resampling.BOX)


def _askew(page: Image.Image, tilt: Defect, random: Random) -> Image.Image:
    degrees = tilt.draw(random) * random.choice((-1, 1))
    if not degrees:
        return page
    return page.rotate(degrees, Image.Resampling.BILINEAR, expand=True, fillcolor=255)


def _break(pixels: np.ndarray, num_breaks: int, bond_pixels: float, generator: np.random.Generator) -> None:
    """Make holes around pixels of the ink."""
    rows, columns = np.nonzero(pixels < INK)
    if not num_breaks or not len(rows):
        return
    sides = generator.integers(1, max(round(bond_pixels / 5), 1), endpoint=True, size=num_breaks)
    for place, side in zip(generator.integers(len(rows), size=num_breaks), sides, strict=True):
        top, left = max(rows[place] - side // 2, 0), max(columns[place] - side // 2, 0)
        pixels[top : top + side, left : left + side] = 255


def _sprinkle(pixels: np.ndarray, salt: float, pepper: float, generator: np.random.Generator) -> None:
    is_ink = pixels < INK
    for share, where, value in ((salt, is_ink, 255), (pepper, ~is_ink, 0)):
        if share:
            places = np.flatnonzero(where)
            hit = generator.random(len(places), dtype=np.float32) < share
            pixels.reshape(-1)[places[hit]] = value
