"""Every recipe learns: a real step of each of its phases and a caption, at its own widths, from its own encoder."""

import gc
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from captioning import lookup, params
from captioning.batches import Batch, collate
from captioning.captioner import Captioner
from captioning.datasets import DatasetSettings
from captioning.examples import Examples
from captioning.generation import PLAIN_BEAM, generate
from captioning.images import PixelTransform
from captioning.rewards import CiderReward
from captioning.training import TrainSettings
from captioning.training.phases import Phase
from captioning.training.schedules import Moment
from captioning.training.settings import TuningSettings
from captioning.vocabulary import MARKERS, Vocabulary

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
OF_NO_SYSTEM = {"molecules-small", "scenes", "your-pictures"}
"""Recipes that reproduce nothing that was published."""

VOCABULARY = Vocabulary([*MARKERS, *(f"word{number}" for number in range(9_996))])
NUM_IMAGES, NUM_CAPTIONS, NUM_WORDS = 2, 5, 10
KEY = re.compile(r"(?P<indent> *)(?P<dash>- )?(?P<key>\w+):(?P<value>.*?)(?: # (?P<comment>.*))?")


@pytest.fixture(params=RECIPES, ids=lambda path: path.stem)
def recipe(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    yield params.read(request.param)
    gc.collect()  # a traced encoder refers to itself: up to half a gigabyte would wait for the garbage collector


@pytest.fixture(scope="module")
def encoded() -> dict[tuple[object, ...], torch.Tensor]:
    """Features by encoder and size of the images: they take a second, and several recipes have the same."""
    return {}


def _captions() -> dict[str, list[str]]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, len(VOCABULARY), (NUM_IMAGES, NUM_CAPTIONS, NUM_WORDS), generator=generator)
    return {
        str(image): [VOCABULARY.decode(own) for own in captions.tolist()]
        for image, captions in enumerate(ids)
    }


def _batch(features_BLD: torch.Tensor) -> Batch:
    captions = _captions()
    tokens_NT, targets_NT, lengths_N = collate(
        [[torch.tensor(VOCABULARY.encode(text)).numpy() for text in own] for own in captions.values()]
    )
    return Batch(
        inputs=features_BLD,
        tokens_NT=tokens_NT,
        targets_NT=targets_NT,
        lengths_N=lengths_N,
        image_ids=tuple(captions),
    )


def _features(captioner: Captioner, encoded: dict[tuple[object, ...], torch.Tensor]) -> torch.Tensor:
    transform = captioner.transform
    key = (*captioner.settings["encoder"].items(), transform.height, transform.width)
    if key not in encoded:
        shape = (NUM_IMAGES, 3, transform.height, transform.width)
        with torch.no_grad():
            features_BLD = captioner.features(torch.randint(0, 256, shape, dtype=torch.uint8))
        # Random weights make values of any size, from 1e-9 to 1e11, of which no decoder could learn.
        encoded[key] = features_BLD / features_BLD.std()
    return encoded[key]


def _scores_of_an_epoch(settings: TrainSettings) -> dict[str, float]:
    """Return a row of zeros with the names of the scores that validation gives."""
    captions = ({"image": "a dog"}, {"image": ["a dog"]})
    names = [
        name
        for metric in settings.validation.metrics
        for name in lookup.find("metrics", metric).score(*captions)
    ]
    return dict.fromkeys(["val_loss", "val_accuracy", *(f"val_{name}" for name in names)], 0.0)


def test_every_phase_of_a_recipe_takes_a_step_and_the_outcome_captions(
    recipe: dict[str, Any],
    encoded: dict[tuple[object, ...], torch.Tensor],
    tiny_examples: Path,
    tmp_path: Path,
):
    torch.manual_seed(0)
    settings = TrainSettings.model_validate(recipe["train"])
    captioner = Captioner(
        encoder=settings.encoder,
        decoder=settings.decoder,
        vocabulary=VOCABULARY,
        transform=PixelTransform.model_validate(recipe["preprocess"]["image"]),
    )
    embedding_VE = captioner.decoder.words.embedding.weight
    if width := re.search(r"\.(\d+)d\.", settings.word_vectors.file):
        assert embedding_VE.shape[1] == int(width[1])
    embedding_VE.requires_grad_(settings.word_vectors.trainable)
    features_BLD = _features(captioner, encoded)
    scores = _scores_of_an_epoch(settings)
    assert f"val_{settings.validation.select}" in scores
    for own in settings.phases:
        captioner.encoder.set_trainable(own.encoder.train_from)
        assert captioner.encoder.is_trainable == (own.encoder.train_from is not None)
        # On features: images, and a gradient through the encoder, would take too long here.
        on_features = {"encoder": TuningSettings(train_from=None, learning_rate=0.0), "augmentation": None}
        phase = Phase(
            captioner,
            own.model_copy(update=on_features),
            Examples(tiny_examples, "train"),
            features=tmp_path,
            seed=0,
            reward=CiderReward(_captions(), VOCABULARY),
        )
        before = [parameter.detach().clone() for parameter in captioner.decoder.parameters()]
        captioner.train()
        moment = Moment(step=0, steps_per_epoch=1, epochs=own.epochs, history=[scores])
        loss = phase.step(_batch(features_BLD), moment)
        after = list(captioner.decoder.parameters())
        assert torch.isfinite(loss.reported)
        assert all(bool(torch.isfinite(parameter).all()) for parameter in after)
        has_moved = not all(map(torch.equal, before, after))
        assert has_moved or own.objective.name == "self_critical", "a reward of random words may be 0"
    captioner.eval()
    decoding = PLAIN_BEAM.replaced(beam_width=1, max_words=3)
    captions = generate(captioner.decoder, features_BLD, VOCABULARY, decoding)
    assert all(1 <= len(own[0].words) <= 3 for own in captions)


@pytest.mark.parametrize(
    "path", [path for path in RECIPES if path.stem not in OF_NO_SYSTEM], ids=lambda path: path.stem
)
def test_the_head_of_a_recipe_says_what_was_published_and_where(path: Path):
    head = path.read_text().partition("\n\n")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert f"captioning use {path.stem}" in head
    published = head.partition("# Published: ")[2]
    assert re.search(r"https?://|arXiv:\d", published)


def _comments(path: Path) -> dict[str, str]:
    """Return the comment of each key that has one; a list's items count as one, data sets' own keys each for itself."""
    comments, parents = {}, {-1: ""}
    dataset = params.read(path)["download"]["dataset"]
    for line in path.read_text().splitlines():
        if not (found := KEY.fullmatch(line)):
            continue
        depth = len(found["indent"]) + 2 * bool(found["dash"])
        parents = {own: name for own, name in parents.items() if own < depth}
        name = f"{parents[max(parents)]}.{found['key']}"
        parents[depth] = name
        is_own = name.startswith(".download.") and found["key"] not in DatasetSettings.model_fields
        if found["comment"]:
            comments[f"{name} of {dataset}" if is_own else name] = found["comment"].strip()
    return comments


def test_a_key_has_the_same_comment_in_all_recipes():
    wordings: dict[str, set[str]] = defaultdict(set)
    for path in RECIPES:
        for key, comment in _comments(path).items():
            wordings[key].add(comment)
    assert wordings[".train.phases.batch_size"] == {
        "images a step; all captions of an image share one encoding"
    }
    assert {key: own for key, own in wordings.items() if len(own) > 1} == {}
