"""InChI by its parts: elements, numbers (counts and locants), the names of layers, punctuation.

`InChI=1S/`, which every standard InChI begins with, is put in front again and not learnt. A number is one token,
whatever it counts; only in the layer `/m`, which has a sign for each component, are the digits apart.
"""

import re
from collections.abc import Iterable

from captioning.chemistry.identities import drawings

__all__ = ["EXAMPLES", "IS_EXACT", "IS_SPELLED", "UNIT", "drawings", "join", "split"]

PREFIX = "InChI=1S/"
UNIT = "token"
IS_EXACT = True
IS_SPELLED = True
EXAMPLES = (
    "InChI=1S/CH4/h1H4",
    "InChI=1S/C7H9NO/c1-5-3-6(2)8-7(5)4-9/h3-4,8H,1-2H3",
    "InChI=1S/C2H4ClF/c1-2(3)4/h2H,1H3/t2-/m0/s1",
    "InChI=1S/ClH.Na/h1H;/q;+1/p-1",
    "InChI=1S/2C3H7NO2.H3O4P/c2*1-2(4)3(5)6;1-5(2,3)4/h2*2H,4H2,1H3,(H,5,6);(H3,1,2,3,4)/t2*2-;/m10./s1",
    "InChI=1S/H2O/h1H2/i/hD2",
)

_TOKEN = re.compile(r"/[a-z]?|[A-Z][a-z]?|[0-9]+|.", re.DOTALL)
_LAYER = re.compile(r"(?=/)")
_SIGNS = "/m"


def split(caption: str) -> list[str]:
    """Return the parts of an InChI, without the prefix.

    Raises:
        ValueError: it does not begin as a standard InChI does, or has white space.
    """
    if not caption.startswith(PREFIX) or caption.split() != [caption]:
        raise ValueError(
            f"{caption[:60]!r} is no standard InChI, which begins with {PREFIX!r} and has no white space: take "
            "preprocess.tokens: characters for other text, or correct the data set's captions"
        )
    tokens: list[str] = []
    for layer in _LAYER.split(caption[len(PREFIX) :]):
        tokens += [_SIGNS, *layer[2:]] if layer.startswith(_SIGNS) else _TOKEN.findall(layer)
    return tokens


def join(tokens: Iterable[str]) -> str:
    """Return the InChI that the parts make."""
    return PREFIX + "".join(tokens)
