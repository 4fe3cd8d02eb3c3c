"""Captions -> their one normal form; one module a normaliser, chosen by `generation.rerank.normaliser`.

Each module has

- `normalise(texts) -> list[str | None]`, in their order: the normal form, None where a text says nothing valid. A
  normal form is its own normal form;
- `EXAMPLES`, pairs of a text and its normal form.
"""

from typing import Annotated

from pydantic import AfterValidator

from captioning import lookup


def _known(name: str) -> str:
    lookup.find("normalisers", name)
    return name


NormaliserName = Annotated[str, AfterValidator(_known)]
"""Name of a module in captioning/normalisers, in settings."""
