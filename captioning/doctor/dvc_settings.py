"""What DVC is told in .dvc/config and .dvc/config.local."""

from pathlib import Path
from typing import Any

FOLDER = Path(".dvc")


def settings() -> Any:
    """Return DVC's settings of this project, merged as DVC does it.

    Raises:
        ValueError: there is no DVC project here.
    """
    if not FOLDER.is_dir():
        raise ValueError(f"{Path.cwd()} is no DVC project")
    from dvc.config import Config

    return Config(str(FOLDER))


def cache_folder() -> Path:
    """Return the folder of DVC's cache."""
    return Path(settings()["cache"].get("dir") or FOLDER / "cache").resolve()


def link_types() -> list[str]:
    """Return the kinds of links that DVC tries, in its order."""
    return list(settings()["cache"].get("type") or ["reflink", "copy"])


def committed() -> Any:
    """Return what .dvc/config says, the file that is in git."""
    return settings().load_one("repo")
