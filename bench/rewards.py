"""The reward of captions drawn from a model, as self-critical training asks for it: 64 images a step, five each."""

import json
import random
import time

from pycocoevalcap.cider.cider import Cider

from bench.comparison import Comparison, alternately
from bench.photographs import shared
from captioning.rewards import CiderReward
from captioning.vocabulary import EOS, UNK, Vocabulary

BATCH_SIZE, NUM_BATCHES, NUM_SAMPLES = 64, 20, 5
DROPPED_SHARE = 0.1
"""Of the words of an image's own captions: what is left matches as the captions of a good model do."""
TARGET_MICROSECONDS = 100.0


def _references() -> dict[str, list[str]]:
    """Return the raw captions of Flickr8k's train images."""
    images = json.loads(shared("flickr8k/dataset_flickr8k.json").read_text())["images"]
    return {
        image["filename"]: [sentence["raw"] for sentence in image["sentences"]]
        for image in images
        if image["split"] == "train"
    }


def _drawn(captions: list[str], vocabulary: Vocabulary, dice: random.Random) -> list[list[int]]:
    """Return hypotheses of one image as word ids."""
    return [
        [*(word for word in vocabulary.encode(own) if word != UNK and dice.random() > DROPPED_SHARE), EOS]
        for own in captions[:NUM_SAMPLES]
    ]


def _text(words: list[int]) -> str:
    return " ".join(map(str, words))


def reward_microseconds() -> Comparison:
    """Measure our reward against coco-caption's scorer, one thread and the same hypotheses on either side."""
    references = _references()
    captions = (caption for own in references.values() for caption in own)
    vocabulary = Vocabulary.build(captions, min_word_count=5)
    reward, dice = CiderReward(references, vocabulary), random.Random(0)
    image_ids = [*references][: BATCH_SIZE * NUM_BATCHES]
    batches = [image_ids[start : start + BATCH_SIZE] for start in range(0, len(image_ids), BATCH_SIZE)]
    drawn = {image_id: _drawn(references[image_id], vocabulary, dice) for image_id in image_ids}
    texts = {
        image_id: [_text([*vocabulary.encode(caption), EOS]) for caption in references[image_id]]
        for image_id in image_ids
    }

    def microseconds(began: float) -> float:
        return (time.perf_counter() - began) * 1e6 / (len(image_ids) * NUM_SAMPLES)

    def ours() -> float:
        began = time.perf_counter()
        for batch in batches:
            reward(batch, [drawn[image_id] for image_id in batch])
        return microseconds(began)

    def coco_caption() -> float:
        began = time.perf_counter()
        for batch in batches:
            said = {
                (image_id, number): [_text(words)]
                for image_id in batch
                for number, words in enumerate(drawn[image_id])
            }
            Cider().compute_score({key: texts[key[0]] for key in said}, said)
        return microseconds(began)

    value, baseline = alternately(ours, coco_caption)
    return Comparison(
        value=value,
        baseline=baseline,
        unit="us",
        what=f"CIDEr-D of a drawn caption, {BATCH_SIZE} x {NUM_SAMPLES} a step, against coco-caption's scorer",
        target=baseline / TARGET_MICROSECONDS,
        is_rate=False,
    )
