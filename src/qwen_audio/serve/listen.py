"""Sockets to listen on: of one host, at a given port or the first free one of several."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable

from qwen_audio.errors import OptionError, whole_number_option

__all__ = ["listen", "local_url"]


def listen(host: str, port: int | None, ports: Iterable[int]) -> socket.socket:
    """A listening socket, which the caller closes.

    Args:
        port: None for the first free one of `ports`.

    Raises:
        OptionError: if the host or the port can't be used, or all ports are taken.
    """
    if port is not None:
        port = whole_number_option("port", port, 1, 65535)
    candidates = list(ports) if port is None else [port]
    for candidate in candidates:
        try:
            infos = socket.getaddrinfo(host.strip("[]"), candidate, type=socket.SOCK_STREAM)
            family, kind, protocol, _, address = infos[0]
            server = socket.socket(family, kind, protocol)
        except (OSError, UnicodeError) as error:
            raise _unknown_host(host) from error
        try:
            if os.name == "posix":  # Windows would share a port that is in use
                server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(address)
            server.listen(2048)
        except OSError as error:
            server.close()
            if error.errno == errno.EADDRNOTAVAIL:
                raise _unknown_host(host) from error
        else:
            return server
    if port is None:
        first, last = candidates[0], candidates[-1]
        raise OptionError(f"ports {first} to {last} are all in use: choose another")
    raise OptionError(
        f"port={port} is in use, or needs privileges: choose another, or leave it out for the next "
        "free one"
    )


def _unknown_host(host: str) -> OptionError:
    return OptionError(
        f"host={host!r} is not an address of this machine: use 127.0.0.1, or 0.0.0.0 to accept "
        "connections from others"
    )


def local_url(host: str, sock: socket.socket) -> str:
    """The address of a listening socket for a browser on this machine."""
    host = host.strip("[]")
    if host in ("", "0.0.0.0", "::"):  # noqa: S104 (every address: this one among them)
        host = "localhost"
    return f"http://{f'[{host}]' if ':' in host else host}:{sock.getsockname()[1]}/"
