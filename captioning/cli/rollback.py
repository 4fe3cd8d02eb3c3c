"""Make the version before the champion the champion again; the register stage will not undo it by itself."""

import argparse

from captioning.cli.history import add_model
from captioning.cli.promote import add_reasons

HELP = "make the champion before this one the champion again"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add_model(parser)
    add_reasons(parser)


def run(options: argparse.Namespace) -> int:
    """Exchange the aliases `champion` and `previous`."""
    from captioning import registry
    from captioning.cli.history import model_of
    from captioning.cli.promote import who

    model_name = model_of(options)
    version = registry.rollback(model_name, by=who(options), why=options.why)
    print(f"version {version} is the champion of {model_name} again")
    return 0
