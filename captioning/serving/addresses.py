"""Which addresses a request may name: http and https on the public internet, and storage that a setting names."""

import ipaddress
import re
from collections.abc import Sequence

from yarl import URL

from captioning.downloads.addresses import is_public
from captioning.serving.problems import Problem
from captioning.serving.setting_values import STORAGE_SCHEMES, WEB_SCHEMES, check_prefix, has_tricks

NOT_ALLOWED, NO_ADDRESS = "Address not allowed", "Not an address"


class Rules:
    """What may be asked, and what an address is refused with.

    Args:
        public: whether any address of the public internet may be asked.
        networks: such as 10.1.2.0/24; addresses that may be asked although they are not public.
        ports: of web addresses that may be asked.
        prefixes: of storage; see `check_prefix`.
    """

    def __init__(
        self, *, public: bool, networks: Sequence[str], ports: Sequence[int], prefixes: Sequence[str]
    ) -> None:
        self._public, self._ports = public, frozenset(ports)
        self._networks = [ipaddress.ip_network(own) for own in networks]
        self._prefixes = [check_prefix(own) for own in prefixes]

    def is_allowed(self, ip: str, port: int) -> bool:
        """Return whether a connection may be made to an IP address; asked of the very one that it goes to."""
        return port in self._ports and self._is_allowed(ip)

    def _is_allowed(self, ip: str) -> bool:
        address = ipaddress.ip_address(ip.partition("%")[0])
        return is_public(ip) or any(address in network for network in self._networks)

    def is_storage(self, address: str) -> bool:
        """Return whether an address is one of storage that fsspec reads, allowed or not."""
        return _scheme(address) in STORAGE_SCHEMES

    def storage(self, address: str) -> tuple[str, str]:
        """Return the scheme of an allowed storage address, and the path of the object.

        Raises:
            Problem: 403, it lies under no prefix that is allowed.
        """
        scheme, path = _scheme(address), address.partition("://")[2]
        if not path.isprintable() or has_tricks(path) or not self._has_prefix(f"{scheme}://{path}"):
            raise Problem(403, self._refusal(address), title=NOT_ALLOWED)
        return scheme, path

    def web(self, address: str) -> URL:
        """Return an http or https address that may be asked, as far as can be seen before its name is resolved.

        Raises:
            Problem: 422 it is no address, 403 it may not be asked.
        """
        if not address.isprintable() or "\\" in address or not _scheme(address):
            raise _no_address(address, "expected https://...")
        if _scheme(address) not in WEB_SCHEMES:
            raise Problem(403, self._refusal(address), title=NOT_ALLOWED)
        try:
            # as it stands where it can be: it may be signed
            url = URL(address, encoded=bool(re.fullmatch(r"[!-~]+", address)))
            host, port = url.host, url.port
        except ValueError as error:
            raise _no_address(address, str(error)) from None
        if not host or not port:
            raise _no_address(address, "it names no server")
        self._refuse_part(address, url, host, port)
        return url

    def _refuse_part(self, address: str, url: URL, host: str, port: int) -> None:
        if url.raw_user is not None or url.raw_password is not None:
            sentence = (
                f"{_short(address)} holds a user name or password, which are not passed on; take them out"
            )
            raise Problem(403, sentence, title=NOT_ALLOWED)
        if port not in self._ports:
            allowed = ", ".join(map(str, sorted(self._ports)))
            sentence = (
                f"{_short(address)} names port {port}; only {allowed} are asked: send the picture itself"
            )
            raise Problem(403, sentence, title=NOT_ALLOWED)
        if _is_ip(host) and not self._is_allowed(host):
            raise self.private(address)
        if not self._public and not self._is_stored(url):
            raise Problem(403, self._refusal(address), title=NOT_ALLOWED)

    def private(self, address: str) -> Problem:
        """Return the refusal of an address that leads to a private network."""
        sentence = (
            f"{_short(address)} does not lead to a public address of the internet; send the picture itself"
        )
        return Problem(403, sentence, title=NOT_ALLOWED)

    def _is_stored(self, url: URL) -> bool:
        """Return whether a web address lies under a prefix, wherever it came from: a signed one has a query, too."""
        return not has_tricks(url.raw_path.removeprefix("/")) and self._has_prefix(
            f"{url.origin()}{url.raw_path}"
        )

    def _has_prefix(self, address: str) -> bool:
        return any(address.startswith(prefix) and address != prefix for prefix in self._prefixes)

    def _refusal(self, address: str) -> str:
        kinds = ["http and https addresses of the public internet"] if self._public else []
        if self._prefixes:
            kinds.append("what lies under the storage prefixes that this service allows")
        allowed = " and ".join(kinds) or "none"
        return f"{_short(address)} is not an address that this service may read ({allowed}); send the picture itself"


def _no_address(address: str, why: str) -> Problem:
    return Problem(422, f"{_short(address)} is no address: {why}", title=NO_ADDRESS)


def _scheme(address: str) -> str:
    scheme, has_scheme, _ = address.partition("://")
    return scheme.lower() if has_scheme and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme) else ""


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _short(address: str) -> str:
    """Return an address as a sentence can hold it, without a query, which may be a signature."""
    plain = address.partition("?")[0]
    return repr(plain if len(plain) <= 200 else f"{plain[:197]}...")
