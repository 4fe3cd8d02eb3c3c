"""The gate in front of the costly step: may images, captions and splits be made into examples?"""

from dataclasses import replace
from pathlib import Path

import pandas as pd
from pydantic import Field, field_validator

from captioning.gates.drift import NO_CHAMPION, compare
from captioning.gates.judgement import Judgement, judge
from captioning.gates.profile import take_profile
from captioning.gates.rules import TOTALS, Range, Rule, Rules, Severity, with_severities
from captioning.gates.table_quantities import quantities
from captioning.gates.table_schema import Files, describe_columns
from captioning.gates.values import reduced
from captioning.params import Settings
from captioning.records import PREDICT, SPLITS
from captioning.tables import database
from captioning.tokens import WORDS

SUBJECT = "tables"


class SplitCounts(Settings):
    """Images of each split."""

    train: int = Field(ge=1)
    val: int = Field(ge=1)
    test: int = Field(ge=0)


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
    image_side_pixels: Range
    """Of the shorter and of the longer side of any image."""
    max_flat_image_share: float = Field(ge=0, le=1)
    """Images of a single colour / kept images."""
    max_foreign_caption_share: float = Field(ge=0, le=1)
    """Kept captions that look as if in another language / kept captions."""
    max_new_word_share: float = Field(ge=0, le=1)
    """Words of val and test captions that no train caption has / words of val and test captions."""
    max_leaked_image_share: float = Field(ge=0, le=1)
    """Images with a near-duplicate in another of train, val and test / kept images."""
    min_images_of_source: int = Field(ge=1)
    """A source of so many images is expected in each of train, val and test that another source is in."""
    max_drift: float = Field(ge=0)
    """Largest population stability index against the champion's training data, over each distribution."""
    severity: dict[str, Severity]
    """Of a breach, by key of this section: `warn` or `refuse`; a key that is not named refuses."""

    @field_validator("severity")
    @classmethod
    def _names_thresholds(cls, severity: dict[str, Severity]) -> dict[str, Severity]:
        known = sorted(set(cls.model_fields) - {"severity"})
        if unknown := sorted(set(severity) - set(known)):
            raise ValueError(f"{unknown} are no thresholds of this section; known: {known}")
        return severity


def judge_tables(
    raw: Path,
    clean: Path,
    splits: Path,
    settings: ValidateSettings,
    champion: Path | str = NO_CHAMPION,
    tokens: str = WORDS,
) -> Judgement:
    """Return what is found about the tables of the download, clean and split stages, and their training profile.

    Where columns are missing or of another type nothing else can be judged, and the judgement ends there.

    Args:
        raw: folder of the download stage.
        clean: folder of the clean stage.
        splits: folder of the split stage.
        settings: section `validate`.
        champion: profile.json of the champion's training data, which need not exist; or why there is none.
        tokens: module of captioning/tokens by which words are counted.

    Raises:
        ValueError: a table is missing or not readable, or a caption cannot be cut into such tokens.
    """
    files = Files.of(raw, clean, splits)
    columns = pd.concat([describe_columns(*file) for file in files], ignore_index=True)
    found = reduced("columns", columns, {"found": "contract"})
    schema = judge(SUBJECT, found, schema_rules(f"{raw}, {clean} and {splits}"))
    if not schema.is_accepted:
        return schema
    with database() as connection:
        found = quantities(connection, files, settings.min_images_of_source, tokens)
        profile = take_profile(connection)
    drift = compare(profile, champion, settings.max_drift)
    every = with_severities([*rules(files, settings), *drift.rules], settings.severity, "validate")
    judgement = schema + judge(SUBJECT, {**found, **drift.quantities}, every)
    return replace(judgement, notes=drift.notes, profile=profile)


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
        *_leakage_rules(files, settings),
    ]


def _image_rules(files: Files, settings: ValidateSettings) -> list[Rule]:
    images, totals = Rules("images", files.images), Rules(TOTALS, f"{files.images} (pixel_deviation)")
    side = settings.image_side_pixels
    return [
        images.between("no image id stands twice", "num_rows_of_id", high=1),
        images.between("every image is at least one pixel wide", "width", low=1),
        images.between("every image is at least one pixel high", "height", low=1),
        totals.between(
            "few images are of one flat colour",
            "flat_image_share",
            high=settings.max_flat_image_share,
            key="validate.max_flat_image_share",
        ),
        images.between(
            "no image is too small", "shorter_side", low=side.min, key="validate.image_side_pixels.min"
        ),
        images.between(
            "no image is too large", "longer_side", high=side.max, key="validate.image_side_pixels.max"
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
        captions.between("no image has two captions at one position", "num_captions_at_position", high=1),
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
        totals.between(
            "few captions look as if in another language",
            "foreign_caption_share",
            high=settings.max_foreign_caption_share,
            key="validate.max_foreign_caption_share",
        ),
        totals.between(
            "few words of val and test captions are new to train",
            "new_word_share",
            high=settings.max_new_word_share,
            key="validate.max_new_word_share",
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
        totals.between(
            "raw captions are kept or quarantined; unaccounted for are",
            "num_unaccounted_captions",
            low=0,
            high=0,
        ),
    ]


def _split_rules(files: Files, settings: ValidateSettings) -> list[Rule]:
    images, members, totals = (Rules(table, files.splits) for table in ("images", "members", TOTALS))
    return [
        images.between("every image is in exactly one split", "num_splits", low=1, high=1),
        members.one_of("every split has a known name", "split", [*SPLITS, PREDICT]),
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
        Rules("sources", files.splits).one_of(
            "every large source is in each of train, val and test that others are in; it lacks",
            "missing_splits",
            ["none"],
            key="validate.min_images_of_source",
        ),
    ]


def _leakage_rules(files: Files, settings: ValidateSettings) -> list[Rule]:
    images, totals = Rules("images", files.splits), Rules(TOTALS, f"{files.images} (twin) and {files.splits}")
    return [
        images.between("no image's bytes (sha256) are in two splits", "num_splits_of_content", high=1),
        totals.between(
            "few images have a near-duplicate in another split",
            "leaked_image_share",
            high=settings.max_leaked_image_share,
            key="validate.max_leaked_image_share",
        ),
    ]
