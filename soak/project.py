"""Copies of this project, without its data, to be treated badly."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from captioning import TELEMETRY_OFF

LEFT_OUT = {
    Path(): {".git", ".venv", ".work", "collection", "data", "models", "reports", "mlruns", "dvc.lock"},
    Path(".dvc"): {"cache", "tmp", "config.local"},
}
"""Folder of this project -> what of it is not copied. Packages, too, are called `reports`."""


def make_project(folder: Path, settings: Sequence[str]) -> Path:
    """Copy this project to `folder`, as a git repository of one commit, set to a run of drawn scenes."""
    shutil.copytree(
        ".", folder, ignore=lambda name, _: {*LEFT_OUT.get(Path(name), ()), "__pycache__"}, symlinks=True
    )
    run(folder, sys.executable, "-m", "captioning", "use", "scenes", *settings)
    run(folder, "git", "init", "--quiet", "--initial-branch", "main")
    run(folder, "git", "add", "--all")
    author = ("-c", "user.name=soak", "-c", "user.email=soak@localhost")
    run(folder, "git", *author, "commit", "--quiet", "--message", "A copy")
    return folder


def run(folder: Path, *command: str) -> str:
    """Return what a command says in a copy; it must succeed."""
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), check=False, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"`{' '.join(command)}` failed in {folder}:\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def environment(folder: Path) -> Mapping[str, str]:
    """Return the variables of a process that works in a copy, with its code and records and no one else's."""
    inherited = {
        k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "CAPTIONING_"))
    }
    return {**inherited, **TELEMETRY_OFF, "CAPTIONING_HOME": str(folder), "PYTHONPATH": str(folder)}
