"""Drawings of molecules by RDKit, the caption an InChI or SMILES: from a file of SMILES, or of molecules made up here.

A molecule decides its split by its skeleton, so that no molecule, tautomer, stereoisomer or salt of one is in two
splits, and another molecule in the file moves none. A picture depends on the seed, the molecule and the number of the
copy alone. RDKit cannot draw every molecule and crashes on some: those become failed rows.

Drawing takes all processors and goes on where an interrupted run ended; docs/molecules.md says how long it takes.
Memory grows by some hundred bytes a molecule.
"""

import hashlib
import itertools
import json
import shutil
import sys
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import rdkit
from pydantic import Field, field_validator, model_validator

from captioning import drawings, isolation, tables
from captioning.datasets import MADE, DatasetSettings, Fetch, Source
from captioning.drawings.fragments import make_up
from captioning.drawings.making import (
    PLANNED,
    DrawingSettings,
    DrawPiece,
    NamePiece,
    draw_piece,
    given,
    is_finished,
    name_piece,
    run,
)
from captioning.drawings.scans import ScanSettings
from captioning.drawings.styles import StyleSettings
from captioning.fingerprints import code_identity, file_identity, fingerprint
from captioning.formats.caption_tables import read_rows
from captioning.formats.sources import address
from captioning.outputs import whole_file
from captioning.params import Settings as PartSettings
from captioning.progress import progress, say
from captioning.records import Pair

LICENSE = (
    "drawn by this program: public domain (CC0-1.0) where the molecules are made up here; those of a file are their "
    "owner's. The letters are of fonts that RDKit and matplotlib bring, free to draw with: Telex, Comic Neue and STIX "
    "(OFL-1.1), FreeSans (GPL-3.0 with font exception), DejaVu (Bitstream Vera license)"
)
CITATION = "captioning/drawings; RDKit: Open-source cheminformatics, https://www.rdkit.org"

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
LINE_SUFFIXES = (".txt", ".smi")
NAMES_PER_PIECE = 1000
"""Molecules that a worker identifies at a time."""
NAMED = "named"
"""Folder for molecules that are identified, until all are."""
MOST_IN_VAIN = 50
"""Molecules made up for each one wanted; when so few are new there are no more of that size."""


class HeavyAtoms(PartSettings):
    """How many atoms but hydrogens a molecule has."""

    min: int = Field(ge=1)
    max: int = Field(ge=1)


class Shares(PartSettings):
    """Shares of the skeletons, which add up to 1."""

    train: float = Field(gt=0, lt=1)
    val: float = Field(gt=0, lt=1)
    test: float = Field(ge=0, lt=1)

    @model_validator(mode="after")
    def _are_whole(self) -> "Shares":
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train, val and test add up to {total:g}, expected 1")
        return self


class Copies(PartSettings):
    """Pictures of each molecule."""

    train: int = Field(ge=1)
    val: int = Field(ge=1)
    test: int = Field(ge=1)


class Settings(DatasetSettings):
    """Which molecules, how they are drawn, and what is written under them."""

    source: str | None
    """File of SMILES, an address or a path: .csv, .tsv, .jsonl or .parquet with a column, .txt or .smi with one at the
    beginning of each line. null makes molecules up."""
    smiles_column: str | None
    """Of a file with columns; null for .txt, .smi and where there is no file."""
    num_molecules: int | None = Field(ge=1)
    """At most so many, the first of the file; null is all. Where molecules are made up: so many."""
    heavy_atoms: HeavyAtoms
    """Other molecules are left out."""
    caption: Literal["inchi", "smiles"]
    """Standard InChI, or SMILES in RDKit's canonical form."""
    shares: Shares
    copies: Copies
    seed: int = Field(ge=0)
    """Of made-up molecules and of all drawing; not of the splits."""
    style: StyleSettings
    scan: ScanSettings

    @field_validator("source")
    @classmethod
    def _is_a_file(cls, source: str | None) -> str | None:
        if source is not None and _suffix(source) not in (*TABLE_SUFFIXES, *LINE_SUFFIXES):
            known = ", ".join((*TABLE_SUFFIXES, *LINE_SUFFIXES))
            raise ValueError(f"{source!r} is no file of SMILES: expected a name that ends with {known}")
        return source

    @model_validator(mode="after")
    def _belong_together(self) -> "Settings":
        if self.source is None and self.num_molecules is None:
            raise ValueError("num_molecules is null, and without a source there is no end of molecules")
        needs_column = self.source is not None and _suffix(self.source) in TABLE_SUFFIXES
        if needs_column != (self.smiles_column is not None):
            expected = "the name of a column" if needs_column else "null: there are no columns"
            raise ValueError(
                f"smiles_column is {self.smiles_column!r} for source {self.source!r}; expected {expected}"
            )
        if self.heavy_atoms.min > self.heavy_atoms.max:
            raise ValueError(f"heavy_atoms: min {self.heavy_atoms.min} is above max {self.heavy_atoms.max}")
        return self


def sources(settings: Settings) -> Iterator[Source]:
    """Yield the file, if there is one."""
    if settings.source is not None:
        yield Source(place=settings.source, kind="list")


def prepare(folder: Path, settings: Settings, fetch: Fetch) -> None:
    """Identify the molecules and draw them, but for what an interrupted run had done of the same."""
    if settings.source is not None:
        fetch(address(settings.source), folder / _file(settings), None)
    made = _begin(folder, settings)
    plan = made / "plan.parquet"
    if not is_finished(plan, settings.max_image_seconds):
        for left in made.glob("drawings-*"):  # of another plan
            left.unlink()
        _write_plan(folder, made, settings)
    shutil.rmtree(made / NAMED, ignore_errors=True)
    pieces = list(_draw_pieces(made, plan, settings))
    for _ in progress(run(draw_piece, pieces), total=len(pieces), what="molecules: drawing", unit="archives"):
        pass
    if settings.source is not None:
        (folder / _file(settings)).unlink()


def read_pairs(folder: Path, settings: Settings) -> Iterator[Pair]:
    """Yield the pictures in the order of the molecules, the copies of one after the other."""
    made = folder / MADE
    for piece in _draw_pieces(made, made / "plan.parquet", settings):
        for row in pq.read_table(piece.path).to_pylist():
            yield Pair(
                image_id=row["image_id"],
                archive=row["archive"] and f"{MADE}/{row['archive']}",
                member=row["member"],
                captions=(row["caption"],) if row["caption"] else (),
                split=row["split"],
                license="CC0-1.0" if settings.source is None else "",
                error=row["error"],
            )


def _suffix(source: str) -> str:
    return PurePosixPath(urlsplit(source).path).suffix.lower()


def _file(settings: Settings) -> str:
    assert settings.source is not None
    return f"smiles{_suffix(settings.source)}"


def _begin(folder: Path, settings: Settings) -> Path:
    """Return the folder of what is made, emptied where an interrupted run made it of something else."""
    made = folder / MADE
    stated = settings.model_dump(exclude={*DatasetSettings.model_fields} - {"limit", "images_per_archive"})
    code = code_identity(drawings, isolation, sys.modules[__name__])
    source = file_identity(folder / _file(settings)) if settings.source is not None else ""
    identity = json.dumps({"rdkit": rdkit.__version__, "made_of": fingerprint(stated, code, source)}) + "\n"
    note = made / "identity.json"
    if not note.exists() or note.read_text() != identity:
        shutil.rmtree(made, ignore_errors=True)
        (made / NAMED).mkdir(parents=True)
        note.write_text(identity)
    return made


def _draw_pieces(made: Path, plan: Path, settings: Settings) -> Iterator[DrawPiece]:
    own = DrawingSettings(seed=settings.seed, style=settings.style, scan=settings.scan)
    for number in range(pq.read_metadata(plan).num_row_groups):
        yield DrawPiece(
            path=made.resolve() / f"drawings-{number:05d}.parquet",
            archive=made.resolve() / f"drawings-{number:05d}.zip",
            plan=plan.resolve(),
            row_group=number,
            settings=own,
            max_seconds=settings.max_image_seconds,
        )


def _write_plan(folder: Path, made: Path, settings: Settings) -> None:
    """Write the pictures to be drawn; each row group becomes an archive."""
    (made / NAMED).mkdir(exist_ok=True)
    left_out: Counter[str] = Counter()
    names = _names(folder, made, settings)
    planned = _planned(_molecules(names, settings, left_out), settings)
    with whole_file(made / "plan.parquet") as aside:
        rows = itertools.islice(planned, settings.limit)
        batches = iter(lambda: list(itertools.islice(rows, NAMES_PER_PIECE)), [])
        schema = PLANNED.with_metadata(given(settings.max_image_seconds))
        tables.write(
            (pa.RecordBatch.from_pylist(batch, PLANNED) for batch in batches),
            aside,
            schema,
            rows_per_group=settings.images_per_archive,
        )
    names.close()
    for reason, count in sorted(left_out.items()):
        say(f"molecules: {count:,} left out: {reason}")


def _names(folder: Path, made: Path, settings: Settings) -> Generator[Path, None, None]:
    """Yield tables of identified molecules: all of the file, or as many made-up ones as are asked for."""
    if settings.source is not None:
        yield from run(name_piece, _name_pieces("file", _read_smiles(folder, settings), made, settings))
        return
    atoms, first, num_wanted = settings.heavy_atoms, 0, int(settings.num_molecules or 0)
    num_more = num_wanted
    while first < MOST_IN_VAIN * num_wanted:  # some are there already
        texts = (
            make_up(settings.seed, index, min_heavy_atoms=atoms.min, max_heavy_atoms=atoms.max)
            for index in range(first, first + num_more)
        )
        yield from run(name_piece, _name_pieces(f"from-{first}", texts, made, settings))
        first, num_more = first + num_more, num_wanted // 4 + 1


def _name_pieces(name: str, written: Iterator[str], made: Path, settings: Settings) -> Iterator[NamePiece]:
    groups = iter(lambda: list(itertools.islice(written, NAMES_PER_PIECE)), [])
    for number, group in enumerate(groups):
        path = made.resolve() / NAMED / f"{name}-{number:06d}.parquet"
        yield NamePiece(path=path, written=group, max_seconds=settings.max_image_seconds)


def _read_smiles(folder: Path, settings: Settings) -> Iterator[str]:
    path, column = folder / _file(settings), settings.smiles_column
    if column is not None:
        for row in read_rows(path, str(settings.source), key=column, caption=column):
            yield row.key
        return
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        yield from (line.split()[0] for line in file if line.strip())


def _molecules(names: Iterable[Path], settings: Settings, left_out: Counter[str]) -> Iterator[dict[str, Any]]:
    """Yield the molecules that are wanted, each once, and what could not be identified; count the others."""
    atoms, seen, num_wanted = settings.heavy_atoms, set[bytes](), 0
    for row in _rows(names):
        digest = hashlib.blake2b((row["inchi"] or row["written"]).encode(), digest_size=8).digest()
        if digest in seen:
            left_out["there already"] += 1
        elif not row["error"] and not atoms.min <= row["num_heavy_atoms"] <= atoms.max:
            left_out[f"not of {atoms.min} to {atoms.max} heavy atoms"] += 1
        else:
            seen.add(digest)
            yield row
            num_wanted += not row["error"]
        if num_wanted == settings.num_molecules:
            return
    if settings.source is None:
        raise ValueError(
            f"only {num_wanted:,} of {settings.num_molecules:,} molecules of {atoms.min} to {atoms.max} heavy atoms "
            "could be made up: lower download.num_molecules or raise download.heavy_atoms.max"
        )


def _rows(names: Iterable[Path]) -> Iterator[dict[str, Any]]:
    for path in names:
        yield from pq.read_table(path).to_pylist()


def _planned(molecules: Iterable[dict[str, Any]], settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield a row of `PLANNED` for each picture."""
    for row in molecules:
        if row["error"]:
            digest = hashlib.sha256(row["written"].encode()).hexdigest()
            unknown = {"image_id": f"smiles-{digest[:16]}", "smiles": row["written"], "caption": ""}
            yield {**unknown, "split": "", "error": row["error"], "copy": 0}
            continue
        split = find_split(row["skeleton"], settings.shares)
        for copy in range(getattr(settings.copies, split)):
            yield {
                "image_id": f"{row['inchikey']}-{copy}",
                "smiles": row["smiles"],
                "caption": row[settings.caption],
                "split": split,
                "error": "",
                "copy": copy,
            }


def find_split(skeleton: str, shares: Shares) -> str:
    """Return the split of all molecules of a skeleton, which depends on nothing else but the shares."""
    digest = hashlib.blake2b(skeleton.encode(), digest_size=8, key=b"molecules").digest()
    position = int.from_bytes(digest, "big") / 2**64
    until_val = shares.train + shares.val
    return "train" if position < shares.train else "val" if position < until_val else "test"
