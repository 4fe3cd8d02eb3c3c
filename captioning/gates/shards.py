"""The gate behind the costly step: may the shards of pixels and token ids be trained on?

Pixel statistics are taken anew from a sample of each shard's images: a reader that gives [0, 1] floats where
uint8 is stored writes black images without any error, and an index written by the same code would not know.
"""

from pathlib import Path

from pydantic import Field

from captioning.gates.judgement import Judgement, judge
from captioning.gates.rules import TOTALS, Range, Rule, Rules
from captioning.gates.shard_looks import MARKERS, UNKNOWN, look_at_shards, read_json, read_stated
from captioning.gates.shard_quantities import Sums, layout_quantities
from captioning.params import Settings
from captioning.tables import database

SUBJECT = "examples"


class InspectSettings(Settings):
    """The `inspect` section: what the examples must keep to. Pixel values are 0..255."""

    images_sampled_per_shard: int = Field(ge=1)
    """Evenly spaced; their pixels are read."""
    pixel_mean: Range
    """Of each channel of each split."""
    pixel_deviation: Range
    """Of each channel of each split, over all its pixels."""
    max_pixel_distance: float = Field(ge=0)
    """Largest difference between two splits, in the mean and in the deviation of a channel."""
    max_flat_image_share: float = Field(ge=0, le=1)
    """Images of a single colour / images, in each split."""
    caption_tokens: Range
    """Of any caption, without <bos> and <eos>."""
    mean_caption_tokens: Range
    """In each split."""
    max_unknown_share: float = Field(ge=0, le=1)
    """Tokens that are <unk> / tokens, in each split."""
    min_vocabulary_words: int = Field(ge=5)
    """With the four markers."""


def judge_shards(examples: Path, settings: InspectSettings) -> Judgement:
    """Return what is found about the output of the preprocess stage.

    Every shard is looked at, on all processors. Where one is not laid out as expected nothing else can be judged,
    and the judgement ends there.

    Raises:
        ValueError: the index, vocabulary, transform or references are missing or not readable, or a shard is damaged.
    """
    stated = read_stated(examples, settings.images_sampled_per_shard)
    words = read_json(examples / "vocabulary.json")["words"]
    with database() as connection:
        sums = Sums(connection)
        looks = [sums.add(shard, look) for shard, look in zip(stated, look_at_shards(stated), strict=True)]
        judgement = judge(SUBJECT, layout_quantities(examples, stated, looks), [_layout_rule(examples)])
        if not judgement.is_accepted:
            return judgement
        found = sums.quantities(examples, words)
    return judgement + judge(SUBJECT, found, rules(examples, len(words), settings))


def rules(examples: Path, num_words: int, settings: InspectSettings) -> list[Rule]:
    """Return the rules about shards, pixels, captions and vocabulary."""
    return [
        *_count_rules(examples),
        *_pixel_rules(examples, settings),
        *_caption_rules(examples, num_words, settings),
        *_vocabulary_rules(examples, settings),
    ]


def _layout_rule(examples: Path) -> Rule:
    datasets = Rules("datasets", f"{examples}, which `dvc repro --force preprocess` writes anew")
    return datasets.equal("every shard holds its datasets, of their type and shape", "found", "contract")


def _count_rules(examples: Path) -> list[Rule]:
    index, references = f"{examples}/index.json", f"{examples}/references.parquet"
    shards, images, splits = (Rules(table, index) for table in ("shards", "images", "splits"))
    return [
        shards.equal("every shard has as many images as the index says", "num_images", "indexed_images"),
        shards.equal(
            "every shard has as many captions as the index says", "num_captions", "indexed_captions"
        ),
        shards.between(
            "offsets rise from 0 to the number of rows they index", "num_bad_offsets", low=0, high=0
        ),
        images.between("no image is in two shards or splits", "num_rows_of_id", high=1),
        images.between("every image has a caption", "num_captions", low=1),
        splits.between("every split has images", "num_images", low=1),
        Rules("splits", references).between(
            "the images of shards and references are the same; only in one of them are",
            "num_unreferenced_images",
            low=0,
            high=0,
        ),
    ]


def _pixel_rules(examples: Path, settings: InspectSettings) -> list[Rule]:
    look_at = f"pictures of {examples} ([0, 1] floats stored as uint8 come out black)"
    channels, splits, shards, totals = (
        Rules(table, look_at) for table in ("channels", "splits", "shards", TOTALS)
    )
    mean, deviation, distance = settings.pixel_mean, settings.pixel_deviation, settings.max_pixel_distance
    return [
        Rules("shards", f"{examples}, which `dvc repro --force preprocess` writes anew").between(
            "the images looked at are readable and as they were written; damaged are",
            "num_damaged",
            low=0,
            high=0,
        ),
        channels.within(
            "no split is black or washed out: pixel means are usual",
            "pixel_mean",
            mean,
            key="inspect.pixel_mean",
        ),
        channels.within(
            "no split is flat or noise: pixel deviations are usual",
            "pixel_deviation",
            deviation,
            key="inspect.pixel_deviation",
        ),
        shards.within(
            "the pixel mean of each shard is usual",
            "pixel_mean",
            mean,
            key="inspect.pixel_mean",
            severity="warn",
        ),
        *(
            totals.between(
                f"the splits agree in the {statistic} of their pixels",
                f"pixel_{statistic}_distance",
                high=distance,
                key="inspect.max_pixel_distance",
            )
            for statistic in ("mean", "deviation")
        ),
        splits.between(
            "few images of a split are of one flat colour",
            "flat_image_share",
            high=settings.max_flat_image_share,
            key="inspect.max_flat_image_share",
        ),
    ]


def _caption_rules(examples: Path, num_words: int, settings: InspectSettings) -> list[Rule]:
    shards, splits = Rules("shards", examples), Rules("splits", examples)
    tokens, mean, number = settings.caption_tokens, settings.mean_caption_tokens, "inspect.caption_tokens"
    return [
        shards.between("no caption contains <pad>, <bos> or <eos>", "lowest_token", low=UNKNOWN),
        shards.between("every token id is in the vocabulary", "highest_token", high=num_words - 1),
        shards.between(
            "no caption has too few tokens", "shortest_caption", low=tokens.min, key=f"{number}.min"
        ),
        shards.between(
            "no caption has too many tokens", "longest_caption", high=tokens.max, key=f"{number}.max"
        ),
        splits.within(
            "captions have a usual number of tokens on average",
            "mean_caption_tokens",
            mean,
            key="inspect.mean_caption_tokens",
        ),
        Rules("splits", "preprocess.min_word_count in params.yaml").between(
            "few tokens are <unk>",
            "unknown_share",
            high=settings.max_unknown_share,
            key="inspect.max_unknown_share",
        ),
    ]


def _vocabulary_rules(examples: Path, settings: InspectSettings) -> list[Rule]:
    totals = Rules(TOTALS, f"{examples}/vocabulary.json")
    markers = ", ".join(MARKERS)
    return [
        totals.between(
            "the vocabulary has enough words",
            "num_words",
            low=settings.min_vocabulary_words,
            key="inspect.min_vocabulary_words",
        ),
        totals.between(
            "no word of the vocabulary is repeated; repeated are", "num_repeated_words", low=0, high=0
        ),
        totals.between(
            f"the vocabulary begins with {markers}; displaced are", "num_displaced_markers", low=0, high=0
        ),
    ]
