"""Whether git holds what this project is, and which data it had."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

from captioning.doctor.findings import Finding, ok, warning

RECORDS = ("dvc.lock", "source.json")
"""Files that say together which data a result is of."""


def git() -> Iterator[Finding]:
    """Look for changes that no revision holds."""
    command = ["git", "--no-optional-locks", "status", "--porcelain", "--", "."]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=8).stdout
    except (OSError, subprocess.SubprocessError):
        yield warning(
            "no git repository: a version in the registry will name no revision", "git init && git add ."
        )
        return
    changed = [line[3:] for line in said.splitlines()]
    records = [name for name in RECORDS if name in changed]
    others = [name for name in changed if name not in RECORDS]
    if others:
        yield warning(
            f"{len(others)} files differ from the revision, such as {others[0]}: runs are recorded as dirty",
            "git add and git commit what is to stay",
        )
    if records:
        names = " ".join(records)
        yield warning(
            f"{' and '.join(records)} not committed: no revision says which data the last run had",
            f"git add {names} && git commit -m 'Run' {names}",
        )
    if not changed:
        yield ok("everything is committed")
    elif not records and Path("dvc.lock").exists():
        yield ok("dvc.lock is committed")
