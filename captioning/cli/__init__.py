"""What a user types: `captioning COMMAND`. Each module of this package is one command, found by its name.

A command module has `HELP`, one line; `add_arguments(parser)`; and `run(options)`, which returns the exit code and
refuses by ValueError or OSError. It imports what is slow inside its functions: `--help` reads them all.
"""

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; refuse with one message and exit code 1."""
    options = _parser().parse_args(arguments)
    try:
        sys.exit(options.run(options))
    except (ValueError, OSError) as error:
        print(f"captioning: {error}", file=sys.stderr)
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="captioning", description="Captioned images in, a captioning model in service out."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for found in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{found.name}")
        command = commands.add_parser(found.name, help=module.HELP, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser
