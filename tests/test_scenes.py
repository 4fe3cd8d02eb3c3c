"""The drawn scenes: true captions, stable pictures, and scores that tell seeing from guessing."""

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from pycocoevalcap.bleu.bleu import Bleu

from captioning.datasets import scenes
from captioning.records import SPLITS, Pair
from tests.dataset_samples import COMMON


def settings(**changes: Any) -> scenes.Settings:
    section = {"dataset": "scenes", "num_images": 20, "image_side_pixels": 64, "seed": 0}
    return scenes.Settings.model_validate(COMMON | section | changes)


def drawn(folder: Path, **changes: Any) -> list[Pair]:
    """Draw into a new folder; nothing is fetched."""
    folder.mkdir()
    scenes.prepare(folder, settings(**changes), lambda url, path, sha256: None)
    return list(scenes.read_pairs(folder, settings(**changes)))


def words_of(caption: str) -> list[str]:
    return re.findall(r"[a-z]+", caption.lower())


def scene_pairs(num_images: int) -> list[Pair]:
    return list(scenes.read_pairs(Path(), settings(num_images=num_images)))


def test_scene_stays_the_same_in_the_same_split_as_more_are_drawn(tmp_path: Path) -> None:
    few = drawn(tmp_path / "few", num_images=10)
    many = drawn(tmp_path / "many", num_images=15)
    assert many[:10] == few
    with (
        zipfile.ZipFile(tmp_path / "few" / "scenes.zip") as a,
        zipfile.ZipFile(tmp_path / "many" / "scenes.zip") as b,
    ):
        assert all(a.read(pair.member) == b.read(pair.member) for pair in few)


def test_another_seed_draws_other_scenes(tmp_path: Path) -> None:
    first = drawn(tmp_path / "0", num_images=10)
    second = drawn(tmp_path / "1", num_images=10, seed=1)
    assert not {pair.captions for pair in first} & {pair.captions for pair in second}


def test_eight_of_ten_scenes_are_for_training() -> None:
    splits = [pair.split for pair in scene_pairs(100)]
    assert [splits.count(split) for split in SPLITS] == [80, 10, 10]


def test_scene_has_five_captions_that_differ_in_words() -> None:
    for pair in scene_pairs(300):
        assert len({" ".join(words_of(caption)) for caption in pair.captions}) == 5


def test_words_of_the_scenes_are_few_but_not_trivial() -> None:
    words = {word for pair in scene_pairs(1000) for caption in pair.captions for word in words_of(caption)}
    assert 60 <= len(words) <= 150


MEANINGS = {word: name for name, words in (scenes.SIZES | scenes.SHAPES).items() for word in words}
DIRECTIONS = [(phrase, name) for name, phrases in scenes.RELATIONS.items() for phrase in phrases]


def read_caption(caption: str) -> tuple[list[set[str]], list[str]]:
    """Return what a caption says of each thing, in its order, and the relations between neighbours."""
    text = re.split(r" (?:on a|in front of a) (?=\w+ (?:\w+ )?back)", caption.lower().rstrip("."))[0]
    for phrase, name in sorted(DIRECTIONS, key=lambda entry: -len(entry[0])):
        text = text.replace(f" {phrase} ", f" |{name}| ")
    parts = text.split("|")
    things = [{MEANINGS.get(word, word) for word in words_of(part)} for part in parts[::2]]
    return [said & {*scenes.SIZES, *scenes.COLOURS, *scenes.SHAPES} for said in things], parts[1::2]


def holds(relation: str, first: scenes.Thing, second: scenes.Thing) -> bool:
    """Return whether the centres lie so, clearly: by more than they differ along the other axis."""
    right, down = second.x - first.x, second.y - first.y
    distance = {"left": right, "right": -right, "above": down, "below": -down}[relation]
    return distance > 0.3


def test_every_caption_is_true_of_its_scene() -> None:
    for index, pair in enumerate(scene_pairs(500)):
        scene = scenes._scene(0, index)
        for caption in pair.captions:
            things, relations = read_caption(caption)
            assert len(things) == len(scene.things), caption
            found = []
            for said in things:
                matching = [t for t in scene.things if said <= {t.size, t.colour, t.shape} and len(said) >= 2]
                assert len(matching) == 1, caption
                found.append(matching[0])
            assert len({id(thing) for thing in found}) == len(found), caption
            assert holds(relations[0], found[0], found[1]), caption
            for relation in relations[1:]:
                assert all(holds(relation, thing, found[2]) for thing in found[:2]), caption
            background = caption.lower().partition(" back")
            if background[1]:
                assert set(background[0].split()) & set(scenes.TONES) <= {scene.tone}, caption
                assert scene.pattern in background[0] or scenes.PATTERNS[scene.pattern] in background[2], (
                    caption
                )


def test_things_are_drawn_where_and_in_the_colour_that_the_scene_says() -> None:
    for index in range(60):
        scene = scenes._scene(0, index)
        pixels = np.asarray(scenes.draw(scene, settings(), index)).astype(int)
        assert pixels.shape == (64, 64, 3)
        for thing in scene.things:
            centre = pixels[int(64 * thing.y), int(64 * thing.x)]
            is_coloured = bool((np.abs(centre - scenes.COLOURS[thing.colour]) <= 22).all())
            assert is_coloured, (index, thing)


def test_every_shape_lies_inside_the_picture_and_apart_from_the_others() -> None:
    for index in range(300):
        masks = [np.asarray(scenes._outline(thing, 64)) > 0 for thing in scenes._scene(0, index).things]
        assert all(120 <= mask.sum() <= 760 for mask in masks)
        for mask in masks:
            assert mask[0].sum() + mask[-1].sum() + mask[:, 0].sum() + mask[:, -1].sum() < 12
        assert np.sum(masks, axis=0).max() == 1 or (np.sum(masks, axis=0) > 1).sum() < 12


def test_a_true_sentence_scores_high_and_a_blind_guess_low() -> None:
    """BLEU-4 of the canonical caption, of another picture's, of the best constant one, against five each."""
    pairs = [pair for pair in scene_pairs(2000) if pair.split == "test"]
    references = {pair.image_id: [" ".join(words_of(c)) for c in pair.captions] for pair in pairs}
    canonical = [caption[0] for caption in references.values()]

    def bleu_4(hypotheses: list[str]) -> float:
        by_id = {image_id: [text] for image_id, text in zip(references, hypotheses, strict=True)}
        return float(Bleu(4).compute_score(references, by_id, verbose=0)[0][3])

    assert bleu_4(canonical) > 0.99
    assert bleu_4(canonical[1:] + canonical[:1]) < 0.25
    assert max(bleu_4([text] * len(pairs)) for text in canonical[:15]) < 0.3
