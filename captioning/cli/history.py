"""Say which versions were the champion: since when, by whom, why, and from which run; and what is named now."""

import argparse
import json

HELP = "which versions were the champion: when, by whom, why"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add_model(parser)
    parser.add_argument("--json", action="store_true", help="one JSON line a promotion")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the registered model."""
    parser.add_argument("--model", metavar="NAME", help="registered model (default: register.model_name)")


def model_of(options: argparse.Namespace) -> str:
    """Return the registered model that is meant."""
    from captioning import params

    return str(options.model or params.read()["register"]["model_name"])


def run(options: argparse.Namespace) -> int:
    """Print every promotion, the earliest first, and the aliases as they are."""
    from dataclasses import asdict

    from captioning.aliases import CHAMPION, aliases, history

    model_name = model_of(options)
    promotions, named = history(model_name), aliases(model_name)
    if options.json:
        for promotion in promotions:
            print(json.dumps(asdict(promotion), ensure_ascii=False))
        return 0
    for promotion in promotions:
        what = "back to" if promotion.is_rollback else "champion"
        after = f" after {promotion.from_version}" if promotion.from_version else ""
        print(
            f"{promotion.at}  {what} {promotion.version}{after}, by {promotion.by}, run {promotion.run_id[:8]}"
        )
        print(f"  {promotion.why}")
    now = ", ".join(f"{alias} is version {version}" for alias, version in sorted(named.items()))
    print(f"{model_name}: {now or 'no version is named'}")
    last = promotions[-1].version if promotions else None
    if last != named.get(CHAMPION):
        print("The champion was named by other means than `captioning` since, of which no more is known.")
    return 0
