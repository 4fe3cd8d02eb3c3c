"""The machine and the packages that a result was made with: scores are equal where these are."""

import importlib.metadata
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captioning import workers
from captioning.fingerprints import file_identity

LOCK = Path("requirements.lock")
GIB = 2**30


def describe(lock: Path = LOCK) -> dict[str, Any]:
    """Return what this machine is and what is installed; of the packages, those that are not as `lock` says.

    Memory is that of the machine in GiB, `cores` those that this process may use, `threads` those of one operation
    of torch, `processes` those that train together.
    """
    import torch

    from captioning import distributed  # torch, too

    gpus = range(torch.cuda.device_count())
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": workers.num_processes(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB),
        "gpus": [torch.cuda.get_device_name(number) for number in gpus],
        "processes": distributed.num_processes(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "requirements_lock": file_identity(lock) if lock.exists() else None,
        "not_as_locked": not_as_locked(lock) if lock.exists() else {},
    }


def not_as_locked(lock: Path) -> dict[str, list[str | None]]:
    """Return the packages whose version differs from the lock's: name -> locked, installed; None is absent."""
    installed = {_key(own.name): own.version for own in importlib.metadata.distributions() if own.name}
    installed.pop("captioning", None)  # whose code git knows
    locked = dict(_locked(lock))
    differing: dict[str, list[str | None]] = {}
    for name in sorted(locked.keys() | installed.keys()):
        has, wanted = installed.get(name), locked.get(name)
        if has != wanted and (has is None or wanted is None or has.partition("+")[0] != wanted):
            differing[name] = [wanted, has]
    return differing


def name_of(machine: dict[str, Any]) -> str:
    """Return what a person calls a machine: its GPUs, or else its processor."""
    gpus = machine["gpus"]
    return f"{len(gpus)} x {gpus[0]}" if gpus else f"{machine['cpu']}, {machine['cores']} cores"


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Say what differs between two descriptions."""
    said = [
        f"{key} {then.get(key)!r} then, {now.get(key)!r} now"
        for key in sorted(then.keys() | now.keys())
        if key != "not_as_locked" and then.get(key) != now.get(key)
    ]
    before, after = then.get("not_as_locked", {}), now.get("not_as_locked", {})
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            said.append(f"package {name} {_version(before, name)} then, {_version(after, name)} now")
    return said


def _version(differing: dict[str, list[str | None]], name: str) -> str:
    return "as locked" if name not in differing else differing[name][1] or "absent"


def _locked(lock: Path) -> Iterator[tuple[str, str]]:
    """Yield name and version of each requirement that holds on this machine."""
    from packaging.requirements import Requirement

    for line in lock.read_text().splitlines():
        if line[:1].isalnum():
            requirement = Requirement(line.rstrip("\\ "))
            if requirement.marker is None or requirement.marker.evaluate():
                yield _key(requirement.name), str(requirement.specifier).removeprefix("==")


def _key(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _cpu() -> str:
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
