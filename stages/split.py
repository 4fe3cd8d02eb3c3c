"""Put every image into exactly one of train, val and test; those without captions into predict.

    python -m stages.split data/clean data/splits

A second or two; ten for a million images.
"""

from pathlib import Path

from captioning import params, splits
from captioning.progress import say
from stages import run


def main(clean: Path, folder: Path) -> None:
    """Write `folder`/images.parquet: the split of every clean image."""
    counts = splits.write_splits(clean, folder, params.load("split"))
    total = splits.add_up(counts)
    say(f"split: {', '.join(f'{count:,} {split}' for split, count in total.items() if count)}")
    for source, own in counts.items() if len(counts) > 1 else ():
        num_images = sum(own.values())
        shares = ", ".join(f"{count / num_images:.1%} {split}" for split, count in own.items() if count)
        say(f"split: {source}, {num_images:,} images: {shares}")


if __name__ == "__main__":
    run(main)
