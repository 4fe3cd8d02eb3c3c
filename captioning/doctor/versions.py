"""Python and packages: what pyproject.toml states, what packages state of each other, what requirements.lock pins."""

import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from captioning.doctor.findings import Finding, ok, problem, warning

PYPROJECT = Path("pyproject.toml")
LOCK_FILE = Path("requirements.lock")
INSTALL_AGAIN = "touch requirements.lock && make setup"
NUM_NAMED = 3
"""Packages that are named in one line."""

KNOWN_BAD = (
    ("prefect<3.9", "fastapi>=0.155", "Prefect's server does not start: FastAPI has removed what it calls"),
    ("prefect<3.9", "fastapi>=0.151", "`prefect deploy` fails"),
)
"""Two packages that say they go together and do not, and what happens."""


def python() -> Iterator[Finding]:
    """Compare the interpreter with `requires-python`."""
    release = sys.version.split()[0]
    wanted = str(_project()["requires-python"])
    if SpecifierSet(wanted).contains(release):
        yield ok(f"Python {release}")
    else:
        yield problem(f"Python is {release}, the project needs {wanted}", "rm -r .venv && make setup")


def packages() -> Iterator[Finding]:
    """Look whether each package that the project needs, directly or not, has what it states it needs."""
    broken = list(unmet(_project()["dependencies"]))
    for name, requirement, installed in broken:
        has = (
            f"{requirement.name} {installed} is installed" if installed else f"{requirement.name} is missing"
        )
        yield problem(f"{has}, {name} needs {requirement}", INSTALL_AGAIN)
    for first, second, outcome in KNOWN_BAD:
        if _is_installed(first) and _is_installed(second):
            yield problem(f"{_named(first)} with {_named(second)}: {outcome}", INSTALL_AGAIN)
            break
    if not broken:
        torch, vision = (importlib.metadata.version(name) for name in ("torch", "torchvision"))
        yield ok(f"every package has what it needs (torch {torch} with torchvision {vision})")


def lock_file() -> Iterator[Finding]:
    """Compare what is installed with requirements.lock, the versions that were tested together."""
    if not LOCK_FILE.exists():
        return
    other = [(name, pin, has) for name, pin in _pins() if (has := _version(name)) and has != pin]
    if other:
        named = ", ".join(f"{name} {has} for {pin}" for name, pin, has in other[:NUM_NAMED])
        more = f" and {len(other) - NUM_NAMED} more" if len(other) > NUM_NAMED else ""
        yield warning(f"installed are other versions than were tested: {named}{more}", INSTALL_AGAIN)
    else:
        yield ok(f"installed are the versions of {LOCK_FILE}")


def _pins() -> Iterator[tuple[str, str]]:
    """Yield name and version of each line of requirements.lock that holds for this machine."""
    for line in re.findall(r"^[\w.-]+==[^\\\n]+", LOCK_FILE.read_text(), re.MULTILINE):
        requirement = Requirement(line.strip())
        if requirement.marker is None or requirement.marker.evaluate():
            yield requirement.name, str(requirement.specifier).removeprefix("==")


def unmet(requirements: list[str], of: str = "captioning") -> Iterator[tuple[str, Requirement, str | None]]:
    """Yield who needs what and which version is installed instead, for `requirements` and all that these need."""
    waiting = [(of, Requirement(text)) for text in requirements]
    seen = set()
    while waiting:
        name, requirement = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        installed = _version(requirement.name)
        if installed is None or not requirement.specifier.contains(installed, prereleases=True):
            yield name, requirement, installed
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if installed is None or key in seen:
            continue
        seen.add(key)
        for text in importlib.metadata.requires(requirement.name) or []:
            below = Requirement(text)
            marker, below.marker = below.marker, None
            if marker is None or any(
                marker.evaluate({"extra": extra}) for extra in {"", *requirement.extras}
            ):
                waiting.append((f"{requirement.name} {installed}", below))


def _project() -> dict[str, Any]:
    with PYPROJECT.open("rb") as file:
        project: dict[str, Any] = tomllib.load(file)["project"]
        return project


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _is_installed(text: str) -> bool:
    requirement = Requirement(text)
    installed = _version(requirement.name)
    return installed is not None and requirement.specifier.contains(Version(installed), prereleases=True)


def _named(text: str) -> str:
    name = Requirement(text).name
    return f"{name} {_version(name)}"
