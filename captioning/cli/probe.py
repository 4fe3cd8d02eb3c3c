"""Look whether the source has new data; fetch nothing.

What is seen is written to source.json, on which the download stage depends: `dvc repro` then fetches what is new.
"""

import argparse

HELP = "look whether the source has new data, which `dvc repro` then fetches"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: the source is the one of params.yaml."""


def run(options: argparse.Namespace) -> int:
    """Write source.json and say what is new."""
    from captioning import params, source_state

    seen = source_state.observe(params.load("download"))
    news = source_state.changes(source_state.read(), seen)
    print("\n".join(news) or "nothing is new")
    if news:
        source_state.write(seen)
    return 0
