"""All planned shards -> the examples, with the ledger of what is done, on all processors."""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from captioning import workers
from captioning.fingerprints import code_identity, file_identity, fingerprint
from captioning.home import work
from captioning.outputs import whole_folder
from captioning.preprocessing.making import make_shard, sample
from captioning.preprocessing.plan import REFERENCES, VOCABULARY, Piece, read_pieces, write_plan
from captioning.preprocessing.settings import PreprocessSettings
from captioning.progress import in_bytes, in_time, progress, say
from captioning.records import SPLITS

DECIDE_THE_BYTES = [f"captioning.{name}" for name in ("preprocessing", "shards", "images", "vocabulary")]
SPARE_SHARE = 0.05
"""Of the space needed, for what is written beside the images."""


def write_examples(
    raw: Path, clean: Path, splits: Path, folder: Path, settings: PreprocessSettings
) -> dict[str, int]:
    """Write the shards of every split into `folder`, which appears whole or not at all.

    Returns:
        The number of images of each split.

    Raises:
        ValueError: the tables do not belong together, an image cannot be read any more, or the disk is too small.
    """
    parts = work("preprocess", _fingerprint(clean, splits, settings)).resolve()
    with whole_folder(folder, resume_in=parts / "examples") as aside:
        plan = parts / "plan"
        if not plan.exists():
            write_plan(clean, splits, plan, settings)
        pieces = list(read_pieces(plan, aside, raw.resolve(), settings))
        _write_shards(pieces, folder, settings)
        indexed = _index(pieces)
        index = {"storage": settings.storage, "splits": indexed}
        (aside / "index.json").write_text(json.dumps(index, indent=1) + "\n")
        (aside / "transform.json").write_text(settings.image.model_dump_json(exclude_defaults=True) + "\n")
        for name in (VOCABULARY, REFERENCES):
            shutil.copyfile(plan / name, aside / name)
    shutil.rmtree(parts, ignore_errors=True)
    return {split: own["num_images"] for split, own in indexed.items()}


def _fingerprint(clean: Path, splits: Path, settings: PreprocessSettings) -> str:
    tables_read = [clean / "images.parquet", clean / "captions.parquet", splits / "images.parquet"]
    code = code_identity(*(sys.modules[name] for name in DECIDE_THE_BYTES))
    return fingerprint(settings.model_dump(), code, *map(file_identity, tables_read))


def _write_shards(pieces: Sequence[Piece], folder: Path, settings: PreprocessSettings) -> None:
    """Write the shards that the ledger lacks, on all processors."""
    missing = [piece for piece in pieces if not (piece.entry.exists() and piece.path.exists())]
    if not missing:
        return
    if len(missing) < len(pieces):
        say(
            f"preprocess: {len(pieces) - len(missing):,} of {len(pieces):,} shards are there from an earlier run"
        )
    missing[0].entry.parent.mkdir(exist_ok=True)
    num_images = sum(piece.num_images for piece in missing)
    cost = sample(missing[len(missing) // 2])
    _refuse_small_disk(num_images, cost.num_bytes * num_images, missing[0].path, folder)
    seconds = cost.seconds * num_images / workers.num_processes()
    say(
        f"preprocess: {num_images:,} images, {in_bytes(cost.num_bytes * num_images)}, about {in_time(seconds)} "
        f"on {workers.num_processes()} processors"
    )
    preload = ["torch"] if cost.needs_torch else []
    written = workers.run(make_shard, missing, preload=preload)
    for _ in progress(written, total=len(missing), what="preprocess", unit="shards"):
        pass


def _refuse_small_disk(num_images: int, num_bytes: float, shard: Path, folder: Path) -> None:
    needed = num_bytes * (1 + SPARE_SHARE)
    for place in {
        shard.parent.stat().st_dev: shard.parent,
        folder.parent.stat().st_dev: folder.parent,
    }.values():
        free = shutil.disk_usage(place).free
        if free < needed:
            raise ValueError(
                f"{num_images:,} images take {in_bytes(needed)} and {place} has {in_bytes(free)} free: free some "
                "space, set CAPTIONING_HOME to a folder on a larger disk, or make preprocess.image smaller or "
                "preprocess.storage jpeg"
            )


def _index(pieces: Sequence[Piece]) -> dict[str, dict[str, Any]]:
    """Return the number of images and captions of each split and the entries of its shards."""
    shards: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for piece in pieces:
        shards.setdefault(piece.split, []).append(json.loads(piece.entry.read_text()))
    return {
        split: {
            "num_images": sum(shard["num_images"] for shard in own),
            "num_captions": sum(shard["num_captions"] for shard in own),
            "shards": own,
        }
        for split, own in shards.items()
    }
