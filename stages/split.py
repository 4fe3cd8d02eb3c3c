"""Put every image into exactly one of train, val and test.

    python -m stages.split data/clean data/splits

A second or two.
"""

from pathlib import Path

from captioning import params, splits
from captioning.progress import say
from stages import run


def main(clean: Path, folder: Path) -> None:
    """Write `folder`/images.parquet: the split of every clean image."""
    counts = splits.write_splits(clean, folder, params.load("split"))
    say(f"split: {', '.join(f'{count:,} {split}' for split, count in counts.items())}")


if __name__ == "__main__":
    run(main)
