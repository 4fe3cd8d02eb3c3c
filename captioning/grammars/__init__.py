"""What texts a model may write, word by word; one module a grammar, chosen by `generation.grammar`.

Each module has a class `Grammar`, made of a vocabulary and the most words of a caption (`<eos>` is one of them), which
refuses with a `ValueError` a vocabulary that it cannot read. It has

- `start`, the state before the first word;
- `advance(state, word)`, the state after one more word id that is allowed there, never `<eos>`;
- `allowed(state, num_words_left)`, V booleans: the words after which a caption of the grammar can still be completed in
  the words that are left; `<eos>` exactly where it is complete. At `start`, and after words that were allowed, there
  is always one.

States are immutable; what is asked twice of one should be remembered by it.
"""

from typing import Annotated, Any, Protocol

import numpy as np
from pydantic import AfterValidator

from captioning import lookup

NONE = "none"


class AnyGrammar(Protocol):
    """See the package."""

    start: Any

    def advance(self, state: Any, word: int) -> Any:
        """Return the state after a word."""

    def allowed(self, state: Any, num_words_left: int) -> np.ndarray:
        """Return which words may come next."""


def _known(name: str) -> str:
    if name != NONE and name not in lookup.names("grammars"):
        raise ValueError(f"no grammar {name!r}; available: {', '.join([NONE, *lookup.names('grammars')])}")
    return name


GrammarName = Annotated[str, AfterValidator(_known)]
"""Name of a module in captioning/grammars, or `none`, in settings."""
