"""Compare the scores of several runs, with the paired bootstrap of their differences."""

import argparse
from pathlib import Path

HELP = "scores of several runs, and whether they differ"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="folder with reports, NAME/VERSION, NAME@champion, or the beginning of an MLflow run's id",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="write comparison.md, .csv and .png, and curves.png"
    )


def run(options: argparse.Namespace) -> int:
    """Print the table of several runs as Markdown; with `--out` also write it, its picture and the curves."""
    from captioning.named_runs import read_named_runs
    from captioning.reports import comparison_table

    compared = comparison_table.compare_runs(read_named_runs(options.runs))
    print(comparison_table.markdown(compared), end="")
    if options.out:
        comparison_table.write_comparison(compared, options.out)
    return 0
