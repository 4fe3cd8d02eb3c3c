"""Train and evaluate a registered version again, as it was made, and compare the scores (docs/lineage.md)."""

import argparse
from pathlib import Path

from captioning.cli.history import add_model, model_of

HELP = "make a registered version again, and compare the scores"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("version", metavar="VERSION", help="number of a registered version")
    add_model(parser)
    parser.add_argument(
        "--in", dest="tree", type=Path, metavar="FOLDER", help="check it out there (default: in .work)"
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="run every stage again, from the download on, not only train and evaluate",
    )
    parser.add_argument("--keep", action="store_true", help="leave the checkout there")


def run(options: argparse.Namespace) -> int:
    """Say that all scores are equal, and return 0, or each difference, and return 1."""
    from captioning.reproduction import reproduce

    model_name = model_of(options)
    done = reproduce(
        model_name, options.version, tree=options.tree, is_everything=options.all, is_kept=options.keep
    )
    if options.keep:
        print(f"the checkout is {done.folder}; `git worktree remove --force {done.folder}` removes it")
    what = f"version {options.version} of {model_name}"
    if not done.differences:
        print(f"{what} is reproduced: all {done.num_numbers} numbers of its reports/metrics.json are equal")
        return 0
    print(f"{what} is not reproduced:")
    for difference in done.differences:
        print(f"  {difference}")
    return 1
