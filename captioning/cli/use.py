"""Write params.yaml from a recipe, with settings replaced."""

import argparse

HELP = "write params.yaml from a recipe, with settings replaced"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("recipe", help="name of a file in recipes/")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="such as train.phases.0.epochs=20")


def run(options: argparse.Namespace) -> int:
    """Write params.yaml."""
    from captioning import recipes

    recipes.use(options.recipe, options.settings)
    print(f"params.yaml is now {options.recipe}; `dvc repro` runs it")
    return 0
