"""A name in params.yaml -> the module of that name: `decoder.name: adaptive` is `captioning/decoders/adaptive.py`.

Adding a dataset, encoder, decoder or metric is therefore one new file; the contract tests find it by themselves.
"""

import importlib
import pkgutil
from types import ModuleType


def names(kind: str) -> list[str]:
    """List the modules of `captioning.<kind>`, sorted."""
    package = importlib.import_module(f"captioning.{kind}")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def find(kind: str, name: str) -> ModuleType:
    """Return the module `captioning.<kind>.<name>`.

    Raises:
        ValueError: there is no such module; the message lists those that exist.
    """
    if name not in names(kind):
        raise ValueError(f"no {name!r} in captioning.{kind}; available: {', '.join(names(kind))}")
    return importlib.import_module(f"captioning.{kind}.{name}")
