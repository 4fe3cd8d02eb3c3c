"""Show, or remove, what no alias, none of the last versions and no tag holds (docs/lineage.md)."""

import argparse
from pathlib import Path

from captioning.cli.history import model_of

HELP = "show, or remove, versions, runs, cached data and old work that nothing holds"
KEEP_LAST, DAYS = 5, 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument(
        "--model", action="append", metavar="NAME", help="registered model (default: register.model_name)"
    )
    parser.add_argument(
        "--keep-last",
        type=_positive,
        default=KEEP_LAST,
        metavar="N",
        help=f"newest versions that stay (default: {KEEP_LAST})",
    )
    parser.add_argument(
        "--older-than",
        type=float,
        default=DAYS,
        metavar="DAYS",
        help=f"how long interrupted work and unregistered runs stay (default: {DAYS:g})",
    )
    parser.add_argument(
        "--clone",
        action="append",
        default=[],
        type=Path,
        metavar="FOLDER",
        help="another clone that shares the DVC cache, whose data stay",
    )
    parser.add_argument("--yes", "--do-it", action="store_true", help="remove it; without, it is only shown")


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def run(options: argparse.Namespace) -> int:
    """Print what goes, why, and its size."""
    from captioning import retention
    from captioning.progress import in_bytes

    model_names = options.model or [model_of(options)]
    work = retention.clean if options.yes else retention.plan
    planned = work(model_names, keep_last=options.keep_last, days=options.older_than, clones=options.clone)
    for sentence in planned.held:
        print(f"stays: {sentence}")
    for note in planned.notes:
        print(f"note: {note}")
    rows = [
        (own.what, own.why, "?" if own.num_bytes is None else in_bytes(own.num_bytes))
        for own in planned.removals
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for what, why, size in rows:
        print(f"{what:<{widths[0]}}  {size:>{widths[2]}}  {why}")
    total = in_bytes(sum(own.num_bytes or 0 for own in planned.removals))
    if not rows:
        print("nothing to remove")
    elif options.yes:
        print(f"removed: {total}")
    else:
        print(f"would be removed: {total}; `captioning clean --yes` removes it")
    return 0
