"""Disks: links between DVC's cache and the project, free space, databases on network disks."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from captioning import home
from captioning.doctor.dvc_settings import cache_folder, link_types
from captioning.doctor.findings import Finding, ok, problem, warning

LOW_BYTES = 10 * 2**30
FULL_BYTES = 2**30
"""Free, below which there is a warning or a problem."""
LOW_FILES = 10_000
"""Further files that can be made, below which there is a warning."""

MOUNTS = Path("/proc/self/mounts")
NETWORK_DISKS = frozenset(
    {
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "fuse.glusterfs",
        "fuse.s3fs",
        "fuse.sshfs",
        "gpfs",
        "lustre",
        "nfs",
    }
    | {"nfs4", "smb3", "smbfs"}
)


def links() -> Iterator[Finding]:
    """Try the kinds of links that DVC is told to make, from its cache to the project."""
    cache = cache_folder()
    told = link_types()
    works = next((kind for kind in told if can_link(kind, cache, Path.cwd())), None)
    if works is None or works == "copy":
        others = [kind for kind in ("reflink", "hardlink") if can_link(kind, cache, Path.cwd())]
        what = f"DVC copies (cache.type is {','.join(told)}): what is cached is on the disk twice, 150 GB as 300 GB"
        if others:
            yield warning(what, "python -m flows.links && dvc checkout --relink")
        else:
            yield warning(
                f"{what}; {cache} and {Path.cwd()} have no links between them",
                "dvc cache dir --local FOLDER_ON_THE_DISK_OF_THE_PROJECT",
            )
    elif works != "reflink" and "reflink" in told[: told.index(works)]:
        yield warning(
            f"DVC copies into its cache, and then makes a {works}: no reflinks here, but cache.type begins with them",
            "python -m flows.links",
        )
    else:
        yield ok(f"{works}s from {cache}")


def can_link(kind: str, cache: Path, project: Path) -> bool:
    """Return whether a file in `cache` can be linked into `project`; a few bytes are written to try it."""
    if kind == "copy":
        return True
    from dvc_objects.fs.local import LocalFileSystem

    with (
        tempfile.TemporaryDirectory(dir=_existing(cache)) as source,
        tempfile.TemporaryDirectory(dir=project) as target,
    ):
        (Path(source) / "file").write_bytes(b"something")
        try:
            getattr(LocalFileSystem(), kind)(str(Path(source) / "file"), str(Path(target) / "file"))
        except (OSError, NotImplementedError):
            return False
    return True


def free_space(low_bytes: int = LOW_BYTES, full_bytes: int = FULL_BYTES) -> Iterator[Finding]:
    """Look how much more each disk takes that the pipeline writes to."""
    for names, path in _disks(_places()).items():
        free, total = shutil.disk_usage(path).free, shutil.disk_usage(path).total
        files = os.statvfs(path).f_favail
        what = f"{free / 2**30:,.1f} of {total / 2**30:,.1f} GiB free at {path} ({names})"
        mend = (
            "captioning clean, or point CAPTIONING_HOME, `dvc cache dir --local` or TMPDIR to a larger disk"
        )
        if free < full_bytes:
            yield problem(what, mend)
        elif free < low_bytes:
            yield warning(what, mend)
        elif 0 < files < LOW_FILES:
            yield warning(f"{files} more files fit at {path} ({names})", mend)
        else:
            yield ok(what)


def network_disks(mounts: Path = MOUNTS) -> Iterator[Finding]:
    """Look whether a SQLite database lies on a disk of the network, whose locks lose writes; and HDF5 files."""
    if not mounts.exists():
        return
    is_fine = True
    for name, folder, mend in _databases():
        kind = disk_kind(folder, mounts)
        if kind in NETWORK_DISKS:
            is_fine = False
            yield problem(f"{name} is SQLite at {folder}, on a disk of the network ({kind}): it breaks", mend)
    kind = disk_kind(Path.cwd(), mounts)
    if kind in NETWORK_DISKS and os.environ.get("HDF5_USE_FILE_LOCKING", "").upper() != "FALSE":
        is_fine = False
        yield warning(
            f"shards are on a disk of the network ({kind}), where HDF5's locks fail",
            "export HDF5_USE_FILE_LOCKING=FALSE",
        )
    if is_fine:
        yield ok(f"no database is on one; the project is on {kind or 'an unknown kind of disk'}")


def disk_kind(path: Path, mounts: Path = MOUNTS) -> str:
    """Return the kind of file system that `path` is on, as /proc/self/mounts names it; empty where it is not known."""
    path = path.resolve()
    best, kind = -1, ""
    for line in mounts.read_text().splitlines():
        _, at, named, *_ = line.split()
        point = Path(at.replace("\\040", " "))
        if path.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), named
    return kind


def _places() -> dict[str, Path]:
    places = {"project": Path.cwd(), "DVC cache": cache_folder(), "CAPTIONING_HOME": home.home()}
    return places | {"temporary files": Path(tempfile.gettempdir())}


def _disks(places: Mapping[str, Path]) -> dict[str, Path]:
    """Return one of the paths on each disk, by the names of all that are on it."""
    on_disk: dict[int, list[tuple[str, Path]]] = {}
    for name, path in places.items():
        there = _existing(path)
        on_disk.setdefault(there.stat().st_dev, []).append((name, there))
    return {", ".join(name for name, _ in own): own[0][1] for own in on_disk.values()}


def _existing(path: Path) -> Path:
    """Return the folder that will hold `path` once something makes it, or itself."""
    while not path.exists():
        path = path.parent
    return path


def _databases() -> list[tuple[str, Path, str]]:
    """Return name, folder and mend of each SQLite database."""
    databases = []
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        mend = "use a server (docs/servers.md), or export CAPTIONING_HOME=FOLDER_ON_A_LOCAL_DISK"
        databases.append(("MLflow's database", home.mlruns(), mend))
    if not os.environ.get("PREFECT_API_URL"):
        folder = Path(os.environ.get("PREFECT_HOME") or home.home() / ".work" / "prefect")
        databases.append(
            (
                "Prefect's database",
                folder,
                "use a server (docs/servers.md), or export PREFECT_HOME=LOCAL_FOLDER",
            )
        )
    return databases
