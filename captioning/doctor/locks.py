"""Who holds a lock of this project, and what was left behind by processes that died."""

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from captioning import home
from captioning.doctor.findings import Finding, ok, problem, warning

KERNEL_LOCKS = Path("/proc/locks")
LOCK_FILES = ("tmp/lock", "tmp/rwlock.lock")
"""Of DVC, in .dvc; a flow holds .dvc itself."""
RWLOCK = Path(".dvc") / "tmp" / "rwlock"
OWN_PROGRAMS = ("dvc", "flows", "stages", "captioning")
STAGE = re.compile(r"-m (stages\.\w+)")
FIRST_PROCESSES = frozenset({"systemd", "init", "tini", "dumb-init", "docker-init"})
"""Names of the processes that adopt orphans."""
DEPTH = 3
"""Of the folders below .work in which a stage holds its own."""


def dvc() -> Iterator[Finding]:
    """Look at the list of paths that DVC keeps: who reads or writes what."""
    try:
        listed = json.loads(RWLOCK.read_text() or "{}")
        entries = [(path, entry) for path, entry in listed.get("write", {}).items()]
        entries += [(path, entry) for path, own in listed.get("read", {}).items() for entry in own]
        holders = {int(entry["pid"]): str(entry["cmd"]) for _, entry in entries}
    except FileNotFoundError:
        holders = {}
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        yield problem(f"{RWLOCK} is damaged ({error}): every dvc command fails", f"rm {RWLOCK}")
        return
    for pid, command in holders.items():
        if not psutil.pid_exists(pid):
            yield warning(
                f"{RWLOCK} names process {pid} ({command}), which has died; DVC will strike it out",
                f"nothing, or rm {RWLOCK} while no dvc runs",
            )
        elif not any(word in described(pid) for word in OWN_PROGRAMS):
            yield problem(
                f"{RWLOCK} names process {pid} ({command}), which has died; now {pid} is {described(pid)}, "
                "and DVC waits for it",
                f"rm {RWLOCK}",
            )
        else:
            yield warning(
                f"process {pid} is at work: {described(pid)}", f"wait for it, or end it: kill {pid}"
            )
    if not holders:
        yield ok("no path is in use")


def held(kernel_locks: Path = KERNEL_LOCKS) -> Iterator[Finding]:
    """Look which lock of DVC, of the flows, of the records and of the stages is held, and by whom."""
    if not kernel_locks.exists():
        return
    holders = _holders(kernel_locks)
    num_held = 0
    for path in _lock_places():
        pid = holders.get(_identity(path))
        if pid is None or pid == os.getpid():
            continue
        num_held += 1
        if pid <= 0 or not psutil.pid_exists(pid):
            who, mend = "a process of another container", "wait for it, or end that container"
        else:
            who, mend = f"process {pid}: {described(pid)}", f"wait for it, or end it: kill {pid}"
        yield warning(f"{path} is held by {who}", mend)
    if not num_held:
        yield ok("none is held")


def orphans() -> Iterator[Finding]:
    """Look for stages of this project whose dvc has died: they go on, and write what nobody will read."""
    here, num_found = Path.cwd(), 0
    for process in psutil.process_iter(["pid", "ppid", "cmdline", "cwd", "create_time"]):
        stage = STAGE.search(" ".join(process.info["cmdline"] or []))
        folder = process.info["cwd"]
        if stage is None or folder is None or Path(folder) != here or not _is_orphan(process):
            continue
        num_found += 1
        hours = (time.time() - process.info["create_time"]) / 3600
        yield problem(
            f"process {process.pid}, {stage[1]}, has run for {hours:.1f} h, and the dvc that started it is gone",
            f"kill {process.pid}",
        )
    if not num_found:
        yield ok("no stage runs on after its dvc has died")


def described(pid: int) -> str:
    """Return the command line of a process, shortened."""
    try:
        words = psutil.Process(pid).cmdline()
    except psutil.Error:
        return "unknown"
    text = " ".join(words)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_orphan(process: psutil.Process) -> bool:
    try:
        parent = process.parent()
        return parent is None or parent.pid == 1 or parent.name() in FIRST_PROCESSES
    except psutil.Error:
        return False


def _lock_places() -> list[Path]:
    folder, work = Path(".dvc"), home.home() / ".work"
    places = [folder, *(folder / name for name in LOCK_FILES), *(work / "locks").glob("*")]
    for depth in range(1, DEPTH + 1):
        places += [path for path in work.glob("/".join(["*"] * depth)) if path.is_dir()]
    return [path for path in places if path.exists()]


def _holders(kernel_locks: Path) -> dict[tuple[int, int, int], int]:
    """Return the process that holds each locked file, by device (two numbers) and inode."""
    holders = {}
    for line in kernel_locks.read_text().splitlines():
        words = line.split()
        if "->" in words:  # waits for it
            continue
        major, minor, inode = words[5].split(":")
        holders[int(major, 16), int(minor, 16), int(inode)] = int(words[4])
    return holders


def _identity(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return os.major(stat.st_dev), os.minor(stat.st_dev), stat.st_ino
