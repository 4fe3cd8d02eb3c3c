"""Decide whether the tables may enter the costly stages.

    python -m stages.validate data/raw data/clean data/splits reports/validation

Takes some ten seconds, most of them to start Great Expectations, and a minute for 2.4 million images. Where the
tables are refused the command ends with code 1 after writing its reports; nothing is deleted, and the pipeline
stops there. The training data are compared with the champion's of the moment (captioning/gates/drift.py).
"""

from pathlib import Path

from captioning import params
from captioning.champion import champion_profile
from captioning.gates import NO_CHAMPION, judge_tables, settle
from stages import run


def main(raw: Path, clean: Path, splits: Path, reports: Path) -> None:
    """Write verdict, report, pages and training profile of the tables of the first three stages."""
    champion = find_champion(params.load("register").model_name)
    tokens = params.load("preprocess").tokens
    settle(judge_tables(raw, clean, splits, params.load("validate"), champion, tokens), reports)


def find_champion(model_name: str) -> Path | str:
    """Return the profile of the champion's training data, or in a sentence why there is none to compare with."""
    try:
        return champion_profile(model_name) or NO_CHAMPION
    except ValueError as error:
        return f"the training data are compared with no champion's: {error}"


if __name__ == "__main__":
    run(main)
