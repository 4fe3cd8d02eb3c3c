"""Images at random out of pixel shards that are in the page cache."""

import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import torch

from bench.comparison import Comparison, alternately
from bench.photographs import SIDE_PIXELS
from captioning.decoding import pixel_reader
from captioning.examples import Examples
from captioning.home import work
from captioning.images import PixelTransform
from captioning.shards import ShardImage, write_shard

NUM_SHARDS, IMAGES_PER_SHARD, BATCH_SIZE = 8, 1024, 64


def _write(folder: Path) -> None:
    random = np.random.default_rng(0)
    entries = []
    for number in range(NUM_SHARDS):
        ids = [f"{number}-{position}" for position in range(IMAGES_PER_SHARD)]
        pixels = random.integers(0, 256, (3, SIDE_PIXELS, SIDE_PIXELS), dtype=np.uint8)
        images = (ShardImage(stored=pixels, tokens=[[5, 6, 7]]) for _ in ids)
        entries.append(write_shard(folder / f"train-{number:05d}.h5", images, ids))
    shards = ", ".join(
        f'{{"file": "{entry["file"]}", "num_images": {entry["num_images"]}}}' for entry in entries
    )
    (folder / "index.json").write_text(f'{{"splits": {{"train": {{"shards": [{shards}]}}}}}}')
    transform = PixelTransform(height=SIDE_PIXELS, width=SIDE_PIXELS)
    (folder / "transform.json").write_text(transform.model_dump_json())


def read_images() -> Comparison:
    """Measure training's own reader against h5py, one image at a time as a tutorial's data set reads."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=work("bench")) as name:
        folder = Path(name)
        _write(folder)
        examples = Examples(folder, "train")
        read = pixel_reader(examples, torch.device("cpu"))
        order = np.random.default_rng(0).permutation(len(examples))
        batches = [order[start : start + BATCH_SIZE] for start in range(0, len(order), BATCH_SIZE)]
        files = [h5py.File(path, "r") for path in sorted(folder.glob("*.h5"))]

        def ours() -> float:
            began = time.perf_counter()
            for batch in batches:
                read(np.sort(batch))
            return len(order) / (time.perf_counter() - began)

        def one_by_one() -> float:
            began = time.perf_counter()
            for batch in batches:
                torch.stack(
                    [
                        torch.from_numpy(files[i // IMAGES_PER_SHARD]["images"][i % IMAGES_PER_SHARD])
                        for i in batch
                    ]
                )
            return len(order) / (time.perf_counter() - began)

        value, baseline = alternately(ours, one_by_one)
    what = "random 256 x 256 images in batches of 64 from page cache, against h5py image by image"
    return Comparison(value=value, baseline=baseline, unit="images/s", what=what, target=1.0)
