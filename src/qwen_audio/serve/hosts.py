"""Which hosts a server answers for, and which origins are its own.

A browser sends the name that the page's address has. With DNS rebinding, another site's name
resolves to this server: its pages could read everything if the Host header weren't checked. An IP
address as a host can't be rebound.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from typing import NamedTuple

from qwen_audio.errors import OptionError
from qwen_audio.paths import printable

__all__ = ["AllowedHosts", "Authority", "is_ip_address", "parse_authority"]

_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::([0-9]{1,5}))?", re.IGNORECASE)
_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_HTTP, _HTTPS = frozenset({"http"}), frozenset({"https"})
_WILDCARDS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 (compared with, not listened on)


class Authority(NamedTuple):
    """Host and port of a URL.

    Attributes:
        host: a name in lower case without a trailing dot, or an address as `ipaddress` writes it.
        port: None if it isn't given.
    """

    host: str
    port: int | None


def parse_authority(text: str) -> Authority | None:
    """A Host header or the authority of an origin; None if it is malformed.

    User information, zones of IPv6 addresses, non-ASCII letters and shortened IPv4 addresses are
    malformed: browsers never send them.
    """
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        return None
    host, port = match[1].lower(), int(match[2]) if match[2] else None
    if port is not None and not 0 < port < 65536:
        return None
    if host.startswith("["):
        address = _ip_address(host[1:-1])
        return Authority(address, port) if address else None
    host = host.removesuffix(".")
    if len(host) > 253 or not _NAME.fullmatch(host):
        return None
    if host.rpartition(".")[2].isdigit():  # WHATWG URL: its last label makes it an IPv4 address
        address = _ip_address(host)
        return Authority(address, port) if address else None
    return Authority(host, port)


def _ip_address(text: str) -> str | None:
    """An address in one spelling; None for anything else. IPv4 mapped to IPv6 is IPv4."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return str(getattr(address, "ipv4_mapped", None) or address)


def is_ip_address(host: str) -> bool:
    """Whether a host is an address and not a name."""
    return _ip_address(host) is not None


class AllowedHosts:
    """The hosts that a server answers for. Any port is allowed, as tunnels change it.

    Always the loopback names and addresses; the host that it listens on; if that is every address
    of the machine, any IP address and the machine's name; and what `allow` adds.

    Args:
        listen: the host that the server listens on.
        names: further names, as a reverse proxy passes them on, over http or https.

    Raises:
        OptionError: for a name that isn't one.
    """

    def __init__(self, listen: str = "127.0.0.1", names: Iterable[str] = ()) -> None:
        listen = listen.strip("[]").partition("%")[0].lower()
        self._any_address = listen in _WILDCARDS
        self._schemes = {"localhost": _HTTP}
        if self._any_address:
            machine = socket.gethostname().lower()
            label = machine.partition(".")[0]
            own = {machine, label, f"{label}.local"}
        else:
            own = {_ip_address(listen) or listen.removesuffix(".")}
        self._schemes |= dict.fromkeys(own, _HTTP)
        for name in names:
            self.allow(name, _HTTP | _HTTPS)

    def allow(self, name: str, schemes: Iterable[str] = _HTTPS) -> None:
        """Answer for another host, which browsers reach over these schemes.

        Raises:
            OptionError: if it isn't the name or address of a host.
        """
        try:
            ascii_name = name if name.isascii() else name.encode("idna").decode()
        except UnicodeError:
            ascii_name = ""
        bracketed = f"[{ascii_name}]" if ascii_name.count(":") > 1 else ascii_name
        authority = parse_authority(bracketed)
        if authority is None or authority.port is not None:
            raise OptionError(
                f"{printable(name)!r:.80} is not the name of a host: give a name such as "
                "music.example.org, without https:// and port"
            )
        self._schemes[authority.host] = frozenset(schemes)

    def schemes(self, host: str) -> frozenset[str]:
        """How browsers reach this host: no scheme if the server doesn't answer for it."""
        if host in self._schemes:
            return self._schemes[host]
        if not is_ip_address(host):
            return frozenset()
        is_ours = self._any_address or ipaddress.ip_address(host).is_loopback
        return _HTTP if is_ours else frozenset()

    def is_same_origin(self, origin: str, host: Authority) -> bool:
        """Whether an Origin header is that of the pages that are served at this host."""
        scheme, separator, rest = origin.partition("://")
        scheme, authority = scheme.lower(), parse_authority(rest)
        if not separator or authority is None or scheme not in self.schemes(host.host):
            return False
        default = _DEFAULT_PORTS[scheme]
        return (authority.host, authority.port or default) == (host.host, host.port or default)
