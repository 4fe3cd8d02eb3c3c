"""Every recipe learns: a real step of each of its phases and a caption, at its own widths, from its own encoder."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch

from captioning import lookup, params
from captioning.batches import Batch, collate
from captioning.captioner import Captioner
from captioning.examples import Examples
from captioning.generation import beam_search
from captioning.images import PixelTransform
from captioning.rewards import CiderReward
from captioning.training import TrainSettings
from captioning.training.phases import Phase
from captioning.training.schedules import Moment
from captioning.training.settings import TuningSettings
from captioning.vocabulary import MARKERS, Vocabulary

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
OF_NO_SYSTEM = {"scenes", "your-pictures"}
"""Recipes that reproduce nothing that was published."""

VOCABULARY = Vocabulary([*MARKERS, *(f"word{number}" for number in range(9_996))])
NUM_IMAGES, NUM_CAPTIONS, NUM_WORDS = 2, 5, 10
KEY = re.compile(r"(?P<indent> *)(?P<dash>- )?(?P<key>\w+):(?P<value>.*?)(?: # (?P<comment>.*))?")


@pytest.fixture(params=RECIPES, ids=lambda path: path.stem)
def recipe(request: pytest.FixtureRequest) -> dict[str, Any]:
    return params.read(request.param)


@pytest.fixture(scope="module")
def encoded() -> dict[tuple[object, ...], torch.Tensor]:
    """Features by encoder and size of the images: seconds each, and several recipes have the same."""
    return {}


def _captions() -> dict[str, list[str]]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, len(VOCABULARY), (NUM_IMAGES, NUM_CAPTIONS, NUM_WORDS), generator=generator)
    return {str(image): [VOCABULARY.decode(own) for own in captions.tolist()] for image, captions in enumerate(ids)}


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
        images_BCHW = torch.randint(0, 256, (1, 3, transform.height, transform.width), dtype=torch.uint8)
        with torch.inference_mode():
            features_BLD = captioner.features(images_BCHW).repeat(NUM_IMAGES, 1, 1)
        # Random weights make values of any size, down to 1e-9 and up to 1e11, of which no decoder could learn.
        encoded[key] = (features_BLD / features_BLD.std()).clone()
    return encoded[key].clone()


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
    features_BLD = _features(captioner, encoded)
    scores = _scores_of_an_epoch(settings)
    assert f"val_{settings.validation.select}" in scores
    for number, own in enumerate(settings.phases):
        captioner.encoder.set_trainable(own.encoder.train_from)
        assert captioner.encoder.is_trainable == (own.encoder.train_from is not None)
        # The features are given: what comes before them, images and a gradient through the encoder, takes too long here.
        on_features = own.model_copy(
            update={"encoder": TuningSettings(train_from=None, learning_rate=0.0), "augmentation": None}
        )
        phase = Phase(
            captioner,
            on_features,
            Examples(tiny_examples, "train"),
            features=tmp_path,
            seed=0,
            reward=CiderReward(_captions(), VOCABULARY),
        )
        before = {name: tensor.clone() for name, tensor in captioner.decoder.state_dict().items()}
        captioner.train()
        loss = phase.step(
            _batch(features_BLD), Moment(step=0, steps_per_epoch=1, epochs=own.epochs, history=[scores])
        )
        after = captioner.decoder.state_dict()
        assert torch.isfinite(loss.reported), f"phase {number + 1}"
        assert all(bool(torch.isfinite(tensor).all()) for tensor in after.values()), f"phase {number + 1}"
        if own.objective.name == "cross_entropy":  # a reward of random words may be 0
            assert any(not torch.equal(before[name], tensor) for name, tensor in after.items())
    captioner.eval()
    captions = beam_search(captioner.decoder, features_BLD, VOCABULARY, beam_width=1, max_words=3)
    assert [len(own[0].text.split()) <= 3 for own in captions] == [True] * NUM_IMAGES


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
    """Return the comment of each key that has one; items of a list count as one."""
    comments, parents = {}, {-1: ""}
    for line in path.read_text().splitlines():
        if not (found := KEY.fullmatch(line)):
            continue
        depth = len(found["indent"]) + 2 * bool(found["dash"])
        parents = {own: name for own, name in parents.items() if own < depth}
        name = f"{parents[max(parents)]}.{found['key']}"
        parents[depth] = name
        if found["comment"]:
            comments[name] = found["comment"].strip()
    return comments


def test_a_key_has_the_same_comment_in_all_recipes():
    wordings: dict[str, set[str]] = defaultdict(set)
    for path in RECIPES:
        for key, comment in _comments(path).items():
            wordings[key].add(comment)
    assert wordings[".train.phases.batch_size"] == {"images a step; all captions of an image share one encoding"}
    assert {key: own for key, own in wordings.items() if len(own) > 1} == {}
