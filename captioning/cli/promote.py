"""Make a version the champion, whatever the register stage decided about it."""

import argparse

from captioning.cli.history import add_model

HELP = "make a version the champion by hand"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("version", metavar="VERSION", help="number of a registered version")
    add_model(parser)
    add_reasons(parser)


def add_reasons(parser: argparse.ArgumentParser) -> None:
    """Add who does it and why, for the history."""
    parser.add_argument("--by", metavar="NAME", help="who decides (default: the user of this machine)")
    parser.add_argument("--why", default="by hand", metavar="TEXT", help="for the history (default: by hand)")


def who(options: argparse.Namespace) -> str:
    """Return who decides."""
    import getpass

    try:
        return str(options.by or getpass.getuser())
    except (OSError, KeyError):  # a container's user without a name
        return "unknown"


def run(options: argparse.Namespace) -> int:
    """Move the alias `champion`; the champion before becomes `previous`."""
    from captioning import registry
    from captioning.cli.history import model_of

    model_name = model_of(options)
    registry.promote(model_name, options.version, by=who(options), why=options.why)
    print(f"version {options.version} is the champion of {model_name}; `captioning rollback` takes it back")
    return 0
