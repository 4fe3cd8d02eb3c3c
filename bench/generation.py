"""Captions by beam search of width 5, ResNet101 and soft attention, against decoding as a popular tutorial does it.

Both sides: 256 x 256 pixels, a grid of 14 x 14 cells, everything 512 wide, a vocabulary of 9,490, float32, 11 words
forced, random weights. The other side has one image at a time, see `bench.tutorial`; ours is enlarged to the same grid.
"""

import time
from collections.abc import Callable
from functools import cache

import torch

from bench.comparison import Comparison, alternately, in_turns
from bench.photographs import SIDE_PIXELS
from bench.random_weights import calibrate
from bench.training import RECIPE, VOCABULARY_SIZE, WIDTH, training_examples
from bench.tutorial import TutorialDecoder, tutorial_encoder
from captioning import params
from captioning.captioner import Captioner
from captioning.evaluation import EvaluateSettings, evaluate
from captioning.generation import PLAIN_BEAM, generate
from captioning.images import PixelTransform
from captioning.training import TrainSettings
from captioning.vocabulary import MARKERS, Vocabulary

BATCH_SIZE, TUTORIAL_IMAGES = 32, 4
"""Images timed in a row on either side."""
CAPTIONS_PER_IMAGE = 5
EVALUATED_IMAGES = 256
GRID = 14
FORCED = PLAIN_BEAM.replaced(beam_width=5, min_words=11, max_words=11)


class _EnlargedCaptioner(Captioner):
    """A captioner whose features are enlarged to the tutorial's grid."""

    def features(self, inputs: torch.Tensor) -> torch.Tensor:
        features_BLD = super().features(inputs)
        height, width = self.encoder.grid
        features_BDHW = features_BLD.transpose(1, 2).unflatten(2, (height, width))
        return torch.nn.functional.adaptive_avg_pool2d(features_BDHW, GRID).flatten(2).transpose(1, 2)


def _captioner(vocabulary: Vocabulary) -> Captioner:
    values = params.read(RECIPE)["train"]
    values["encoder"] |= {"name": "resnet101", "weights": "none"}
    widths = ("feature_width", "embedding_width", "attention_width", "hidden_width")
    values["decoder"] |= dict.fromkeys(widths, WIDTH)
    train = TrainSettings.model_validate(values)
    captioner = _EnlargedCaptioner(
        encoder=train.encoder,
        decoder=train.decoder,
        vocabulary=vocabulary,
        transform=PixelTransform(height=SIDE_PIXELS, width=SIDE_PIXELS),
    )
    return captioner.eval()


def _words() -> Vocabulary:
    return Vocabulary([*MARKERS, *(f"word{number}" for number in range(VOCABULARY_SIZE - len(MARKERS)))])


def _rate(work: Callable[[], object], num_images: int) -> Callable[[], float]:
    """Return what works once and says how many images a second that is."""

    def measure() -> float:
        began = time.perf_counter()
        work()
        return num_images / (time.perf_counter() - began)

    return measure


def beam_decode_vs_tutorial() -> Comparison:
    """Measure decoding alone, of features that are there."""
    captioner = _captioner(_words())
    tutorial = TutorialDecoder(WIDTH, VOCABULARY_SIZE).eval()
    features_BLD = torch.rand(BATCH_SIZE, GRID * GRID, 2048)

    def ours() -> None:
        generate(captioner.decoder, features_BLD, captioner.vocabulary, FORCED, top=1)

    def other() -> None:
        for image in range(TUTORIAL_IMAGES):
            tutorial.caption(features_BLD[image : image + 1], beam_width=5, num_words=FORCED.max_words)

    value, baseline = alternately(_rate(ours, BATCH_SIZE), _rate(other, TUTORIAL_IMAGES))
    return Comparison(
        value=value,
        baseline=baseline,
        unit="images/s",
        what=f"beam 5 over features alone, {BATCH_SIZE} images at a time against one",
        target=8,
    )


@cache
def _with_encoder() -> dict[str, float]:
    """Return images a second of us, of our encoder alone, and of the tutorial, measured in turns and once."""
    captioner, encoder = _captioner(_words()), tutorial_encoder()
    tutorial = TutorialDecoder(WIDTH, VOCABULARY_SIZE).eval()
    pixels_BCHW = torch.randint(0, 256, (BATCH_SIZE, 3, SIDE_PIXELS, SIDE_PIXELS), dtype=torch.uint8)
    calibrate(captioner.encoder, pixels_BCHW[:8])
    captioner.encoder = captioner.encoder.folded()  # as that of a loaded captioner
    calibrate(encoder, pixels_BCHW[:8].float() / 255)

    @torch.inference_mode()
    def encoding() -> None:
        captioner.encoder(pixels_BCHW)

    @torch.inference_mode()
    def other() -> None:
        for image in range(TUTORIAL_IMAGES):
            features = encoder(pixels_BCHW[image : image + 1].float() / 255).flatten(2).transpose(1, 2)
            tutorial.caption(features, beam_width=5, num_words=FORCED.max_words)

    sides = {
        "ours": _rate(lambda: captioner.caption_pixels(pixels_BCHW, FORCED), BATCH_SIZE),
        "encoder": _rate(encoding, BATCH_SIZE),
        "tutorial": _rate(other, TUTORIAL_IMAGES),
    }
    return in_turns(sides)


def beam_vs_tutorial() -> Comparison:
    """Measure pixels to captions; no decoding, however fast, could be better than `bound` times."""
    rates = _with_encoder()
    bound = rates["encoder"] / rates["tutorial"]
    return Comparison(
        value=rates["ours"],
        baseline=rates["tutorial"],
        unit="images/s",
        what=f"beam 5, encoder included, {BATCH_SIZE} images at a time against one; the bound is {bound:.2f} times",
        target=0.8 * bound,
    )


def beam_vs_bound() -> Comparison:
    """Measure pixels to captions against the encoder alone."""
    rates = _with_encoder()
    return Comparison(
        value=rates["ours"],
        baseline=rates["encoder"],
        unit="images/s",
        what="beam 5, encoder included, against our encoder alone",
        target=0.8,
    )


def evaluate_vs_tutorial() -> Comparison:
    """Measure scoring a split; the tutorial decodes each image once a caption, and its scoring is not counted."""
    encoder, tutorial = tutorial_encoder(), TutorialDecoder(WIDTH, VOCABULARY_SIZE).eval()
    with training_examples(EVALUATED_IMAGES + 1) as examples:
        captioner = _captioner(Vocabulary.load(examples.folder / "vocabulary.json"))
        calibrate(captioner.encoder, torch.from_numpy(examples.images(range(8))))
        captioner.encoder = captioner.encoder.folded()  # as that of a loaded captioner
        calibrate(encoder, torch.from_numpy(examples.images(range(8))).float() / 255)
        values = params.read(RECIPE)["evaluate"] | {"split": "train", "metrics": ["bleu"]}
        settings = EvaluateSettings.model_validate(values | {"generation": FORCED})

        @torch.inference_mode()
        def other() -> None:
            for _ in range(CAPTIONS_PER_IMAGE):
                pixels = torch.from_numpy(examples.images([0])).float() / 255
                features = encoder(pixels).flatten(2).transpose(1, 2)
                tutorial.caption(features, beam_width=5, num_words=FORCED.max_words)

        value, baseline = alternately(
            _rate(lambda: evaluate(captioner, examples, settings), len(examples)),
            _rate(other, 1),
            num_rounds=3,
        )
    return Comparison(
        value=value,
        baseline=baseline,
        unit="images/s",
        what=f"a split of {EVALUATED_IMAGES} images decoded once each and scored, against decoding once a caption",
        target=10,
    )
