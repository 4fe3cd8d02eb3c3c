"""An epoch of Show, Attend and Tell with a frozen ResNet101 against training it as a popular tutorial does.

Both sides: 256 x 256 pixels, soft attention, everything 512 wide, a vocabulary of 9,490, float32, Flickr8k's captions.
The other side runs the encoder at every step, has one caption a row, enlarges the grid to 14 x 14, and steps an
`LSTMCell` with the attention's keys, the gate and the output layer inside the loop.
"""

import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from bench.comparison import Comparison, alternately
from bench.photographs import settings, shared, write_tables
from bench.random_weights import calibrate
from bench.tutorial import TutorialDecoder, tutorial_encoder
from captioning import params
from captioning.captioner import Captioner
from captioning.examples import Examples
from captioning.features import cached_features
from captioning.home import work
from captioning.images import PixelTransform
from captioning.preprocessing import write_examples
from captioning.training import TrainSettings
from captioning.training.phases import Phase
from captioning.training.schedules import Moment
from captioning.vocabulary import Vocabulary

NUM_IMAGES, BATCH_SIZE, TUTORIAL_BATCH_SIZE = 256, 64, 32
WIDTH, VOCABULARY_SIZE, EPOCHS = 512, 9490, 10
STEPS = 3
"""Timed in a row on either side."""
RECIPE = Path("recipes/flickr8k-attention.yaml")


@contextmanager
def training_examples(num_images: int = NUM_IMAGES) -> Iterator[Examples]:
    """Yield real photographs with the captions of others, five each, as training reads them."""
    annotations = shared("flickr8k/dataset_flickr8k.json")
    images = json.loads(annotations.read_text())["images"][:num_images]
    said = [sentence["raw"] for image in images for sentence in image["sentences"][:5]]
    with tempfile.TemporaryDirectory(dir=work("bench")) as name:
        folder = Path(name)
        write_tables(folder, num_images)
        rows = {
            "image_id": [f"{number // 5:09d}" for number in range(len(said))],
            "position": pa.array([number % 5 for number in range(len(said))], pa.int32()),
            "caption": said,
        }
        pq.write_table(pa.table(rows), folder / "clean" / "captions.parquet")
        places = {
            "image_id": [f"{number:09d}" for number in range(num_images)],
            "split": ["train"] * (num_images - 1) + ["val"],
        }
        pq.write_table(pa.table(places), folder / "splits" / "images.parquet")
        write_examples(
            folder / "raw", folder / "clean", folder / "splits", folder / "examples", settings(1024)
        )
        words = Vocabulary.load(folder / "examples" / "vocabulary.json").words
        more = [f"word{number}" for number in range(VOCABULARY_SIZE - len(words))]
        Vocabulary([*words, *more]).save(folder / "examples" / "vocabulary.json")
        yield Examples(folder / "examples", "train")


def _tutorial(examples: Examples) -> Callable[[], float]:
    """Return what trains some steps as the tutorial does and says how many captions a second that is."""
    encoder = tutorial_encoder()
    decoder = TutorialDecoder(WIDTH, VOCABULARY_SIZE)
    calibrate(encoder, torch.from_numpy(examples.images(range(16))).float() / 255)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=4e-4)
    pairs = itertools.cycle(range(5 * len(examples)))

    def step() -> int:
        rows = [next(pairs) for _ in range(TUTORIAL_BATCH_SIZE)]
        captions = [torch.from_numpy(examples.tokens(row // 5)[row % 5]).long() for row in rows]
        order = sorted(range(len(rows)), key=lambda row: -len(captions[row]))
        lengths = [len(captions[row]) + 1 for row in order]
        tokens_NT, targets_NT = torch.zeros(2, len(rows), max(lengths), dtype=torch.long)
        for row, own in enumerate(order):
            tokens_NT[row, 1 : lengths[row]] = targets_NT[row, : lengths[row] - 1] = captions[own]
            tokens_NT[row, 0], targets_NT[row, lengths[row] - 1] = 1, 2
        pixels = torch.from_numpy(examples.images(rows[own] // 5 for own in order)).float() / 255
        features = encoder(pixels).flatten(2).transpose(1, 2)
        scores, attentions = decoder(features, tokens_NT, lengths)
        packed, wanted = (
            pack_padded_sequence(own, lengths, batch_first=True).data for own in (scores, targets_NT)
        )
        loss = nn.functional.cross_entropy(packed, wanted) + (1 - attentions.sum(dim=1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return len(rows)

    return lambda: _rate(step)


def _ours(phase: Phase) -> Callable[[], float]:
    """Return what trains some steps with cached features and says how many captions a second that is."""
    batches = (batch for epoch in itertools.count() for batch in phase.batches(epoch, first_step=0))
    moment = Moment(step=1, steps_per_epoch=phase.steps_per_epoch, epochs=EPOCHS, history=[])

    def step() -> int:
        batch = next(batches)
        phase.step(batch, moment)
        return int((batch.lengths_N > 0).sum())

    return lambda: _rate(step)


def _rate(step: Callable[[], int]) -> float:
    began = time.perf_counter()
    num_captions = sum(step() for _ in range(STEPS))
    return num_captions / (time.perf_counter() - began)


def _phase(examples: Examples, features: Path) -> Phase:
    values = params.read(RECIPE)["train"]
    values["encoder"] |= {"name": "resnet101", "weights": "none"}
    widths = ("feature_width", "embedding_width", "attention_width", "hidden_width")
    values["decoder"] |= dict.fromkeys(widths, WIDTH)
    values["phases"] = [values["phases"][0] | {"batch_size": BATCH_SIZE, "precision": "float32"}]
    train = TrainSettings.model_validate(values)
    captioner = Captioner(
        encoder=train.encoder,
        decoder=train.decoder,
        vocabulary=Vocabulary.load(examples.folder / "vocabulary.json"),
        transform=PixelTransform.model_validate_json((examples.folder / "transform.json").read_text()),
    )
    captioner.train()
    return Phase(captioner, train.phases[0], examples, features=features, seed=0, reward=None)


def epoch_vs_tutorial() -> Comparison:
    """Measure an epoch with cached features against the tutorial's way of training the same model."""
    with training_examples() as examples, tempfile.TemporaryDirectory(dir=work("bench")) as name:
        phase = _phase(examples, Path(name))
        calibrate(phase.captioner.encoder, torch.from_numpy(examples.images(range(16))))
        began = time.perf_counter()
        cached_features(phase.captioner.encoder, examples, Path(name), phase.captioner.device)
        seconds_an_image = (time.perf_counter() - began) / len(examples)
        value, baseline = alternately(_ours(phase), _tutorial(examples), num_rounds=5)
    with_cache = 5 * EPOCHS / (seconds_an_image + 5 * EPOCHS / value)
    return Comparison(
        value=value,
        baseline=baseline,
        unit="captions/s",
        what=(
            "training with a frozen ResNet101 and soft attention; with the cache's cost over "
            f"{EPOCHS} epochs {with_cache:,.0f} captions/s, {with_cache / baseline:,.1f} times the other side"
        ),
        target=10,
    )
