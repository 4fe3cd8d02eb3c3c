"""Bring the images and captions of `download.dataset`, one row an image with its status.

    python -m stages.download data/raw

Ten seconds for 3,000 drawn scenes; otherwise as long as the source takes.
"""

from pathlib import Path

from captioning import downloads, lookup, params
from captioning.progress import say
from stages import run


def main(raw: Path) -> None:
    """Write `raw`: archives, rows.parquet (one row an image, fetched or not) and captions.parquet."""
    settings = params.load("download")
    dataset = lookup.find("datasets", settings.dataset)
    say(f"download: {settings.dataset}. License: {dataset.LICENSE}. Source: {dataset.CITATION}")
    counts = downloads.download(settings, raw)
    images = f"{counts.num_images:,} images, {counts.num_failed:,} of them failed"
    say(f"download: {images}, {counts.num_captions:,} captions")


if __name__ == "__main__":
    run(main)
