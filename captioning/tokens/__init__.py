"""How a caption is cut into the tokens that a model reads and writes; one module a way, chosen by `preprocess.tokens`.

Each module has

- `split(caption) -> list[str]`, the tokens; none is empty, has a line break or is one of the vocabulary's markers.
  What it cannot cut is a `ValueError` that shows the caption; whatever `join` gives can be cut;
- `join(tokens) -> str`, the caption that they make; of other tokens than `split` gives, in any order, too, since a
  model may write them;
- `UNIT`, what one token is called, such as `word`;
- `IS_EXACT`, whether `join(split(caption))` is the caption, character by character. Otherwise it is the caption in the
  form that the module writes, and `split` gives the same tokens of it;
- `IS_SPELLED`, whether a caption is its tokens one after the other (behind what `join` puts in front), as a grammar
  of captions (`captioning.grammars`) needs it;
- `EXAMPLES`, captions that it is made for.

A module may also have `drawings(captions) -> list[np.ndarray | None]`: what each caption says as a picture, uint8,
H x W x 3, None where it says nothing that can be drawn; reports show them beside the pictures that were captioned.

The vocabulary's file carries the name, so that a model folder decodes by itself.
"""

from types import ModuleType
from typing import Annotated

from pydantic import AfterValidator

from captioning import lookup

WORDS = "words"
"""Of vocabularies whose file names no tokens."""


def module_of(name: str) -> ModuleType:
    """Return the module that cuts captions into tokens."""
    return lookup.find("tokens", name)


def _known(name: str) -> str:
    module_of(name)
    return name


TokensName = Annotated[str, AfterValidator(_known)]
"""Name of a module in captioning/tokens, in settings."""
