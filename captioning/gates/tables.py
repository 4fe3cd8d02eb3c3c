"""The gate in front of the costly step: may images, captions and splits be made into examples?"""

from pathlib import Path

import pandas as pd
from pydantic import Field

from captioning.gates.judgement import Judgement, judge
from captioning.gates.rules import TOTALS, Range, Rule, Rules
from captioning.gates.table_features import Files, column_features, features
from captioning.params import Settings
from captioning.records import SPLITS

SUBJECT = "tables"


class SplitCounts(Settings):
    """Images of each split."""

    train: int = Field(ge=1)
    val: int = Field(ge=1)
    test: int = Field(ge=1)


class ValidateSettings(Settings):
    """The `validate` section: what the tables must keep to."""

    min_images: SplitCounts
    """In each split at least."""
    min_kept_image_share: float = Field(ge=0, le=1)
    """Kept images / raw rows."""
    max_quarantined_caption_share: float = Field(ge=0, le=1)
    """Quarantined captions / all captions."""
    min_captions_per_image: int = Field(ge=1)
    caption_words: Range
    """Words of any caption, between white space."""
    mean_caption_words: Range
    """Mean over all captions."""
    max_flat_image_share: float = Field(ge=0, le=1)
    """Images of a single colour / kept images; more is a warning."""


def judge_tables(raw: Path, clean: Path, splits: Path, settings: ValidateSettings) -> Judgement:
    """Return what is found about the tables of the download, clean and split stages.

    Where columns are missing or of another type nothing else can be judged, and the judgement ends there.

    Raises:
        ValueError: a table is missing or not readable.
    """
    files = Files(
        raw_rows=raw / "rows.parquet",
        images=clean / "images.parquet",
        captions=clean / "captions.parquet",
        quarantine=clean / "quarantine.parquet",
        splits=splits / "images.parquet",
    )
    columns = pd.concat([column_features(*file) for file in files], ignore_index=True)
    schema = judge(SUBJECT, {"columns": columns}, schema_rules(f"{raw}, {clean} and {splits}"))
    if not schema.is_accepted:
        return schema
    return schema + judge(SUBJECT, features(files), rules(files, settings))


def schema_rules(look_at: str) -> list[Rule]:
    """Return the rules about the columns of every table."""
    columns = Rules("columns", look_at)
    return [
        columns.equal("every column is there and of its type", "found", "contract"),
        columns.between("no value is missing", "num_missing", low=0, high=0),
    ]


def rules(files: Files, settings: ValidateSettings) -> list[Rule]:
    """Return the rules about images, captions and splits."""
    return [
        *_image_rules(files, settings),
        *_caption_rules(files, settings),
        *_quarantine_rules(files, settings),
        *_split_rules(files, settings),
    ]


def _image_rules(files: Files, settings: ValidateSettings) -> list[Rule]:
    images, totals = Rules("images", files.images), Rules(TOTALS, f"{files.images} (pixel_deviation)")
    return [
        images.once("no image id stands twice", "image_id"),
        images.between("every image is at least one pixel wide", "width", low=1),
        images.between("every image is at least one pixel high", "height", low=1),
        totals.between(
            "few images are of one flat colour",
            "flat_image_share",
            high=settings.max_flat_image_share,
            key="validate.max_flat_image_share",
            severity="warn",
        ),
    ]


def _caption_rules(files: Files, settings: ValidateSettings) -> list[Rule]:
    captions, totals = Rules("captions", files.captions), Rules(TOTALS, files.captions)
    words, mean, number = settings.caption_words, settings.mean_caption_words, "validate.caption_words"
    return [
        Rules("images", files.captions).between(
            "every image has enough captions",
            "num_captions",
            low=settings.min_captions_per_image,
            key="validate.min_captions_per_image",
        ),
        captions.once("no image has two captions at one position", "caption"),
        captions.between("every caption belongs to a kept image", "is_of_kept_image", low=1, high=1),
        captions.between("no caption is empty", "num_characters", low=1),
        captions.between("no caption has too few words", "num_words", low=words.min, key=f"{number}.min"),
        captions.between("no caption has too many words", "num_words", high=words.max, key=f"{number}.max"),
        totals.within(
            "captions have a usual number of words on average",
            "mean_caption_words",
            mean,
            key="validate.mean_caption_words",
        ),
    ]


def _quarantine_rules(files: Files, settings: ValidateSettings) -> list[Rule]:
    totals = Rules(TOTALS, files.quarantine)
    return [
        totals.between(
            "enough of the raw images could be read and were kept",
            "kept_image_share",
            low=settings.min_kept_image_share,
            key="validate.min_kept_image_share",
        ),
        totals.between(
            "few captions were quarantined",
            "quarantined_caption_share",
            high=settings.max_quarantined_caption_share,
            key="validate.max_quarantined_caption_share",
        ),
        totals.between(
            "raw images are kept or quarantined; unaccounted for are", "num_unaccounted_images", low=0, high=0
        ),
    ]


def _split_rules(files: Files, settings: ValidateSettings) -> list[Rule]:
    images, members, totals = (Rules(table, files.splits) for table in ("images", "members", TOTALS))
    return [
        images.between("every image is in exactly one split", "num_splits", low=1, high=1),
        images.between("no image's bytes (sha256) are in two splits", "num_splits_of_content", high=1),
        members.one_of("every split has a known name", "split", SPLITS),
        members.between("every image of a split was kept by clean", "is_kept", low=1, high=1),
        *(
            totals.between(
                f"the {split} split has enough images",
                f"num_{split}_images",
                low=getattr(settings.min_images, split),
                key=f"validate.min_images.{split}",
            )
            for split in SPLITS
        ),
    ]
