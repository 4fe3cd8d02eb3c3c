"""Where things lie that outlive a checkout: the registry, resume state, the feature cache."""

import os
from pathlib import Path

WORK = ".work"


def home() -> Path:
    """Return the absolute folder `CAPTIONING_HOME`, by default the project root (the working directory)."""
    return Path(os.environ.get("CAPTIONING_HOME") or ".").resolve()


def mlruns() -> Path:
    """Return the folder of the MLflow database and artifacts."""
    return home() / "mlruns"


def collection() -> Path:
    """Return the folder of the index that `captioning search` looks through."""
    return home() / "collection"


def work(*parts: str) -> Path:
    """Return a folder for resume state and caches, made if absent. Deleting it loses time, never results."""
    folder = home() / WORK / Path(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
