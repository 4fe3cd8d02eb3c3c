"""Pixels and token ids into HDF5 shards; the vocabulary from train captions only.

python -m stages.preprocess data/raw data/clean data/splits data/examples
"""

from pathlib import Path

from captioning import params
from captioning.preprocessing import write_examples
from captioning.progress import say
from stages import run


def main(raw: Path, clean: Path, splits: Path, examples: Path) -> None:
    """Write the examples of every split."""
    num_images = write_examples(raw, clean, splits, examples, params.load("preprocess"))
    say("preprocess: " + ", ".join(f"{count:,} {split}" for split, count in num_images.items()) + " images")


if __name__ == "__main__":
    run(main)
