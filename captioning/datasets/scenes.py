"""Drawn pictures of coloured shapes, captioned by rule: a data set that needs no download and no rights.

These are not photographs, and scores on them say only that the pipeline learns. Two or three shapes lie side
by side or one above the other on a patterned background. Each picture has five captions that differ in order,
detail and choice of words but are all true of it: the first is in one canonical form, later ones are freer and say
more.
Picture `i` depends on the seed and on `i` alone: it stays the same, in its split, when `num_images` grows.
"""

import io
import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageDraw
from pydantic import Field

from captioning.datasets import DatasetSettings, Fetch, Source
from captioning.records import Pair

LICENSE = "drawn by this program: public domain (CC0-1.0)"
CITATION = "captioning/datasets/scenes.py"

ARCHIVE = "scenes.zip"
OVERSAMPLING = 2
"""Pictures are drawn so many times larger and scaled down, which smooths the edges."""

# Meaning -> words for it; the first is the canonical one.
SIZES = {"big": ("big", "large"), "small": ("small", "little")}
RADII = {"big": 0.215, "small": 0.155}  # of the picture's side: 28 and 20 of 64 pixels across
COLOURS = {
    "red": (215, 30, 35),
    "green": (20, 140, 50),
    "blue": (25, 60, 215),
    "yellow": (250, 225, 30),
    "purple": (125, 25, 150),
    "orange": (250, 130, 10),
    "white": (252, 252, 252),
    "black": (12, 12, 12),
}
SHAPES = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "cross": ("cross", "plus"),
}
TONES = {
    "gray": (150, 150, 150),
    "pink": (225, 150, 180),
    "tan": (190, 160, 115),
    "turquoise": (110, 185, 185),
}
PATTERNS = {
    "plain": "without a pattern",
    "striped": "with stripes",
    "checkered": "with squares",
    "dotted": "with dots",
    "shaded": "that gets darker",
}
RELATIONS = {
    "left": ("left of", "to the left of", "on the left side of"),
    "right": ("right of", "to the right of", "on the right side of"),
    "above": ("above", "over", "higher than"),
    "below": ("below", "under", "beneath"),
}
OPPOSITES = {"left": "right", "right": "left", "above": "below", "below": "above"}
BEGINNINGS = ("there is", "a picture of", "the image shows", "we see", "here is")


class Settings(DatasetSettings):
    """How many pictures are drawn, how large, from which seed."""

    num_images: int = Field(ge=10)
    """Of ten pictures eight are for training, one for validation and one for testing."""
    image_side_pixels: int = Field(ge=32)
    seed: int = Field(ge=0)


@dataclass(frozen=True, kw_only=True)
class Thing:
    """A shape in a scene; lengths in units of the picture's side, x to the right and y downwards."""

    size: str
    colour: str
    shape: str
    x: float
    y: float
    degrees: float


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a picture shows: one thing `relation` another, and both `outer_relation` the third, if any."""

    things: tuple[Thing, ...]
    relation: str
    outer_relation: str
    pattern: str
    tone: str


def sources(settings: Settings) -> Iterator[Source]:
    """Yield nothing: every picture is drawn here."""
    yield from ()


def prepare(folder: Path, settings: Settings, fetch: Fetch) -> None:
    """Draw every picture into one zip file; nothing is fetched."""
    with zipfile.ZipFile(folder / ARCHIVE, "w", zipfile.ZIP_STORED) as archive:
        for index in range(settings.num_images):
            encoded = io.BytesIO()
            draw(_scene(settings.seed, index), settings, index).save(encoded, "PNG", compress_level=1)
            archive.writestr(zipfile.ZipInfo(_member(index)), encoded.getvalue())  # ZipInfo is dated 1980


def read_pairs(folder: Path, settings: Settings) -> Iterator[Pair]:
    """Yield the pictures in the order in which they were drawn."""
    for index in range(settings.num_images):
        yield Pair(
            image_id=f"scene-{index:06d}",
            archive=ARCHIVE,
            member=_member(index),
            captions=tuple(
                captions(_scene(settings.seed, index), Random(f"captions/{settings.seed}/{index}"))
            ),
            split={8: "val", 9: "test"}.get(index % 10, "train"),
            license="CC0-1.0",
        )


def _member(index: int) -> str:
    return f"{index:06d}.png"


def _scene(seed: int, index: int) -> Scene:
    """Choose what picture `index` shows: two things along one axis, in one of six a third beside them."""
    random = Random(f"scene/{seed}/{index}")
    is_row = random.random() < 0.5
    has_third = random.random() < 1 / 6
    is_third_last = random.random() < 0.5
    across = 0.5 if not has_third else (0.27 if is_third_last else 0.73)
    centres = [(0.25, across), (0.75, across)]  # along the axis of the pair, across it
    if has_third:
        centres.append((0.5, 1 - across))
    kinds = random.sample([(colour, shape) for colour in COLOURS for shape in SHAPES], len(centres))
    things = []
    for centre, (colour, shape) in zip(centres, kinds, strict=True):
        jittered = centre[0] + random.uniform(-0.02, 0.02), centre[1] + random.uniform(-0.03, 0.03)
        x, y = jittered if is_row else jittered[::-1]
        size, degrees = random.choice(list(SIZES)), random.uniform(-10, 10)
        things.append(Thing(size=size, colour=colour, shape=shape, x=x, y=y, degrees=degrees))
    before, beside = ("left", "above") if is_row else ("above", "left")
    return Scene(
        things=tuple(things),
        relation=before,
        outer_relation=beside if is_third_last else OPPOSITES[beside],
        pattern=random.choice(list(PATTERNS)),
        tone=random.choice(list(TONES)),
    )


def captions(scene: Scene, random: Random) -> list[str]:
    """Return five captions, the canonical one first, the freest last; half of them as full sentences."""
    canonical = f"{_arrangement(scene)} {_background(scene)}"
    wordings = [canonical]
    for freedom in (0.15, 0.3, 0.6, 0.9):
        words = canonical
        while words in wordings:
            words = _free_wording(scene, random, freedom)
        wordings.append(words)
    return [f"{words[0].upper()}{words[1:]}." if random.random() < 0.5 else words for words in wordings]


def _free_wording(scene: Scene, random: Random, freedom: float) -> str:
    """Word a scene; each choice departs from the canonical one with the probability `freedom`."""

    def departs() -> bool:
        return random.random() < freedom

    beginning = f"{random.choice(BEGINNINGS)} " if departs() else ""
    arrangement = _arrangement(
        scene,
        is_reversed=random.random() < 0.5 * freedom,
        says_sizes=departs(),
        words=[random.randrange(3) if departs() else 0 for _ in range(8)],
    )
    background = _background(scene, random.randrange(5) if departs() else 0)
    return f"{beginning}{arrangement} {background}".strip()


def _arrangement(
    scene: Scene, *, is_reversed: bool = False, says_sizes: bool = False, words: list[int] | None = None
) -> str:
    """Return "a red circle left of a blue square", and the third thing if there is one.

    `words` chooses among the words for each meaning, by default the canonical ones.
    """
    choices = iter(words or [0] * 8)

    def say(meanings: tuple[str, ...]) -> str:
        return meanings[next(choices) % len(meanings)]

    def name(thing: Thing) -> str:
        size = [say(SIZES[thing.size])] if says_sizes else []
        return _with_article(" ".join([*size, thing.colour, say(SHAPES[thing.shape])]))

    first, second = reversed(scene.things[:2]) if is_reversed else scene.things[:2]
    relation = OPPOSITES[scene.relation] if is_reversed else scene.relation
    phrase = f"{name(first)} {say(RELATIONS[relation])} {name(second)}"
    for third in scene.things[2:]:
        phrase += f" {say(RELATIONS[scene.outer_relation])} {name(third)}"
    return phrase


def _background(scene: Scene, wording: int = 0) -> str:
    """Return "on a striped background" or, by `wording`, another way to say it or more of it; the last is empty."""
    return (
        f"on a {scene.pattern} background",
        f"on a {scene.pattern} {scene.tone} background",
        f"on a {scene.tone} background {PATTERNS[scene.pattern]}",
        f"in front of a {scene.pattern} {scene.tone} backdrop",
        "",
    )[wording]


def _with_article(phrase: str) -> str:
    return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"


def draw(scene: Scene, settings: Settings, index: int) -> Image.Image:
    """Return the RGB picture of a scene; colours vary a little, and every value by up to 8 of 255."""
    random = Random(f"picture/{settings.seed}/{index}")
    side = settings.image_side_pixels * OVERSAMPLING
    picture = _draw_background(scene, side, random)
    for thing in scene.things:
        picture.paste(_vary(COLOURS[thing.colour], random, 12), mask=_outline(thing, side))
    picture = picture.resize((settings.image_side_pixels,) * 2, Image.Resampling.BOX)
    pixels = np.asarray(picture, dtype=np.int16)
    noise = np.frombuffer(random.randbytes(pixels.size), dtype=np.uint8).reshape(pixels.shape) % 17
    return Image.fromarray(np.clip(pixels + noise - 8, 0, 255).astype(np.uint8))


def _draw_background(scene: Scene, side: int, random: Random) -> Image.Image:
    """Return a square picture of the pattern in a lighter and a darker shade of the tone."""
    tone = _vary(TONES[scene.tone], random, 10)
    lighter = np.array([min(value + 24, 255) for value in tone])
    darker = np.array([value - 24 for value in tone])
    period = side / random.uniform(6, 8)
    phase = random.uniform(0, 2)
    y, x = np.mgrid[0:side, 0:side] / period + phase
    match scene.pattern:  # share of the darker shade, 0..1
        case "striped":
            share = np.floor(x + random.choice((-0.5, 0.0, 0.5)) * y) % 2
        case "checkered":
            share = (np.floor(x) + np.floor(y)) % 2
        case "dotted":
            share = (x % 1 - 0.5) ** 2 + (y % 1 - 0.5) ** 2 < 0.08
        case "shaded":
            share = np.linspace(-0.4, 1.4, side) + np.zeros_like(x)
            share = random.choice((share, share.T))
        case _:
            share = np.full_like(x, 0.5)
    pixels = lighter + share[..., None] * (darker - lighter)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _vary(colour: tuple[int, int, int], random: Random, most: int) -> tuple[int, int, int]:
    red, green, blue = (min(max(value + random.randint(-most, most), 0), 255) for value in colour)
    return red, green, blue


def _outline(thing: Thing, side: int) -> Image.Image:
    """Return a mask, `side` x `side`, 255 where the thing is."""
    mask = Image.new("L", (side, side))
    pen = ImageDraw.Draw(mask)
    radius = RADII[thing.size]

    def place(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        turn = math.radians(thing.degrees)
        return [
            (
                side * (thing.x + radius * (x * math.cos(turn) - y * math.sin(turn))),
                side * (thing.y + radius * (x * math.sin(turn) + y * math.cos(turn))),
            )
            for x, y in points
        ]

    pen.polygon(place(_corners(thing.shape)), fill=255)
    return mask


def _corners(shape: str) -> list[tuple[float, float]]:
    """Return the polygon of a shape within the unit circle, y downwards."""

    match shape:
        case "square":
            return [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)]
        case "triangle":
            return [(0, -1), (1, 0.85), (-1, 0.85)]
        case "cross":
            a, b = 0.28, 1.0
            corner = [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a)]
            return corner + [(-x, -y) for x, y in corner]
        case _:
            angles = [2 * math.pi * step / 48 for step in range(48)]
            return [(math.sin(angle), -math.cos(angle)) for angle in angles]
