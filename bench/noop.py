"""`dvc repro` with nothing to do, at the size of 2.4 million images."""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.comparison import Comparison

NUM_IMAGES, CAPTIONS_PER_IMAGE = 2_400_000, 5
NUM_SHARDS, NUM_ARCHIVES = 293, 240
FILE_BYTES = 25_000_000
"""Of a shard or archive: DVC looks at a file's size and time, so that its content may be shorter than real."""
TARGET_SECONDS = 10.0
NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv", ".dvc", "data", "models", "reports", "mlruns", ".work", "tmp*"
)


def noop_repro() -> Comparison:
    """Measure a `dvc repro` that finds everything done, against the time allowed."""
    with tempfile.TemporaryDirectory() as name:
        project = Path(name) / "project"
        shutil.copytree(".", project, ignore=NOT_COPIED)
        subprocess.run(["git", "init", "--quiet", str(project)], check=True)
        (project / ".dvc").mkdir()
        shutil.copyfile(".dvc/config", project / ".dvc" / "config")
        _dvc(project, "config", "cache.type", "hardlink,symlink")
        _write_outputs(project)
        _dvc(project, "commit", "--force", "--quiet")
        times = []
        for _ in range(5):
            began = time.perf_counter()
            printed = _dvc(project, "repro")
            times.append(time.perf_counter() - began)
            assert "Running stage" not in printed, printed
    return Comparison(
        value=statistics.median(times),
        baseline=TARGET_SECONDS,
        unit="s",
        what=f"dvc repro without changes at {NUM_IMAGES:,} images, {NUM_SHARDS} shards, against the time allowed",
        target=1.0,
        is_rate=False,
    )


def _dvc(project: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    environment = {**os.environ, "CAPTIONING_HOME": str(project)}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"dvc {' '.join(arguments)} failed:\n{done.stderr}")
    return done.stdout


def _write_outputs(project: Path) -> None:
    """Put something of the right number and size where each stage writes."""
    from dvc.repo import Repo

    (project / "weights").mkdir(exist_ok=True)
    with Repo(str(project)) as repo:
        outs = [Path(out.fs_path) for stage in repo.index.stages for out in stage.outs]
    for out in outs:
        if out.suffix:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text("{}\n")
        else:
            out.mkdir(parents=True)
            (out / "content").write_text(out.name)
    for number in range(NUM_ARCHIVES):
        _write_file(project / "data" / "raw" / f"images-{number:05d}.zip", number)
    for number in range(NUM_SHARDS):
        _write_file(project / "data" / "examples" / f"train-{number:05d}-of-{NUM_SHARDS:05d}.h5", number)
    for table in ("raw/rows", "clean/images", "splits/images"):
        _write_table(project / "data" / f"{table}.parquet", NUM_IMAGES)
    for table in ("raw/captions", "clean/captions"):
        _write_table(project / "data" / f"{table}.parquet", NUM_IMAGES * CAPTIONS_PER_IMAGE)


def _write_file(path: Path, seed: int) -> None:
    path.write_bytes(np.random.default_rng(seed).bytes(FILE_BYTES))


def _write_table(path: Path, num_rows: int) -> None:
    numbers = pa.array(np.arange(num_rows))
    pq.write_table(pa.table({"image_id": numbers.cast(pa.string()), "value": numbers}), path)
