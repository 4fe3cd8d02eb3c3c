"""Keep the images that can be decoded and the captions that say something; quarantine the rest.

    python -m stages.clean data/raw data/clean

All processors decode; 15 seconds for 7,000 small photographs on two. A run that was killed goes on where it was.
"""

from pathlib import Path

from captioning import cleaning, params
from captioning.progress import say
from stages import run


def main(raw: Path, clean: Path) -> None:
    """Write `clean`: the tables images, captions and quarantine, which says why the rest is not kept."""
    counts = cleaning.clean(raw, clean, params.load("clean"))
    say(f"clean: {counts.num_images:,} images and {counts.num_captions:,} captions kept")
    say(f"clean: {counts.num_twins:,} near-duplicate images, {counts.num_flagged:,} captions foreign-looking")
    for what, reasons in (("images", counts.image_reasons), ("captions", counts.caption_reasons)):
        for reason, count in reasons.items():
            say(f"clean: {count:,} {what} in quarantine: {reason}")


if __name__ == "__main__":
    run(main)
