"""The files that data sets come as: addresses, and zip archives with their members."""

import io
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import TextIO
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname


def address(place: str) -> str:
    """Return an address as it is, and a path (from the project root) as its `file://` address."""
    return place if "://" in place else Path(place).resolve().as_uri()


def local_path(place: str) -> Path | None:
    """Return where on this machine a path or a `file://` address leads, None for any other address."""
    if "://" not in place:
        return Path(place)
    parts = urlsplit(place)
    return Path(url2pathname(parts.path)) if parts.scheme.lower() == "file" else None


def below(prefix: str, *names: str) -> str:
    """Return the address of a file or folder below the address `prefix`."""
    return "/".join([prefix.rstrip("/"), *(quote(name) for name in names if name)])


def refuse_unknown_checksums(checksums: Mapping[str, str], names: Iterable[str]) -> None:
    """Raise ValueError if a checksum is stated for a file that is none of `names`."""
    names = list(names)
    if unknown := sorted(set(checksums) - set(names)):
        raise ValueError(f"no archive is called {', '.join(unknown)}; expected {' or '.join(names)}")


def distinct(parts: list[str]) -> list[str]:
    """Return `parts`; raise ValueError if one is named twice."""
    if len(set(parts)) < len(parts):
        raise ValueError(f"{parts} names a part twice; expected each at most once")
    return parts


def members_by_name(archive: zipfile.ZipFile) -> dict[str, str]:
    """Return file name -> member, wherever in the archive the file lies; held in memory, some 200 bytes a member."""
    return {PurePosixPath(member).name: member for member in archive.namelist() if _is_content(member)}


def open_text(archive: zipfile.ZipFile, name: str) -> TextIO:
    """Open the UTF-8 text file `name`, wherever in the archive it lies.

    Raises:
        ValueError: there is none; the message lists some of what there is.
    """
    for member in archive.namelist():
        if _is_content(member) and PurePosixPath(member).name == name:
            return io.TextIOWrapper(archive.open(member), encoding="utf-8")
    where = PurePosixPath(str(archive.filename)).name
    raise ValueError(
        f"{where} has no file {name}; it has {', '.join(archive.namelist()[:8])}: check its address in the "
        "section download"
    )


def _is_content(member: str) -> bool:
    """Return whether a member is what its name says; archives made on a Mac have a shadow of each file."""
    return not member.startswith("__MACOSX/") and not member.endswith("/")
