"""Raw rows -> images that can be decoded and captions that say something; the rest in quarantine, and why.

Raw rows = kept + quarantined, for images and for captions.
"""

import contextlib
import functools
import hashlib
import io
import itertools
import os
import re
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from pydantic import Field

from captioning.images import BadImage, ImageFolder, decode
from captioning.outputs import whole_folder
from captioning.params import Settings
from captioning.progress import progress

IMAGES_PER_CHUNK = 64
"""Looked at by one process at a time."""
IMAGE_COLUMNS = ["image_id", "archive", "member", "split", "license", "width", "height", "mode"]
IMAGE_COLUMNS += ["num_bytes", "sha256", "pixel_mean", "pixel_deviation"]
QUARANTINE_COLUMNS = ["image_id", "position", "reason", "detail"]


class CleanSettings(Settings):
    """What is too small, too long or too elongated to be kept."""

    min_side_pixels: int = Field(ge=1)
    """Shorter side of the smallest picture."""
    max_aspect_ratio: float = Field(ge=1)
    """Longer side / shorter side."""
    max_caption_words: int = Field(ge=1)
    """Words between white space."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What one look at an image found; `reason` is empty where it can be kept."""

    reason: str = ""
    detail: str = ""
    width: int = 0
    """Pixels, upright."""
    height: int = 0
    mode: str = ""
    """Pillow's name for the pixels as encoded: RGB, L, CMYK, P, ..."""
    num_bytes: int = 0
    sha256: str = ""
    """Of the encoded bytes."""
    pixel_mean: float = 0.0
    """Over rows, columns and channels of the decoded picture, 0..255; so is the deviation."""
    pixel_deviation: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How much was kept, and how much not, by reason."""

    num_images: int
    num_captions: int
    image_reasons: dict[str, int]
    caption_reasons: dict[str, int]


def clean(raw: Path, folder: Path, settings: CleanSettings) -> Counts:
    """Write images.parquet, captions.parquet and quarantine.parquet into `folder`, whole or not at all.

    Raises:
        ValueError: nothing can be kept.
    """
    rows = pd.read_parquet(raw / "rows.parquet")
    captions = judge_captions(pd.read_parquet(raw / "captions.parquet"), settings)
    images = judge_images(rows, measure_images(rows, raw, settings), captions)
    captions = _follow_images(captions, images)
    if not (images["reason"] == "").any():
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in _count(images).items())
        raise ValueError(
            f"no image of {raw} can be kept ({reasons}); correct the source, or relax the section clean"
        )
    _write(images, captions, folder)
    return Counts(
        num_images=int((images["reason"] == "").sum()),
        num_captions=int((captions["reason"] == "").sum()),
        image_reasons=_count(images),
        caption_reasons=_count(captions),
    )


def measure_images(rows: pd.DataFrame, raw: Path, settings: CleanSettings) -> pd.DataFrame:
    """Return one measurement a row, in the order of `rows`, decoding every image once on all processors."""
    chunks = [rows[start : start + IMAGES_PER_CHUNK] for start in range(0, len(rows), IMAGES_PER_CHUNK)]
    num_processes = min(len(os.sched_getaffinity(0)), len(chunks))
    measured: Iterable[list[Measurement]]
    with contextlib.ExitStack() as stack:
        if num_processes <= 1:  # starting a process would take longer than looking at a chunk
            folder = ImageFolder(raw)
            measured = (_measure_rows(chunk, folder, settings) for chunk in chunks)
        else:
            pool = ProcessPoolExecutor(num_processes, mp_context=get_context("forkserver"))
            measure = functools.partial(_measure_chunk, raw=raw, settings=settings)
            measured = stack.enter_context(pool).map(measure, chunks)
        every = itertools.chain.from_iterable(measured)
        measurements = list(progress(every, total=len(rows), what="clean"))
    columns = list(Measurement.__dataclass_fields__)
    table = pd.DataFrame([asdict(measurement) for measurement in measurements], columns=columns)
    return table.astype({"width": "int32", "height": "int32"})


def _measure_chunk(rows: pd.DataFrame, raw: Path, settings: CleanSettings) -> list[Measurement]:
    return _measure_rows(rows, _open_folder(raw), settings)


@functools.cache
def _open_folder(raw: Path) -> ImageFolder:
    """Return the one reader of this process: a large archive's directory is not read again for each chunk."""
    return ImageFolder(raw)


def _measure_rows(rows: pd.DataFrame, folder: ImageFolder, settings: CleanSettings) -> list[Measurement]:
    return [_measure_row(row, folder, settings) for row in rows.itertuples()]


def _measure_row(row: Any, folder: ImageFolder, settings: CleanSettings) -> Measurement:
    if row.status != "ok":
        return Measurement(reason="failed-download", detail=row.error)
    try:
        encoded = folder.read(row.archive, row.member)
    except (OSError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        place = row.archive or "its folder"
        return Measurement(reason="unreadable", detail=f"{row.member} in {place}: {type(error).__name__}")
    return measure_image(encoded, settings)


def measure_image(encoded: bytes, settings: CleanSettings) -> Measurement:
    """Decode an image and say its size, its brightness and whether it can be kept."""
    try:
        image = decode(encoded)
    except BadImage as error:
        return Measurement(reason="undecodable", detail=str(error), num_bytes=len(encoded))
    reason, detail = _judge_size(image.width, image.height, settings)
    pixel_mean, pixel_deviation = _brightness(image)
    return Measurement(
        reason=reason,
        detail=detail,
        width=image.width,
        height=image.height,
        mode=Image.open(io.BytesIO(encoded)).mode,
        num_bytes=len(encoded),
        sha256=hashlib.sha256(encoded).hexdigest(),
        pixel_mean=pixel_mean,
        pixel_deviation=pixel_deviation,
    )


def _judge_size(width: int, height: int, settings: CleanSettings) -> tuple[str, str]:
    shorter, longer = sorted((width, height))
    if shorter < settings.min_side_pixels:
        return "too-small", f"{width} x {height} pixels; the shorter side needs {settings.min_side_pixels}"
    if longer > settings.max_aspect_ratio * shorter:
        return "too-elongated", f"{width} x {height} pixels are more than {settings.max_aspect_ratio:g} to 1"
    return "", ""


def _brightness(image: Image.Image) -> tuple[float, float]:
    """Return mean and deviation from exact counts, without an array of the picture in floats."""
    counts = np.array(image.histogram(), dtype=np.int64).reshape(3, 256).sum(axis=0)
    values = np.arange(256)
    mean = float(counts @ values) / float(counts.sum())
    return mean, max(float(counts @ values**2) / float(counts.sum()) - mean**2, 0.0) ** 0.5


def judge_captions(captions: pd.DataFrame, settings: CleanSettings) -> pd.DataFrame:
    """Return the captions normalised, with a `reason` and a `detail`, empty where the caption can be kept."""
    judged = captions.copy()
    judged["caption"] = captions["caption"].map(normalise)
    verdicts = [_judge_caption(caption, settings.max_caption_words) for caption in judged["caption"]]
    judged[["reason", "detail"]] = pd.DataFrame(
        verdicts, columns=["reason", "detail"], index=judged.index, dtype="str"
    )
    return judged


def normalise(caption: str) -> str:
    """Return the caption in Unicode NFKC, without control characters, with single spaces; case is kept."""
    printable = "".join(
        " " if character.isspace() else character
        for character in unicodedata.normalize("NFKC", caption)
        if character.isspace() or unicodedata.category(character) not in {"Cc", "Cf"}
    )
    return " ".join(printable.split())


def _judge_caption(caption: str, max_words: int) -> tuple[str, str]:
    num_words = len(caption.split())
    if not re.search(r"\w", caption):
        return "empty-caption", f"{caption!r} has no word"
    if num_words > max_words:
        return "caption-too-long", f"{num_words} words, at most {max_words}: {caption[:60]!r}..."
    return "", ""


def judge_images(rows: pd.DataFrame, measurements: pd.DataFrame, captions: pd.DataFrame) -> pd.DataFrame:
    """Return rows and measurements side by side, with a `reason` for what shows only beside other rows, too.

    Of images with the same bytes the first that is otherwise good is kept.
    """
    stated = rows[["image_id", "archive", "member", "split", "license"]].reset_index(drop=True)
    images = pd.concat([stated, measurements], axis=1)
    good_captions = captions.loc[captions["reason"] == "", "image_id"]
    is_silent = (images["reason"] == "") & ~images["image_id"].isin(good_captions)
    images.loc[is_silent, ["reason", "detail"]] = ["no-captions", "no caption of the image could be kept"]
    good = images[images["reason"] == ""]
    firsts = good.groupby("sha256")["image_id"].transform("first")
    repeated = firsts[firsts != good["image_id"]]
    images.loc[repeated.index, "reason"] = "duplicate-image"
    images.loc[repeated.index, "detail"] = "the same bytes as " + repeated
    return images


def _follow_images(captions: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """Return the captions, those of quarantined images with that as their reason, if they had no other."""
    kept = images.loc[images["reason"] == "", "image_id"]
    is_orphan = (captions["reason"] == "") & ~captions["image_id"].isin(kept)
    captions = captions.copy()
    captions.loc[is_orphan, ["reason", "detail"]] = ["image-quarantined", "its image is not kept"]
    return captions


def _write(images: pd.DataFrame, captions: pd.DataFrame, folder: Path) -> None:
    kept_images = images.loc[images["reason"] == "", IMAGE_COLUMNS]
    kept_captions = captions.loc[captions["reason"] == "", ["image_id", "position", "caption"]]
    quarantine = pd.concat([images.assign(position=np.int32(-1)), captions])[QUARANTINE_COLUMNS]
    quarantine = quarantine[quarantine["reason"] != ""].astype({"position": "int32"})
    with whole_folder(folder) as aside:
        kept_images.to_parquet(aside / "images.parquet", index=False)
        kept_captions.to_parquet(aside / "captions.parquet", index=False)
        quarantine.to_parquet(aside / "quarantine.parquet", index=False)


def _count(judged: pd.DataFrame) -> dict[str, int]:
    """Return how many rows were not kept, by reason, the most frequent first."""
    reasons = Counter(reason for reason in judged["reason"] if reason)
    return dict(sorted(reasons.items(), key=lambda entry: (-entry[1], entry[0])))
