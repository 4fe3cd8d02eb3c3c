"""What an interrupted stage's work is found again by: the identity of everything that decides its outcome."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

LIBRARY = Path(__file__).parent


def fingerprint(settings: Mapping[str, Any], *identities: str) -> str:
    """Return the identity of some work: its settings, and what else decides its outcome (data, weights, code)."""
    return hashlib.sha256(json.dumps([settings, identities], sort_keys=True).encode()).hexdigest()


def code_identity(*modules: ModuleType) -> str:
    """Return a digest of the source of `modules`, or of the whole library, so that nothing resumes under other code.

    A package stands for all modules in it.
    """
    digest = hashlib.sha256()
    for path in sorted({path for module in modules for path in _sources(module)} or LIBRARY.rglob("*.py")):
        digest.update(str(path.relative_to(LIBRARY)).encode() + path.read_bytes())
    return digest.hexdigest()


def _sources(module: ModuleType) -> list[Path]:
    path = Path(str(module.__file__))
    return sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]


def file_identity(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
