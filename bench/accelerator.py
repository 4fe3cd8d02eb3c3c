"""How fast an accelerator trains at COCO's shapes, and how long all of COCO would take on it.

    python -m bench.accelerator [--images 2048] [--steps 60] [--model resnet101 ...]

Random pixels, captions of COCO's lengths, five an image, a vocabulary of 10,000. Measured are feature extraction and
the steps of cross-entropy and of self-critical training with cached features, through the classes that training uses,
and the share of the time in which a step waits for its batch. The last column is their sum for 113,287 images: features
once, 10 epochs of cross-entropy, 9 of self-critical training. Needs neither photographs nor mlflow, dvc, prefect or
great_expectations.
"""

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from bench.random_weights import calibrate
from captioning import params
from captioning.captioner import Captioner
from captioning.distributed import device
from captioning.examples import Examples
from captioning.features import cached_features
from captioning.images import PixelTransform
from captioning.rewards import CiderReward
from captioning.shards import ShardImage, write_shard
from captioning.training.phases import Phase
from captioning.training.schedules import Moment
from captioning.training.settings import TrainSettings
from captioning.vocabulary import MARKERS, Vocabulary

COCO_IMAGES, CAPTIONS_PER_IMAGE, VOCABULARY_SIZE = 113_287, 5, 10_000
XE_EPOCHS, SCST_EPOCHS = 10, 9
WARM_UP_STEPS = 5
MODELS: dict[str, dict[str, Any]] = {
    "resnet101": {"recipe": "show-attend-tell", "side": 448},
    "swin_b": {"recipe": "transformer-self-critical", "side": 384},
}
"""Encoder -> the recipe whose decoder it is measured with, and the side of the images: grids of 14 x 14 and 12 x 12."""


def write_examples(folder: Path, num_images: int, side: int) -> None:
    """Write one train split of random pixels and words as frequent as words are."""
    random = np.random.default_rng(0)
    words = [f"word{number}" for number in range(VOCABULARY_SIZE - len(MARKERS))]
    Vocabulary([*MARKERS, *words]).save(folder / "vocabulary.json")
    transform = PixelTransform(height=side, width=side)
    (folder / "transform.json").write_text(transform.model_dump_json())
    lengths = np.clip(random.normal(10.5, 2.4, (num_images, CAPTIONS_PER_IMAGE)).round(), 6, 24).astype(int)
    ranks = random.zipf(1.3, int(lengths.sum())) % len(words) + len(MARKERS)
    said = iter(np.split(ranks.astype(np.int32), np.cumsum(lengths)[:-1]))
    captions = [[next(said) for _ in range(CAPTIONS_PER_IMAGE)] for _ in range(num_images)]
    ids = [f"{number:06d}" for number in range(num_images)]
    pixels = random.integers(0, 256, (num_images, 3, side, side), dtype=np.uint8)
    images = (
        ShardImage(stored=own, tokens=[tokens.tolist() for tokens in spoken])
        for own, spoken in zip(pixels, captions, strict=True)
    )
    entry = write_shard(folder / "train.h5", images, ids)
    counts = {"num_images": num_images, "num_captions": num_images * CAPTIONS_PER_IMAGE}
    index = {"storage": "pixels", "splits": {"train": {**counts, "shards": [entry]}}}
    (folder / "index.json").write_text(json.dumps(index))
    references = {
        "image_id": np.repeat(ids, CAPTIONS_PER_IMAGE),
        "split": ["train"] * len(lengths.flat),
        "caption": [
            " ".join(words[word - len(MARKERS)] for word in own) for own in itertools.chain(*captions)
        ],
    }
    pq.write_table(pa.table(references), folder / "references.parquet")


def measure(name: str, folder: Path, num_images: int, num_steps: int) -> None:
    """Print one row for an encoder and its decoder."""
    side = MODELS[name]["side"]
    write_examples(folder, num_images, side)
    examples = Examples(folder, "train")
    values = params.read(Path(f"recipes/{MODELS[name]['recipe']}.yaml"))["train"]
    values["encoder"] |= {"name": name, "weights": "none", "layer": None, "pooled": False}
    first = values["phases"][0] | {"batch_size": 64, "precision": "bfloat16"}
    first["encoder"] = {"train_from": None, "learning_rate": 0.0}
    scst = first | {"objective": {"name": "self_critical", "num_samples": 5, "max_words": 20}}
    settings = TrainSettings.model_validate(values | {"phases": [first, scst]})
    captioner = Captioner(
        encoder=settings.encoder,
        decoder=settings.decoder,
        vocabulary=Vocabulary.load(folder / "vocabulary.json"),
        transform=PixelTransform(height=side, width=side),
    ).to(device())
    calibrate(captioner.encoder, torch.from_numpy(examples.images(range(16))).to(device()))
    began = time.perf_counter()
    cached_features(captioner.encoder, examples, folder, device())
    features = len(examples) / (time.perf_counter() - began)
    reward = CiderReward(examples.references(), captioner.vocabulary)
    rates, waits = [], []
    for phase_settings in settings.phases:
        captioner.train()
        phase = Phase(captioner, phase_settings, examples, features=folder, seed=0, reward=reward)
        rate, wait = _steps(phase, num_steps)
        rates.append(rate)
        waits.append(wait)
    seconds = COCO_IMAGES * (1 / features + XE_EPOCHS / rates[0] + SCST_EPOCHS / rates[1])
    print(
        f"| {name} + {settings.decoder.model_dump()['name']} | {features:,.0f} | {CAPTIONS_PER_IMAGE * rates[0]:,.0f} "
        f"| {rates[1]:,.0f} | {waits[0]:.1%}, {waits[1]:.1%} | {seconds / 60:,.1f} min |",
        flush=True,
    )


def _steps(phase: Phase, num_steps: int) -> tuple[float, float]:
    """Return images a second, and the share of the time in which a step waits for its batch."""
    batches = (batch for epoch in itertools.count() for batch in phase.batches(epoch, first_step=0))
    moment = Moment(step=1, steps_per_epoch=phase.steps_per_epoch, epochs=10, history=[])
    for batch in itertools.islice(batches, WARM_UP_STEPS):
        phase.step(batch, moment)
    _wait_for_device()
    began, waited, num_images = time.perf_counter(), 0.0, 0
    for _ in range(num_steps):
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        phase.step(batch, moment)
        num_images += len(batch.image_ids)
    _wait_for_device()
    seconds = time.perf_counter() - began
    return num_images / seconds, waited / seconds


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    """Measure each model of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--model", nargs="*", choices=sorted(MODELS), default=sorted(MODELS))
    options = parser.parse_args()
    print(
        f"{torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'}, torch {torch.__version__}"
    )
    print("| model | features, images/s | XE, captions/s | SCST, images/s | waiting for data | all of COCO |")
    print("|---|---|---|---|---|---|")
    for name in options.model:
        with tempfile.TemporaryDirectory() as folder:
            measure(name, Path(folder), options.images, options.steps)


if __name__ == "__main__":
    main()
