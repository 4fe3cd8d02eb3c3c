"""Decide whether the shards may be trained on.

    python -m stages.inspect data/examples reports/inspection

Takes some ten seconds, most of them to start Great Expectations, and a second or so a shard and processor. Where
the shards are refused the command ends with code 1 after writing its reports; nothing is deleted, and the pipeline
stops there.
"""

from pathlib import Path

from captioning import params
from captioning.gates import judge_shards, settle
from stages import run


def main(examples: Path, reports: Path) -> None:
    """Write verdict, report and pages about the examples."""
    settle(judge_shards(examples, params.load("inspect")), reports)


if __name__ == "__main__":
    run(main)
