"""Values of settings that are more than a number: lists, networks, prefixes of storage, other captioners.

Imports nothing slow: `captioning --help` reads the settings.
"""

import ipaddress
import posixpath
import re
from dataclasses import dataclass
from typing import Annotated, Any, Self
from urllib.parse import unquote

from pydantic import AfterValidator, BeforeValidator, Field

WEB_SCHEMES = {"http", "https"}
STORAGE_SCHEMES = {"s3", "gs", "az", "abfs", "abfss"}
PREFIX = re.compile(rf"(?:{'|'.join(sorted(STORAGE_SCHEMES | WEB_SCHEMES))})://[^/?#\s]+(?:/[^?#\s]*)?")
KINDS_OF_OPINIONS = ("azure", "captioning", "mlflow")
OPINION = re.compile(r"(?P<name>[A-Za-z0-9_-]{1,40})=(?P<kind>[a-z]+):(?P<address>https?://\S+)")
KEY_VARIABLE = "CAPTIONING_SECOND_OPINION_KEY"


def check_prefix(prefix: str) -> str:
    """Return a setting's storage prefix, ending in a slash, so that `s3://a` does not stand for `s3://abc`.

    Raises:
        ValueError: it names no bucket, container or server.
    """
    if not PREFIX.fullmatch(prefix) or has_tricks(prefix.partition("://")[2]):
        schemes = ", ".join(sorted(STORAGE_SCHEMES | WEB_SCHEMES))
        raise ValueError(
            f"{prefix!r} is no storage prefix: expected SCHEME://BUCKET/FOLDER/ with one of {schemes}"
        )
    return prefix.rstrip("/") + "/"


def check_network(network: str) -> str:
    """Return a network as a setting names it, such as 10.1.2.0/24; an address stands for itself.

    Raises:
        ValueError: it is none.
    """
    return str(ipaddress.ip_network(network))


def has_tricks(path: str) -> bool:
    """Return whether a path may mean another one to someone who reads it again: `..`, encoded or not, `::`, a query."""
    plain = path
    while (decoded := unquote(plain)) != plain:
        plain = decoded
    folders = plain.removesuffix("/").split("/")
    return (
        any(sign in plain for sign in ("\\", "\0", "::", "?", "#"))
        or any(folder in {"", ".", ".."} for folder in folders)
        or posixpath.normpath(plain) != plain.removesuffix("/")
    )


@dataclass(frozen=True, kw_only=True)
class SecondOpinion:
    """Another captioner."""

    name: str
    """What a request and an answer call it."""
    kind: str
    """One of `KINDS_OF_OPINIONS`."""
    address: str
    """Of the server, without the path of its interface."""

    @property
    def key_variable(self) -> str:
        """Return the variable of the environment that holds its key, if it needs one."""
        return f"{KEY_VARIABLE}_{self.name.upper().replace('-', '_')}"

    @classmethod
    def read(cls, text: str) -> Self:
        """Return the captioner that `NAME=KIND:ADDRESS` names.

        Raises:
            ValueError: it has another form, or the kind is unknown.
        """
        found = OPINION.fullmatch(text)
        if found is None or found["kind"] not in KINDS_OF_OPINIONS:
            raise ValueError(
                f"{text!r} is no second opinion: expected NAME=KIND:ADDRESS with a kind out of "
                f"{', '.join(KINDS_OF_OPINIONS)}, such as azure=azure:https://NAME.cognitiveservices.azure.com/"
            )
        return cls(**found.groupdict())


def check_second_opinion(text: str) -> str:
    """Return a setting that names another captioner.

    Raises:
        ValueError: it does not; see `SecondOpinion.read`.
    """
    SecondOpinion.read(text)
    return text


def _words(value: Any) -> Any:
    """Return the words of a text, separated by commas or spaces, as on a command line."""
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


def _numbers(value: Any) -> Any:
    words = _words(value)
    return tuple(int(word) for word in words) if isinstance(value, str) else words


Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
Numbers = Annotated[tuple[Annotated[int, Field(ge=1, le=65535)], ...], BeforeValidator(_numbers)]
Networks = Annotated[tuple[Annotated[str, AfterValidator(check_network)], ...], BeforeValidator(_words)]
Prefixes = Annotated[tuple[Annotated[str, AfterValidator(check_prefix)], ...], BeforeValidator(_words)]
Opinions = Annotated[
    tuple[Annotated[str, AfterValidator(check_second_opinion)], ...], BeforeValidator(_words)
]
