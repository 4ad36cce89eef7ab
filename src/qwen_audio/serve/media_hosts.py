"""From which hosts a server fetches recordings, and to which addresses of theirs it connects.

A request that names an address makes the server connect to it: without a list of hosts, clients
could reach whatever the server can, such as other services in its network. A name's owner decides
which addresses it has, so those are checked, too.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from qwen_audio.errors import OptionError
from qwen_audio.paths import printable

from .hosts import Authority, parse_authority

__all__ = ["AllowedMediaHosts", "is_public_address"]

_DEFAULT_PORTS = {"http": 80, "https": 443}
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that has been assigned of IPv6 for hosts of the internet."""


class AllowedMediaHosts:
    """Hosts that recordings are fetched from, over http and https.

    Args:
        names: names or IP addresses, "example.org" at the scheme's own port, and "example.org:8080"
            at that port alone. Names don't stand for their subdomains.

    Raises:
        OptionError: for a name that isn't one.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._authorities = frozenset(map(_authority, names))

    def __bool__(self) -> bool:
        return bool(self._authorities)

    def find(self, scheme: str, host: str, port: int | None) -> Authority | None:
        """The host and port of a URL; None unless recordings may be fetched from there.

        Args:
            host: in ASCII; an IPv6 address without brackets.
            port: None for the scheme's own.
        """
        default = _DEFAULT_PORTS.get(scheme)
        given = parse_authority(f"[{host}]" if ":" in host else host)
        if default is None or given is None:
            return None
        found = Authority(given.host, default if port is None else port)
        allowed = {found}
        if found.port == default:
            allowed.add(Authority(given.host, None))
        return found if allowed & self._authorities else None


def is_public_address(text: str) -> bool:
    """Whether an IP address is one of the public internet: not private, shared, loopback,
    link-local, multicast or reserved, nor an IPv6 address that stands for an IPv4 address."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and (
        address not in _GLOBAL_UNICAST or address.sixtofour is not None
    ):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


def _authority(name: str) -> Authority:
    try:
        ascii_name = name if name.isascii() else name.encode("idna").decode()
    except UnicodeError:
        ascii_name = ""
    is_bare_ipv6 = ascii_name.count(":") > 1 and not ascii_name.startswith("[")
    authority = parse_authority(f"[{ascii_name}]" if is_bare_ipv6 else ascii_name)
    if authority is None:
        raise OptionError(
            f"{printable(name)!r:.80} is not the name of a host: give a name such as "
            "media.example.org, or media.example.org:8080, without https://"
        )
    return authority
