"""Caption pictures over HTTP, with a web page: the champion in service, and every later one without a restart.

SIGTERM and Ctrl-C end it once all that was accepted is answered.
"""

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captioning.serving.settings import ServiceSettings

HELP = "serve captions over HTTP, with a web page"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes: an option for each setting."""
    from captioning.serving.settings import ServiceSettings

    for name, field in ServiceSettings.model_fields.items():
        default = "" if field.default in (None, ()) else f" (default: {field.default})"
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            metavar=name.rpartition("_")[2].upper(),
            help=f"{field.description}{default}".replace("%", "%%"),
        )


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    settings = _settings(vars(options))

    from captioning.serving.app import create_app
    from captioning.serving.server import serve

    serve(create_app(settings), settings)
    return 0


def _settings(stated: dict[str, Any]) -> "ServiceSettings":
    from pydantic import ValidationError

    from captioning.serving.settings import ServiceSettings

    values = {name: stated[name] for name in ServiceSettings.model_fields if stated.get(name) is not None}
    try:
        return ServiceSettings.model_validate_strings(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if not first["loc"]:  # of several settings together
            raise ValueError(first["msg"].removeprefix("Value error, ")) from None
        option = f"--{str(first['loc'][0]).replace('_', '-')}"
        raise ValueError(f"{option}: {first['msg']}, got {first['input']!r}") from None
