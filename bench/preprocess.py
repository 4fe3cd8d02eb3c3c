"""Full-size JPEG files to 256 x 256 pixels in HDF5."""

import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import h5py
import numpy as np
import psutil
from PIL import Image

from bench.comparison import Comparison, alternately
from bench.decoders import rates
from bench.photographs import SIDE_PIXELS, photographs, settings, write_tables
from captioning import workers
from captioning.home import work
from captioning.preprocessing import write_examples
from captioning.preprocessing.making import make_shard
from captioning.preprocessing.plan import Piece, read_pieces, write_plan

GROWTH_SIZES = (10_000, 30_000, 50_000)
ROUNDS_OF_PHOTOS = 4
"""How often each photograph is in a shard that is timed."""


@contextmanager
def _pieces(num_images: int, images_per_shard: int) -> Iterator[list[Piece]]:
    """Yield the planned shards of the repeated photographs in a folder that lives as long as the block."""
    with tempfile.TemporaryDirectory(dir=work("bench")) as name:
        folder = Path(name).resolve()
        write_tables(folder, num_images)
        own = settings(images_per_shard)
        write_plan(folder / "clean", folder / "splits", folder / "plan", own)
        for part in ("ledger", "examples"):
            (folder / part).mkdir()
        yield list(read_pieces(folder / "plan", folder / "examples", folder / "raw", own))


@contextmanager
def _one_core() -> Iterator[None]:
    """Keep this process, and those that it starts, on one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _tutorial(photos: list[Path], path: Path) -> None:
    """Open, convert, resize and write one row an image, as a popular tutorial does."""
    with h5py.File(path, "w") as file:
        images = file.create_dataset("images", (len(photos), 3, SIDE_PIXELS, SIDE_PIXELS), dtype="uint8")
        for position, photo in enumerate(photos):
            with Image.open(photo) as image:
                resized = image.convert("RGB").resize((SIDE_PIXELS, SIDE_PIXELS), Image.Resampling.BILINEAR)
            images[position] = np.asarray(resized).transpose(2, 0, 1)


def _rate_of_ours(piece: Piece, num_images: int) -> float:
    piece.path.unlink(missing_ok=True)
    began = time.perf_counter()
    make_shard(piece)
    return num_images / (time.perf_counter() - began)


def preprocess_vs_tutorial() -> Comparison:
    """Measure one process of ours against a straight loop."""
    import torch

    torch.set_num_threads(1)
    photos = ROUNDS_OF_PHOTOS * photographs()
    with (
        _pieces(len(photos), len(photos)) as (piece,),
        tempfile.TemporaryDirectory(dir=work("bench")) as name,
    ):

        def tutorial() -> float:
            path = Path(name) / "images.h5"
            path.unlink(missing_ok=True)
            began = time.perf_counter()
            _tutorial(photos, path)
            return len(photos) / (time.perf_counter() - began)

        value, baseline = alternately(lambda: _rate_of_ours(piece, len(photos)), tutorial, num_rounds=9)
    what = "full-size photographs to 256 x 256 HDF5, one process, against a Pillow + h5py loop"
    return Comparison(value=value, baseline=baseline, unit="images/s", what=what, target=1.5)


def preprocess_vs_limit() -> Comparison:
    """Measure one process of ours against decoding and resizing alone, by the fastest library of good quality."""
    import torch

    torch.set_num_threads(1)
    num_images = ROUNDS_OF_PHOTOS * len(photographs())
    with _pieces(num_images, num_images) as (piece,):
        best = rates()
        value, baseline = alternately(lambda: _rate_of_ours(piece, num_images), best.measure, num_rounds=9)
    what = f"full-size photographs to 256 x 256 HDF5 against decoding and resizing alone with {best.name}"
    return Comparison(value=value, baseline=baseline, unit="images/s", what=what, target=0.8)


def preprocess_two_processes() -> Comparison:
    """Measure two processes against one, once they are up."""
    num_images = 64  # of a piece: so few that hardly a process waits for the other at the end
    with _pieces(8192, num_images) as pieces:

        def rate() -> float:
            num_started = 2 * workers.num_processes()
            done = workers.run(make_shard, chain(pieces[:num_started], pieces), preload=["torch"])
            for _ in range(num_started):
                next(done)
            began = time.perf_counter()
            return sum(num_images for _ in done) / (time.perf_counter() - began)

        def one() -> float:
            with _one_core():
                return rate()

        value, baseline = alternately(rate, one, num_rounds=3)
    return Comparison(
        value=value, baseline=baseline, unit="images/s", what="two processes against one", target=1.8
    )


def preprocess_growth() -> Comparison:
    """Measure what a further image costs between the larger and between the smaller two of three sizes."""
    seconds: dict[int, list[float]] = {size: [] for size in GROWTH_SIZES}
    peaks: dict[int, int] = {}
    for _ in range(3):
        for size in GROWTH_SIZES:
            with tempfile.TemporaryDirectory(dir=work("bench")) as name, _watched() as peak:
                folder = Path(name)
                write_tables(folder, size)
                began = time.perf_counter()
                write_examples(
                    folder / "raw", folder / "clean", folder / "splits", folder / "examples", settings(1024)
                )
                seconds[size].append(time.perf_counter() - began)
            peaks[size] = max(peak)
    small, middle, large = (statistics.median(seconds[size]) for size in GROWTH_SIZES)
    lower = (middle - small) / (GROWTH_SIZES[1] - GROWTH_SIZES[0])
    upper = (large - middle) / (GROWTH_SIZES[2] - GROWTH_SIZES[1])
    memory = ", ".join(f"{peak / 1e6:,.0f} MB at {size:,}" for size, peak in peaks.items())
    return Comparison(
        value=1e3 * upper,
        baseline=1e3 * lower,
        unit="ms/image",
        what=f"a further image at 50,000 against at 30,000; peak private memory of a worker {memory}",
        target=0.95,
        is_rate=False,
    )


@contextmanager
def _watched() -> Iterator[list[int]]:
    """Yield a list that fills with the largest private memory (USS, bytes) of any worker, sampled as they work."""
    peaks, ended, own = [0], threading.Event(), psutil.Process()

    def watch() -> None:
        while not ended.wait(0.5):
            for child in own.children(recursive=True):
                try:
                    peaks.append(child.memory_full_info().uss)
                except psutil.Error:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peaks
    finally:
        ended.set()
        watcher.join()
