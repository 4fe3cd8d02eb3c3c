"""Single characters, of any text: the smallest vocabulary and the longest captions."""

from collections.abc import Iterable

UNIT = "character"
IS_EXACT = True
IS_SPELLED = True
EXAMPLES = (
    "InChI=1S/C7H9NO/c1-5-3-6(2)8-7(5)4-9/h3-4,8H,1-2H3",
    "CC(=O)N1c2ccccc2Sc2c1ccc1ccccc21",
    "A man's red t-shirt.",
)


def split(caption: str) -> list[str]:
    """Return the characters of a caption.

    Raises:
        ValueError: it has a line break.
    """
    if len(caption.splitlines()) > 1:
        raise ValueError(
            f"{caption[:60]!r} has a line break, and a caption is one line; correct the data set's captions"
        )
    return [*caption]


def join(tokens: Iterable[str]) -> str:
    """Return the characters one after the other."""
    return "".join(tokens)
