"""What a dvc.lock says about its stages: which made a file, and in which order they can run."""

from collections.abc import Collection, Mapping
from typing import Any


def deps(dvc_lock: Mapping[str, Any], stages: Collection[str]) -> set[str]:
    """Return the paths that stages read."""
    return {dep["path"] for stage in stages for dep in dvc_lock["stages"][stage].get("deps", [])}


def producer(dvc_lock: Mapping[str, Any], path: str) -> str | None:
    """Return the stage that makes a file or folder, or the folder it lies in; None of what stages only read."""
    for name, stage in dvc_lock["stages"].items():
        for out in stage.get("outs", []):
            if path == out["path"] or path.startswith(f"{out['path']}/"):
                return str(name)
    return None


def upstream(dvc_lock: Mapping[str, Any], stages: Collection[str]) -> list[str]:
    """Return stages and all that they depend on, in an order in which they can run."""
    ordered: list[str] = []

    def visit(name: str) -> None:
        producers = {producer(dvc_lock, path) for path in deps(dvc_lock, [name])}
        for before in sorted(own for own in producers if own is not None and own != name):
            if before not in ordered:
                visit(before)
        if name not in ordered:
            ordered.append(name)

    for stage in stages:
        visit(stage)
    return ordered
