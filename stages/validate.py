"""Decide whether the tables may enter the costly stages.

    python -m stages.validate data/raw data/clean data/splits reports/validation

Takes some ten seconds, most of them to start Great Expectations. Where the tables are refused the command
ends with code 1 after writing its reports; nothing is deleted, and the pipeline stops there.
"""

from pathlib import Path

from captioning import params
from captioning.gates import judge_tables, settle
from stages import run


def main(raw: Path, clean: Path, splits: Path, reports: Path) -> None:
    """Write verdict, report and pages about the tables of the first three stages."""
    settle(judge_tables(raw, clean, splits, params.load("validate")), reports)


if __name__ == "__main__":
    run(main)
