"""How a molecule is drawn: lines, letters, angles; settings say how much drawings differ, a style is one choice."""

import functools
import importlib.util
import math
from pathlib import Path
from random import Random
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field, model_validator

from captioning.formats.sources import distinct
from captioning.params import Settings

Share = Annotated[float, Field(ge=0, le=1)]

RDKIT_FONTS = {
    "telex": "Data/Fonts/Telex-Regular.ttf",
    "comic": "Data/Fonts/ComicNeue-Regular.ttf",
    "freesans": "Chem/Draw/FreeSans.ttf",
}
MATPLOTLIB_FONTS = {
    "dejavu-sans": "mpl-data/fonts/ttf/DejaVuSans.ttf",
    "dejavu-serif": "mpl-data/fonts/ttf/DejaVuSerif.ttf",
    "dejavu-mono": "mpl-data/fonts/ttf/DejaVuSansMono.ttf",
    "stix": "mpl-data/fonts/ttf/STIXGeneral.ttf",
}
Font = Literal["telex", "comic", "freesans", "dejavu-sans", "dejavu-serif", "dejavu-mono", "stix"]


class Range(Settings):
    """From which a number is drawn for each picture."""

    min: float = Field(ge=0)
    max: float = Field(ge=0)

    @model_validator(mode="after")
    def _rises(self) -> "Range":
        if self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self

    def draw(self, random: Random) -> float:
        """Return a number between both ends."""
        return random.uniform(self.min, self.max)


class StyleSettings(Settings):
    """How much drawings differ. A share is that of the drawings; lengths are in bonds where they are not in pixels."""

    bond_pixels: Range
    """Length of a bond in the picture; small ones are a low resolution."""
    max_side_pixels: int = Field(ge=32)
    """Of a picture before it is tilted; larger molecules get shorter bonds."""
    margin_pixels: Range
    """White around the molecule, on each side by itself."""
    line_bonds: Range
    """Width of a line / length of a bond."""
    gap_bonds: Range
    """Distance between the lines of a double bond / length of a bond."""
    letter_bonds: Range
    """Size of the letters / length of a bond."""
    min_letter_pixels: float = Field(ge=0)
    """Smaller letters cannot be read: they are drawn so large, however short the bonds are."""
    fonts: Annotated[list[Font], Field(min_length=1), AfterValidator(distinct)]
    """Each as often as the others."""
    turned_degrees: float = Field(ge=0, le=180)
    """The molecule lies turned by up to so much to either side of where RDKit lays it; letters stay upright."""
    mirrored_share: Share
    """Drawings laid the other way round; wedges change with it, so that the molecule is the same."""
    methyl_share: Share
    """Drawings that write CH3 at the end of a chain."""
    hydrogen_share: Share
    """Drawings with bonds to the hydrogens of N, O and S."""
    chiral_hydrogen_share: Share
    """Drawings that show the hydrogen of a stereo centre where rings meet."""
    crossed_share: Share
    """Drawings that cross double bonds whose two sides are not known, as the InChI says; else they look known."""
    double_wedge_share: Share
    """Drawings with two wedges at a stereo centre where there is room."""
    coordgen_share: Share
    """Drawings laid out by CoordGen, with other angles, and not by RDKit itself; it takes four times as long."""


class Style(NamedTuple):
    """One choice; lengths in bonds where they are not in pixels."""

    bond_pixels: float
    max_side_pixels: int
    margins: tuple[int, int, int, int]
    """Pixels: left, top, right, bottom."""
    line: float
    gap: float
    letter: float
    min_letter_pixels: float
    font: Font
    radians: float
    is_mirrored: bool
    has_methyl: bool
    has_hydrogens: bool
    has_chiral_hydrogens: bool
    has_crossed_bonds: bool
    has_double_wedges: bool
    is_by_coordgen: bool


def choose(settings: StyleSettings, random: Random) -> Style:
    """Choose how one picture is drawn."""
    margins = [round(settings.margin_pixels.draw(random)) for _ in range(4)]
    return Style(
        bond_pixels=settings.bond_pixels.draw(random),
        max_side_pixels=settings.max_side_pixels,
        margins=(margins[0], margins[1], margins[2], margins[3]),
        line=settings.line_bonds.draw(random),
        gap=settings.gap_bonds.draw(random),
        letter=settings.letter_bonds.draw(random),
        min_letter_pixels=settings.min_letter_pixels,
        font=random.choice(settings.fonts),
        radians=math.radians(random.uniform(-settings.turned_degrees, settings.turned_degrees)),
        is_mirrored=random.random() < settings.mirrored_share,
        has_methyl=random.random() < settings.methyl_share,
        has_hydrogens=random.random() < settings.hydrogen_share,
        has_chiral_hydrogens=random.random() < settings.chiral_hydrogen_share,
        has_crossed_bonds=random.random() < settings.crossed_share,
        has_double_wedges=random.random() < settings.double_wedge_share,
        is_by_coordgen=random.random() < settings.coordgen_share,
    )


@functools.cache
def font_file(font: Font) -> str:
    """Return the path of a font that RDKit or matplotlib brings; neither is imported."""
    package, inside = ("rdkit", RDKIT_FONTS) if font in RDKIT_FONTS else ("matplotlib", MATPLOTLIB_FONTS)
    found = importlib.util.find_spec(package)
    assert found is not None and found.origin is not None, f"{package} is installed with this library"
    return str(Path(found.origin).parent / inside[font])
