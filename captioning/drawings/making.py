"""Many molecules identified, and many pictures drawn, piece by piece on all processors; a crash costs one molecule.

RDKit works in a child process of each worker. What it cannot do becomes the `error` of a row: a fixed word, a colon and
a sentence, as in rows.parquet. Each piece is a file or two that appear whole, so that an interrupted run goes on with
the pieces that are not there. The process that calls this may import RDKit, which is harmless, but never calls it.
"""

import functools
import io
import itertools
import zipfile
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from captioning import workers
from captioning.drawings import pen
from captioning.drawings.molecules import BadMolecule, Molecule, identify
from captioning.drawings.scans import ScanSettings, scan
from captioning.drawings.styles import StyleSettings, choose
from captioning.isolation import Crashed, Isolated
from captioning.outputs import whole_file
from captioning.params import Settings

PRELOAD = ["pyarrow.parquet"]
IDENTIFIED = pa.schema(
    {name: pa.string() for name in ("written", "smiles", "inchi", "inchikey", "skeleton")}
    | {"num_heavy_atoms": pa.int32(), "error": pa.string()}
)
"""Molecules as they were written and as they were understood; all but `written` and `error` null where it failed."""
PLANNED = pa.schema(
    {name: pa.string() for name in ("image_id", "smiles", "caption", "split", "error")} | {"copy": pa.int32()}
)
"""Pictures to be drawn, in order; those with an `error` are not."""
DRAWN = pa.schema(dict.fromkeys(("image_id", "archive", "member", "caption", "split", "error"), pa.string()))
"""What became of them; archive and member are empty where `error` is not."""
SECONDS = b"max_seconds"
"""Key in a table's metadata: how long a molecule might take."""
TOO_SLOW = "too-slow"


class DrawingSettings(Settings):
    """Everything that decides the pixels of a molecule's pictures."""

    seed: int
    style: StyleSettings
    scan: ScanSettings


@dataclass(frozen=True, kw_only=True)
class NamePiece:
    """Molecules as written, to be identified into the table `path`."""

    path: Path
    written: list[str]
    max_seconds: float


@dataclass(frozen=True, kw_only=True)
class DrawPiece:
    """A row group of a plan (`PLANNED`), to be drawn into the zip file `archive` and the table `path` (`DRAWN`)."""

    path: Path
    archive: Path
    plan: Path
    row_group: int
    settings: DrawingSettings
    max_seconds: float


@dataclass(frozen=True, kw_only=True)
class Order:
    """One picture to be drawn."""

    smiles: str
    copy: int
    settings: DrawingSettings


def run(function: Callable[[Any], Path], pieces: Iterable[Any]) -> Generator[Path, None, None]:
    """Yield what `function` gives for each piece; a single one is worked on here, sooner than a process starts."""
    waiting = iter(pieces)
    first = list(itertools.islice(waiting, 2))
    if len(first) < 2:
        yield from map(function, first)
        return
    yield from workers.run(function, itertools.chain(first, waiting), preload=PRELOAD)


@functools.cache
def _isolated(function: Callable[[Any], Any], max_seconds: float) -> Isolated[Any, Any]:
    """Return the child process of this worker for `function`, which starts when it is first called."""
    return Isolated(function, max_seconds=max_seconds)


def _attempt(function: Callable[[Any], Any], argument: Any, max_seconds: float) -> tuple[Any, str]:
    """Return what the function gives and no error, or nothing and the error."""
    try:
        return _isolated(function, max_seconds)(argument), ""
    except Crashed as error:
        return None, f"{error.reason}: RDKit {error}"
    except BadMolecule as error:
        return None, f"no-molecule: {error}"
    except Exception as error:  # of RDKit, in whatever form
        return None, f"undrawable: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def name_piece(piece: NamePiece) -> Path:
    """Identify the molecules of a piece, unless that was done; return the piece's table."""
    if is_finished(piece.path, piece.max_seconds):
        return piece.path
    rows = []
    for written in piece.written:
        molecule, error = _attempt(identify, written, piece.max_seconds)
        known = molecule._asdict() if molecule else dict.fromkeys(Molecule._fields)
        rows.append({"written": written, **known, "error": error})
    _write(pa.Table.from_pylist(rows, IDENTIFIED), piece.path, piece.max_seconds)
    return piece.path


def draw_piece(piece: DrawPiece) -> Path:
    """Draw the pictures of a piece, unless that was done; return the piece's table."""
    if is_finished(piece.path, piece.max_seconds) and piece.archive.exists():
        return piece.path
    planned = pq.ParquetFile(piece.plan).read_row_group(piece.row_group).to_pylist()
    rows = []
    with whole_file(piece.archive) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive:
        for row in planned:
            encoded, error = None, row["error"]
            if not error:
                order = Order(smiles=row["smiles"], copy=row["copy"], settings=piece.settings)
                encoded, error = _attempt(draw, order, piece.max_seconds)
            place = {"archive": "", "member": ""}
            if encoded is not None:
                place = {"archive": piece.archive.name, "member": f"{row['image_id']}.png"}
                archive.writestr(zipfile.ZipInfo(place["member"]), encoded)  # ZipInfo is dated 1980
            rows.append({**row, **place, "error": error})
    _write(pa.Table.from_pylist(rows, DRAWN), piece.path, piece.max_seconds)
    return piece.path


def _write(table: pa.Table, path: Path, max_seconds: float) -> None:
    with whole_file(path) as aside:
        pq.write_table(table.replace_schema_metadata(given(max_seconds)), aside)


def given(max_seconds: float) -> dict[bytes, bytes]:
    """Return what a table says of how long a molecule might take."""
    return {SECONDS: repr(max_seconds).encode()}


def is_finished(path: Path, max_seconds: float) -> bool:
    """Return whether a table is there; one with molecules that took too long only if no other time is given now."""
    if not path.exists():
        return False
    table = pq.read_table(path, columns=["error"])
    is_as_given = given(max_seconds).items() <= (table.schema.metadata or {}).items()
    return is_as_given or not any(error.startswith(TOO_SLOW) for error in table["error"].to_pylist())


def draw(order: Order) -> bytes:
    """Return a picture as a PNG file; it depends on the settings, the molecule and the number of the copy alone."""
    settings = order.settings
    random = Random(f"drawing/{settings.seed}/{order.copy}/{order.smiles}")
    style = choose(settings.style, random)
    molecule = pen.lay_out(order.smiles, style, random)
    gray = pen.draw(molecule, style)
    num_bonds = molecule.GetNumBonds()
    image = scan(gray, settings.scan, random, num_bonds=num_bonds, bond_pixels=style.bond_pixels)
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    return encoded.getvalue()
