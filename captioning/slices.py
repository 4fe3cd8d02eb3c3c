"""Parts of a split that are scored apart: by length of the references, size of the picture, source, and object.

Scores come from the statistics of the whole split's scoring: exact for what is summed (BLEU, METEOR, perplexity) or
averaged (ROUGE-L); CIDEr keeps the whole split's document frequencies.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from captioning import bootstrap, tables
from captioning.metrics import Statistics, higher_is_better
from captioning.tokens import WORDS, module_of
from captioning.tokens.words import split as split_words

Parts = Mapping[str, Mapping[str, Sequence[str]]]
"""Group -> name of a part -> the image ids in it."""

LEADING = "bleu_4"
NUM_QUARTERS = 4
MAX_OBJECTS = 20
"""Most frequent object words that get a slice."""
MIN_NOUN_SHARE = 0.15
"""Of a noun's occurrences that stand as nouns do; adjectives and verbs almost never do."""
MIN_ADJECTIVE_SHARE = 0.3
"""Of an adjective's occurrences that follow an article."""
MAX_OF_SHARE = 0.5
"""Of an object word's occurrences that are followed by `of`: a group, the front and the top of something are none."""
ARTICLES = frozenset({"a", "an", "the"})
_AFTER_NOUNS = """
above across against along are around as at be been behind being below beside between by can could did do does down
during for from had has have in inside into is near next of off on onto out outside over that through to together
under up was were which while who will with would
"""
_NEVER_NOUNS = "and but her his it its or their there these this those"
AFTER_NOUNS = ARTICLES.union(_AFTER_NOUNS.split())
FUNCTION_WORDS = AFTER_NOUNS.union(_NEVER_NOUNS.split())


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Images with something in common."""

    group: str
    """What the images are told apart by: `caption length`, `image size`, `source`, `object word`."""
    name: str
    """What these images have: `8 to 9.6 words`, `dog`."""
    num_images: int
    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    """By score name, 95 %."""


def leading_score(scores: Mapping[str, Statistics | float]) -> str | None:
    """Return the score by which slices are ordered: BLEU-4, else the first that slices have; None without any."""
    return leading([name for name, own in scores.items() if isinstance(own, Statistics)])


def leading(names: Collection[str]) -> str | None:
    """Return BLEU-4 if it is among the names of scores, else the first."""
    return LEADING if LEADING in names else next(iter(names), None)


def cut(
    parts: Parts,
    scores: Mapping[str, Statistics | float],
    image_ids: Sequence[str],
    *,
    min_images: int,
    num_samples: int,
) -> list[Slice]:
    """Return the slices of each group, the worst first.

    Left out are parts of fewer than `min_images` images, whose scores say little, and parts that are the whole split.

    Args:
        parts: which images are scored apart.
        scores: of the split; `image_ids` are its rows.
        image_ids: of the split.
        min_images: of a slice.
        num_samples: of the bootstrap.
    """
    leading = leading_score(scores)
    if leading is None:
        return []
    rows = {image_id: row for row, image_id in enumerate(image_ids)}
    slices = []
    for group, members in parts.items():
        found = [
            _score(group, name, scores, [rows[image_id] for image_id in own], num_samples)
            for name, own in members.items()
            if min_images <= len(own) < len(image_ids)
        ]
        sign = 1 if higher_is_better(leading) else -1
        slices += sorted(found, key=lambda own: (sign * own.scores[leading], own.name))
    return slices


def _score(
    group: str, name: str, scores: Mapping[str, Statistics | float], rows: Sequence[int], num_samples: int
) -> Slice:
    # What several scores have in common is cut out once, as the bootstrap adds it up once.
    tables_of = {
        id(own.of_images_BS): own.of_images_BS[rows] for own in scores.values() if isinstance(own, Statistics)
    }
    own_scores = {
        name: Statistics(of_images_BS=tables_of[id(own.of_images_BS)], formula=own.formula)
        for name, own in scores.items()
        if isinstance(own, Statistics)
    }
    return Slice(
        group=group,
        name=name,
        num_images=len(rows),
        scores={name: own.of_set for name, own in own_scores.items()},
        intervals=bootstrap.intervals(own_scores, num_samples=num_samples),
    )


def parts_of(
    references: Mapping[str, Sequence[str]],
    images: Path | None,
    tokens: str = WORDS,
) -> dict[str, dict[str, list[str]]]:
    """Return the parts of a split.

    Args:
        references: raw captions by image id.
        images: the table of kept images, with their sources and sizes (`data/clean/images.parquet`), if it is known.
        tokens: name of the module of `captioning.tokens` by whose tokens the length of a caption is counted.
    """
    cutting = module_of(tokens)
    lengths = {
        image_id: round(sum(len(cutting.split(text)) for text in own) / max(1, len(own)), 1)
        for image_id, own in references.items()
    }
    parts = {"caption length": quarters(lengths, f"{cutting.UNIT}s")}
    if images is not None:
        sides, sources = _read_images(images, references)
        parts |= {"image size": quarters(sides, "pixels"), "source": sources}
    return parts | {"object word": object_words(references)}


def quarters(values: Mapping[str, float], unit: str) -> dict[str, list[str]]:
    """Return up to four parts of about equally many images, by value; equal values stay together.

    A part is named by its least and greatest value.
    """
    if not values:
        return {}
    edges = np.quantile([*values.values()], np.arange(1, NUM_QUARTERS) / NUM_QUARTERS)
    members: defaultdict[int, list[str]] = defaultdict(list)
    for image_id, value in values.items():
        members[int(np.searchsorted(edges, value))].append(image_id)
    return {_range([values[image_id] for image_id in own], unit): own for _, own in sorted(members.items())}


def _range(values: Sequence[float], unit: str) -> str:
    low, high = min(values), max(values)
    return f"{low:.15g} to {high:.15g} {unit}" if low < high else f"{low:.15g} {unit}"


def _read_images(
    path: Path, image_ids: Mapping[str, object]
) -> tuple[dict[str, float], dict[str, list[str]]]:
    """Return the shorter side of the pictures, in pixels, as they were before they were resized, and their sources."""
    sides: dict[str, float] = {}
    sources: defaultdict[str, list[str]] = defaultdict(list)
    for batch in tables.read(path, ["image_id", "source", "width", "height"]):
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            image_id, source, width, height = row
            if image_id in image_ids:
                sides[image_id] = min(width, height)
                sources[source].append(image_id)
    return sides, dict(sorted(sources.items()))


def object_words(references: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return the images that show each of the most frequent objects, by the word for it.

    A word is taken for an object's if it often stands as nouns do: after an article, or an article and an adjective,
    and before a function word or the caption's end; and seldom before `of`. Adjectives are words that often follow an
    article and seldom stand as nouns do. An image shows an object if at least half of its references say so. English
    only: in captions of another language no such word is found.
    """
    captions = [split_words(caption) for own in references.values() for caption in own]
    num_seen = Counter(word for words in captions for word in words)
    num_before_of = Counter(word for words in captions for word, after in pairwise(words) if after == "of")
    num_after_article = Counter(
        after for words in captions for word, after in pairwise(words) if word in ARTICLES
    )
    as_nouns = _as_nouns(captions, frozenset())
    adjectives = frozenset(
        word
        for word, count in num_after_article.items()
        if count >= MIN_ADJECTIVE_SHARE * num_seen[word] and as_nouns[word] < MIN_NOUN_SHARE * num_seen[word]
    )
    nouns = {
        word
        for word, count in _as_nouns(captions, adjectives).items()
        if count >= MIN_NOUN_SHARE * num_seen[word]
        and num_before_of[word] <= MAX_OF_SHARE * num_seen[word]
        and word not in FUNCTION_WORDS
    }
    images: defaultdict[str, list[str]] = defaultdict(list)
    for image_id, own in references.items():
        num_captions = Counter(word for caption in own for word in nouns.intersection(split_words(caption)))
        for word, count in num_captions.items():
            if 2 * count >= len(own):
                images[word].append(image_id)
    frequent = sorted(images, key=lambda word: (-len(images[word]), word))[:MAX_OBJECTS]
    return {word: images[word] for word in frequent}


def _as_nouns(captions: Iterable[Sequence[str]], adjectives: Set[str]) -> Counter[str]:
    """Return how often each word stands between an article, maybe with an adjective, and what follows a noun."""
    return Counter(
        word
        for words in captions
        for first, second, word, after in zip(
            ["", "", *words], ["", *words], words, [*words[1:], ""], strict=False
        )
        if (second in ARTICLES or (first in ARTICLES and second in adjectives))
        and (after in AFTER_NOUNS or not after)
    )
