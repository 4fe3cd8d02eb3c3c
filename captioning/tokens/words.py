"""Words of natural language, in lower case and without punctuation; `t-shirt` and `man's` stay whole."""

import re
from collections.abc import Iterable

UNIT = "word"
IS_EXACT = False
IS_SPELLED = False
EXAMPLES = ("A man's red t-shirt.", "Two dogs, running on the beach!", "Ein Bär läuft.")

_WORD = re.compile(r"\w+(?:['’\-]\w+)*")


def split(caption: str) -> list[str]:
    """Return the lower-case words of a caption; punctuation is dropped."""
    return _WORD.findall(caption.lower())


def join(tokens: Iterable[str]) -> str:
    """Return words joined by single spaces."""
    return " ".join(tokens)
