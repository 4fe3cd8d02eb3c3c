"""API keys: `X-API-Key: KEY` or `Authorization: Bearer KEY`, where the service has any.

Several keys may be valid at a time, so that one follows another without a refused request. They stand in
CAPTIONING_API_KEYS, separated by spaces or commas, and one a line in a file, which is read again when it changes.
"""

import hashlib
import hmac
import logging
import os
from pathlib import Path

from starlette.requests import Request

from captioning.serving.guards import is_api
from captioning.serving.problems import Problem

VARIABLE = "CAPTIONING_API_KEYS"
MIN_LENGTH = 16
LOGGER = logging.getLogger(__name__)


class Keys:
    """The valid keys, as digests.

    Args:
        file: of further keys, or None.

    Raises:
        ValueError: there are fewer than meant: the file cannot be read or holds none, or a key is short.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._stated = _digests(os.environ.get(VARIABLE, ""), VARIABLE)
        self._known, self._state = self._stated, None if file is None else _state(file)
        if file is not None:
            self._known = self._stated + _read(file)

    @property
    def are_needed(self) -> bool:
        """Return whether a request needs one."""
        return bool(self._known)

    def check(self, request: Request) -> None:
        """Let a request with a valid key pass, and any where none is needed; note which one it was."""
        if not self.are_needed or not is_api(request) or request.method == "OPTIONS":
            return
        given = _given(request)
        digest = hashlib.sha256(given.encode()).digest()
        self._read_again()
        # each is compared, in a time that does not depend on where they differ
        if not sum(hmac.compare_digest(digest, own) for own in self._known):
            what = "holds a key that is not valid" if given else "holds no key"
            raise Problem(
                401,
                f"the request {what}; send yours in the header X-API-Key",
                title="Key needed",
                headers={"WWW-Authenticate": 'Bearer realm="captioning"'},
            )
        request.scope["captioning.key"] = digest

    def _read_again(self) -> None:
        """Take over what the file holds now; where it holds no keys, go on with those of before."""
        if self._file is None:
            return
        try:
            state = _state(self._file)
            if state != self._state:
                self._known, self._state = self._stated + _read(self._file), state
        except ValueError as error:
            LOGGER.warning("the keys stay as they are: %s", error)


def _given(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    return request.headers.get("x-api-key", "").strip() or bearer


def _state(file: Path) -> tuple[int, int, int]:
    try:
        found = file.stat()
    except OSError as error:
        raise ValueError(f"the file of API keys cannot be read: {error}; correct keys_file") from None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _read(file: Path) -> list[bytes]:
    try:
        text = file.read_text()
    except (OSError, UnicodeError) as error:
        raise ValueError(f"the file of API keys cannot be read: {error}; correct keys_file") from None
    lines = "\n".join(line.partition("#")[0] for line in text.splitlines())
    if not (digests := _digests(lines, str(file))):
        raise ValueError(f"{file} holds no API key; write one a line")
    return digests


def _digests(text: str, where: str) -> list[bytes]:
    keys = text.replace(",", " ").split()
    if short := [key for key in keys if len(key) < MIN_LENGTH]:
        raise ValueError(
            f"{where}: an API key of {len(short[0])} characters can be guessed, expected {MIN_LENGTH} at least; "
            "`python -c 'import secrets; print(secrets.token_urlsafe(32))'` makes one"
        )
    return [hashlib.sha256(key.encode()).digest() for key in keys]
