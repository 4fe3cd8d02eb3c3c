"""The path of the tables, without the pictures, at any number of images: what each step takes in time and memory.

    python -m bench.scale 2400000 10000000

Five captions an image. Raw tables and measurements are made up; clean, split, validate and the plan of preprocess are
the real ones, each in a process of its own. 10 million images take half an hour on two cores and 25 GB of disk.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from captioning import params, splits
from captioning.cleaning import measurements
from captioning.cleaning import tables as tables_of_clean
from captioning.downloads.parts import ROW_SCHEMA
from captioning.downloads.raw import CAPTION_SCHEMA
from captioning.gates import judge_tables
from captioning.home import work
from captioning.preprocessing.plan import write_plan
from captioning.progress import in_bytes

STEPS = ("clean", "split", "validate", "plan")
CAPTIONS_PER_IMAGE = 5
ROWS_PER_GROUP = 100_000
NUM_WORDS = 20_000
RECIPE = Path("recipes/flickr8k-attention.yaml")


def _numbers(num_images: int) -> Iterator[np.ndarray]:
    for start in range(0, num_images, ROWS_PER_GROUP):
        yield np.arange(start, min(start + ROWS_PER_GROUP, num_images))


def _texts(values: list[str] | np.ndarray) -> pa.Array:
    return pa.array(values, pa.string())


def write_raw(folder: Path, num_images: int) -> None:
    """Write rows.parquet and captions.parquet of made-up photographs."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    words = np.array([f"word{number}" for number in range(NUM_WORDS)])
    frequencies = np.cumsum(1 / np.arange(1, NUM_WORDS + 1))
    with (
        pq.ParquetWriter(folder / "rows.parquet", ROW_SCHEMA) as rows,
        pq.ParquetWriter(folder / "captions.parquet", CAPTION_SCHEMA) as captions,
    ):
        for numbers in _numbers(num_images):
            ids = [f"{number:012d}" for number in numbers]
            stated = {
                "image_id": ids,
                "source": ["simulated"] * len(ids),
                "archive": [f"images-{number // 10_000:05d}.zip" for number in numbers],
                "member": [f"{own}.jpg" for own in ids],
                "split": np.array(["train", "val", "test"])[
                    np.searchsorted([0.9, 0.95], random.random(len(ids)))
                ],
                "status": ["ok"] * len(ids),
                "num_bytes": numbers,
            }
            empty = [""] * len(ids)
            rows.write_table(
                pa.table({name: stated.get(name, empty) for name in ROW_SCHEMA.names}, ROW_SCHEMA)
            )
            drawn = words[
                np.searchsorted(
                    frequencies, random.random((len(ids) * CAPTIONS_PER_IMAGE, 10)) * frequencies[-1]
                )
            ]
            said = {
                "image_id": np.repeat(ids, CAPTIONS_PER_IMAGE),
                "position": np.tile(np.arange(CAPTIONS_PER_IMAGE, dtype=np.int32), len(ids)),
                "caption": [" ".join(own) for own in drawn],
            }
            captions.write_table(pa.table(said, CAPTION_SCHEMA))


def measure_nothing(raw: Path, folder: Path, *_: Any, **__: Any) -> None:
    """Stand for `measure_images`: the same tables, made up."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(1)
    first = 0
    with pq.ParquetFile(raw / "rows.parquet", pre_buffer=False) as table:
        for part, batch in enumerate(
            table.iter_batches(measurements.ROWS_PER_PART, columns=measurements.STATED)
        ):
            num = len(batch)
            made = {
                "row": np.arange(first, first + num),
                "width": random.integers(300, 700, num),
                "height": random.integers(300, 700, num),
                "mode": ["RGB"] * num,
                "num_bytes": random.integers(10_000, 300_000, num),
                "sha256": [random.bytes(32).hex() for _ in range(num)],
                "pixel_mean": random.uniform(60, 180, num),
                "pixel_deviation": random.uniform(30, 80, num),
                "phash": [random.bytes(8).hex() for _ in range(num)],
            }
            empty = _texts([""] * num)
            columns = {
                name: batch[name] if name in measurements.STATED else made.get(name, empty)
                for name in measurements.MEASURED.names
            }
            typed = [pa.array(columns[field.name]).cast(field.type) for field in measurements.MEASURED]
            pq.write_table(
                pa.Table.from_arrays(typed, schema=measurements.MEASURED), measurements._path(folder, part)
            )
            first += num


def run_step(step: str, folder: Path) -> None:
    """Do one step on the tables in `folder`."""
    sections = {"clean": "clean", "split": "split", "validate": "validate", "plan": "preprocess"}
    # Of one section alone: to check the others would import torch, which takes more memory than these steps do.
    settings: Any = params._parse(sections[step], params.read(RECIPE)[sections[step]])
    raw, clean, split = folder / "raw", folder / "clean", folder / "splits"
    if step == "clean":
        tables_of_clean.measure_images = measure_nothing
        tables_of_clean.clean(raw, clean, settings)
    elif step == "split":
        splits.write_splits(clean, split, settings)
    elif step == "validate":
        judgement = judge_tables(raw, clean, split, settings)
        print(f"validate: {len(judgement.findings)} expectations", file=sys.stderr)
    else:
        own = settings.model_copy(update={"images_per_shard": 8192})
        write_plan(clean, split, folder / "plan", own)


def measure(num_images: int) -> None:
    """Print the time and the peak memory of each step."""
    with tempfile.TemporaryDirectory(dir=work("bench")) as name:
        folder = Path(name).resolve()
        write_raw(folder / "raw", num_images)
        for step in STEPS:
            command = [sys.executable, "-m", "bench.scale", step, str(folder)]
            began = time.monotonic()
            process = subprocess.Popen(command, env={**os.environ, "CAPTIONING_HOME": str(folder / "home")})
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            seconds = time.monotonic() - began
            if process.returncode:
                sys.exit(
                    f"{step} ended with code {process.returncode} at {num_images:,} images after {seconds:.0f} s"
                )
            used = shutil.disk_usage(folder).free
            print(
                f"| {num_images:,} | {step} | {seconds:,.0f} s | {1e6 * seconds / num_images:,.1f} us "
                f"| {in_bytes(usage.ru_maxrss * 1024)} | {in_bytes(_size(folder))} | {in_bytes(used)} |",
                flush=True,
            )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Measure each number of images of the command line, or do one step of one."""
    first, *rest = sys.argv[1:] or ["2400000"]
    if first in STEPS:
        run_step(first, Path(rest[0]))
        return
    print(
        "| images | step | time | an image | peak memory | tables so far | disk left |\n|---|---|---|---|---|---|---|"
    )
    for num_images in (first, *rest):
        measure(int(num_images))


if __name__ == "__main__":
    main()
