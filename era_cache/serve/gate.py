"""Who may ask the server: loopback only, or whoever holds the token, and never under another name.

In: the address to bind, the headers of a request. Out: yes or no. Two attacks are meant: another
machine or user that asks directly, and a page elsewhere whose host name is made to point here (DNS
rebinding), whose requests carry that other name.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
import socket
from collections.abc import Sequence

from era_cache.errors import InputError

__all__ = ["Gate", "bind_address", "make_token"]

LEAST_TOKEN = 16
_TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,256}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}")
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^:\[\]@/\s]+)(?::(?P<port>[0-9]{1,5}))?")


def make_token(given: str | None) -> str | None:
    """The token to ask for: as given, a new one for ``auto``, or none.

    Raises:
        InputError: it is short, or could not stand in an address as it is.
    """
    if given is None:
        return None
    if given == "auto":
        return secrets.token_urlsafe(24)
    if not _TOKEN.fullmatch(given):
        raise InputError(
            f"--token: expected at least {LEAST_TOKEN} letters, digits or . _ ~ - (at most 256), "
            "or 'auto', which makes one."
        )
    return given


def bind_address(host: str, *, has_token: bool) -> tuple[socket.AddressFamily, str]:
    """Find the address of a host to listen on.

    Args:
        host: name or number.
        has_token: whether requests need a token; without, only loopback is allowed.

    Returns:
        (family, numeric address).

    Raises:
        InputError: the host is unknown, or not loopback and there is no token.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise InputError(f"--host {host}: no such host. The default is 127.0.0.1.") from error
    family, address = found[0][0], str(found[0][4][0])
    if not has_token and not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        raise InputError(
            f"--host {host} can be reached from other machines. Add --token auto, which makes a "
            "token that every request must show, or stay on 127.0.0.1."
        )
    return family, address


class Gate:
    """The rules of one running server.

    Args:
        host: as the user gave it.
        address: the number it was bound to.
        port: likewise.
        token: every request must show it; None asks for none.
        names: by which it is reached through a proxy, with any port.
    """

    def __init__(
        self, host: str, address: str, port: int, token: str | None, names: Sequence[str] = ()
    ) -> None:
        self._port, self._token = port, token
        self._others = {name.lower() for name in names}
        for name in names:
            if not _NAME.fullmatch(name):
                raise InputError(f"--name {name[:80]!r}: expected a host name, without a port.")
        self.cookie_name = f"era-search-{port}"  # browsers send cookies to all ports of a host
        bound = ipaddress.ip_address(address.partition("%")[0])
        self._names = {host.lower(), _in_address(address)}
        self._any_number = bound.is_unspecified
        if bound.is_loopback or bound.is_unspecified:
            self._names |= {"localhost", "127.0.0.1", "[::1]"}
        if bound.is_unspecified:
            self._names.add(socket.gethostname().lower())

    def knows_host(self, headers: Sequence[str]) -> bool:
        """Whether a request names this server.

        Where all addresses are listened on, any number will do: rebinding needs a name.

        Args:
            headers: values of the request's Host headers; there must be one.
        """
        match = _HOST.fullmatch(headers[0].strip()) if len(headers) == 1 else None
        if match is None:
            return False
        name = match["name"].lower()
        if name in self._others:
            return True
        if int(match["port"] or 80) != self._port:
            return False
        return name in self._names or (self._any_number and _is_number(name))

    def admits(self, tokens: Sequence[str], cookies: Sequence[str]) -> bool:
        """Whether a request shows the token, among those that it gives or in a cookie."""
        if self._token is None:
            return True
        shown = list(tokens)
        for part in ";".join(cookies).split(";"):
            name, _, value = part.strip().partition("=")
            if name == self.cookie_name:
                shown.append(value)
        # Each comparison takes the same time whatever was shown; all of them are made.
        same = [hmac.compare_digest(value.encode(), self._token.encode()) for value in shown]
        return any(same)

    def cookie(self) -> dict[str, str]:
        """The header that spares the next request the token; nothing where none is asked for."""
        if self._token is None:
            return {}
        value = f"{self.cookie_name}={self._token}; Path=/; HttpOnly; SameSite=Strict"
        return {"Set-Cookie": value}


def _in_address(address: str) -> str:
    """A number as it stands in an address: IPv6 in brackets."""
    return f"[{address}]" if ":" in address else address


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
