"""An address -> one file of any size: whole, checked, and continued where an interrupted transfer ended."""

import asyncio
import contextlib
import hashlib
import itertools
import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from captioning.downloads.answers import (
    CHUNK_BYTES,
    Answer,
    FetchError,
    open_address,
    open_session,
    pause_seconds,
)
from captioning.fingerprints import file_identity
from captioning.outputs import is_full_disk
from captioning.progress import in_bytes, progress

if TYPE_CHECKING:
    from aiohttp import ClientSession


def fetch(
    url: str,
    path: Path,
    sha256: str | None = None,
    *,
    timeout_seconds: float,
    retries: int,
    allow_private_addresses: bool = False,
    unfinished: Path | None = None,
) -> None:
    """Copy what is behind `url` to `path`, which appears whole and checked or not at all.

    The bytes of an interrupted transfer wait in the folder `unfinished`, if one is given, and the next call with
    the same arguments fetches only the rest, unless the file has changed meanwhile.

    Raises:
        FetchError: it cannot be had, even after `retries` further attempts in a row that brought nothing more.
        ValueError: its sha256 is another one, it should be a zip file and is none or an unsafe one, or the disk
            is too small.
    """
    with contextlib.ExitStack() as stack:
        folder = unfinished
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=path.parent, prefix=".")))
        transfer = _Transfer(url, path, folder, needs_validator=not sha256)
        if sha256 and transfer.is_complete:
            return
        transfer.take_back()
        try:
            asyncio.run(
                transfer.run(
                    timeout_seconds=timeout_seconds,
                    retries=retries,
                    allow_private_addresses=allow_private_addresses,
                )
            )
        except FetchError as error:
            next_step = "check the address in the section download, or try again later"
            raise FetchError(error.reason, f"{error}; {next_step}", is_lasting=error.is_lasting) from None
        try:
            _refuse_damage(transfer.partial, url, path, sha256)
        except ValueError:
            transfer.forget()
            raise
        transfer.finish()


def finished_files(unfinished: Path) -> set[Path]:
    """Return the files that `fetch` has finished with the folder `unfinished`."""
    notes = [_read_notes(path) for path in unfinished.glob("*.json")]
    return {Path(known["path"]) for known in notes if known.get("is_complete")}


class _Transfer:
    """The copy of one file from `url` to `path` over any number of attempts and runs.

    `NAME` in `folder` holds the bytes so far, `NAME.json` what is known of the whole.
    """

    def __init__(self, url: str, path: Path, folder: Path, *, needs_validator: bool) -> None:
        name = hashlib.sha256(f"{url}\n{path}".encode()).hexdigest()[:16]
        self.partial = folder / name
        self._notes = folder / f"{name}.json"
        self._url = url
        self._path = path
        self._needs_validator = needs_validator

    @property
    def is_complete(self) -> bool:
        """Return whether an earlier call finished and checked `path`, which is still there."""
        known = self._read_notes()
        return bool(known.get("is_complete")) and self._path.exists()

    def take_back(self) -> None:
        """Treat a file that an earlier call finished as one whose last byte is still missing: has it changed?"""
        if self.is_complete:
            self._path.replace(self.partial)

    def finish(self) -> None:
        """Put the file in its place."""
        self.partial.replace(self._path)
        self._write_notes({**self._read_notes(), "is_complete": True, "path": str(self._path)})

    def forget(self) -> None:
        """Delete what was fetched."""
        self.partial.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)

    async def run(self, *, timeout_seconds: float, retries: int, allow_private_addresses: bool) -> None:
        """Fetch what is missing; a failure counts only if nothing was gained since the last one."""
        most, num_failures = self._num_bytes(), 0
        async with open_session(
            timeout_seconds=timeout_seconds, allow_private_addresses=allow_private_addresses
        ) as session:
            while True:
                try:
                    return await self._attempt(session)
                except FetchError as error:
                    if self._num_bytes() >= most + CHUNK_BYTES:
                        most, num_failures = self._num_bytes(), 0
                    if error.is_lasting or num_failures >= retries:
                        raise
                    num_failures += 1
                    await asyncio.sleep(pause_seconds(num_failures, error))

    async def _attempt(self, session: "ClientSession") -> None:
        known = self._read_notes()
        can_continue = known and (known["validator"] or not self._needs_validator)
        offset = self._num_bytes() if can_continue else 0
        async with open_address(session, self._url, offset, known.get("validator", "")) as answer:
            if answer.start and answer.num_bytes != known["num_bytes"]:
                self.forget()
                raise FetchError("changed", f"{self._url} changed while it was fetched", is_lasting=False)
            _refuse_small_disk(self.partial.parent, self._url, (answer.num_bytes or 0) - answer.start)
            await self._copy(answer)
        if answer.num_bytes is not None and self._num_bytes() != answer.num_bytes:
            sentence = f"{self._url} ended after {self._num_bytes():,} of {answer.num_bytes:,} bytes"
            raise FetchError("cut-short", sentence, is_lasting=False)

    async def _copy(self, answer: Answer) -> None:
        total = -(-max((answer.num_bytes or 0) - answer.start, 0) // CHUNK_BYTES)
        ticks = progress(itertools.count(), total=total, what=self._path.name, unit="MiB")
        num_bytes = 0
        with contextlib.closing(self._open(answer)) as target:
            async for chunk in answer.chunks:
                with full_disk_named(self.partial.parent, self._url):
                    _write(target, chunk)
                num_ticks = num_bytes // CHUNK_BYTES
                num_bytes += len(chunk)
                for _ in range(num_ticks, num_bytes // CHUNK_BYTES):
                    next(ticks)

    def _open(self, answer: Answer) -> FileIO:
        """Open the file of bytes so far, unbuffered, at the place where the answer begins."""
        with full_disk_named(self.partial.parent, self._url):
            target = FileIO(self.partial, "r+" if answer.start else "w")
            if not answer.start:
                self._write_notes({"validator": answer.validator, "num_bytes": answer.num_bytes})
            target.seek(answer.start)
            return target

    def _num_bytes(self) -> int:
        return self.partial.stat().st_size if self.partial.exists() else 0

    def _read_notes(self) -> dict[str, Any]:
        return _read_notes(self._notes)

    def _write_notes(self, notes: dict[str, Any]) -> None:
        aside = self._notes.with_suffix(".partial")
        aside.write_text(json.dumps(notes))
        aside.replace(self._notes)


def _read_notes(path: Path) -> dict[str, Any]:
    """Return what is known of a transfer; nothing where it has not begun, or a power cut tore the file."""
    try:
        notes: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return notes


def _write(target: FileIO, chunk: bytes) -> None:
    """Write all of a chunk; the system may take a part of it, as on a disk that is almost full."""
    rest = memoryview(chunk)
    while rest:
        rest = rest[target.write(rest) :]


def _refuse_small_disk(folder: Path, url: str, num_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise ValueError(
            f"{url}: {in_bytes(num_bytes)} are still to be fetched, but the disk of {folder} has {in_bytes(free)} "
            "free: free some space, or set CAPTIONING_HOME to a folder on a larger disk"
        )


@contextmanager
def full_disk_named(folder: Path, what: str) -> Iterator[None]:
    """Turn the error of a full disk into a `ValueError` that says so, for it has nothing to do with the address."""
    try:
        yield
    except OSError as error:
        if not is_full_disk(error):
            raise
        raise ValueError(
            f"the disk of {folder} is full: {what} could not be written; free some space, or set CAPTIONING_HOME "
            "to a folder on a larger disk, and run again: what was fetched is kept"
        ) from None


def _refuse_damage(partial: Path, url: str, path: Path, sha256: str | None) -> None:
    digest = file_identity(partial) if sha256 else ""
    if sha256 and digest != sha256.lower():
        raise ValueError(
            f"{url} has the sha256 {digest}, expected {sha256}; it was changed or damaged: "
            "correct the source, or the checksum in the section download if the change is meant"
        )
    if path.suffix == ".zip":
        _refuse_other_than_zip(partial, url)
        _refuse_unsafe_members(partial, url)


def _refuse_other_than_zip(path: Path, url: str) -> None:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            beginning = file.read(40)
        raise ValueError(
            f"{url} is not a zip file: it begins with {beginning!r} and has {path.stat().st_size:,} bytes; "
            "open the address in a browser to see what is answered, and correct download.source"
        )


def _refuse_unsafe_members(path: Path, url: str) -> None:
    """Refuse an archive that would leave the folder it is unpacked into; here nothing is, elsewhere it may be."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            place = PurePosixPath(member.filename.replace("\\", "/"))
            is_link = (member.external_attr >> 16) & 0o170000 == 0o120000
            if is_link or place.is_absolute() or ".." in place.parts or re.match(r"[A-Za-z]:", str(place)):
                kind = "a symbolic link" if is_link else "a path that leads out of the folder"
                raise ValueError(
                    f"{url} is an unsafe archive: its member {member.filename!r} is {kind}; "
                    "get the archive from its authors, or remove that member"
                )
