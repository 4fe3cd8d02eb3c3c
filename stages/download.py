"""Bring the images and captions of `download.dataset`, one row an image with its status.

    python -m stages.download data/raw

Ten seconds for 3,000 drawn scenes; otherwise as long as the source takes. When it is interrupted, the same command
goes on where it ended.
"""

from collections import Counter
from pathlib import Path

from captioning import lookup, params
from captioning.downloads.parts import name_counts
from captioning.downloads.raw import download
from captioning.progress import say
from stages import run


def main(raw: Path) -> None:
    """Write `raw`: archives, rows.parquet (one row an image, fetched or not) and captions.parquet."""
    settings = params.load("download")
    dataset = lookup.find("datasets", settings.dataset)
    say(f"download: {settings.dataset}. License: {dataset.LICENSE}. Source: {dataset.CITATION}")
    counts = download(settings, raw)
    reasons = f" ({name_counts(Counter(counts.reasons))})" if counts.num_failed else ""
    images = f"{counts.num_images:,} images, {counts.num_failed:,} of them failed{reasons}"
    say(f"download: {images}, {counts.num_captions:,} captions")


if __name__ == "__main__":
    run(main)
