"""Choose how DVC puts files from its cache into the project, so that 150 GB are not on the disk twice.

    python -m flows.links

Takes a second; `make setup` runs it. What this file system can do is tried: reflinks where it has them (Btrfs, XFS),
hard links otherwise. The choice is this machine's own and goes to .dvc/config.local, which git ignores.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from dvc_objects.fs.local import LocalFileSystem

from flows.stage_run import dvc_command

CHOICES = {
    "reflink": (
        "reflink,hardlink,symlink",
        "reflinks: a file and its cached copy share their blocks, and may be edited",
    ),
    "hardlink": (
        "hardlink,symlink",
        "hard links: a file and its cached copy are one, read-only; never edit one as root",
    ),
}
"""Kind of link -> DVC's setting and what it means. `reflink,hardlink` would copy where there are no reflinks."""


def supported(folder: Path) -> str | None:
    """Return the best kind of link that the file system of `folder` makes, or None where it can only copy."""
    files = LocalFileSystem()
    with TemporaryDirectory(dir=folder) as name:
        source = Path(name) / "source"
        source.write_bytes(b"something")
        for kind in CHOICES:
            try:
                getattr(files, kind)(str(source), str(Path(name) / kind))
            except (OSError, NotImplementedError):
                continue
            return kind
    return None


def main(folder: Path) -> None:
    """Write the choice for the project in `folder`."""
    kind = supported(folder / ".dvc")
    if kind is None:
        print(f"DVC: {folder} is on a file system without links: what is cached is on the disk twice")
        return
    setting, meaning = CHOICES[kind]
    command = dvc_command("config", "--local", "cache.type", setting)
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    print(f"DVC: {meaning}")


if __name__ == "__main__":
    try:
        main(Path.cwd())
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"links: {error}; run this in the project's folder")
