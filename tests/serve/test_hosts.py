"""Hosts that a server answers for, and its own origins."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

import qwen_audio as qa
from qwen_audio.serve.hosts import AllowedHosts, Authority, parse_authority


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("localhost", ("localhost", None)),
        ("LocalHost:80", ("localhost", 80)),
        ("localhost.", ("localhost", None)),
        ("127.0.0.1:7860", ("127.0.0.1", 7860)),
        ("[::1]:7860", ("::1", 7860)),
        ("[0:0:0:0:0:0:0:1]", ("::1", None)),
        ("[::FFFF:127.0.0.1]", ("127.0.0.1", None)),
        ("xn--mller-kva.example", ("xn--mller-kva.example", None)),
        *(
            (malformed, None)
            for malformed in (
                *("", ":80", "a:", "a:0", "a:65536", "a:99999999999", "a:1:2", "a:-1", "a:٣"),
                *("user@localhost", "localhost/", "localhost?", "localhost,evil", "a b", "a..b"),
                *("localhost..", ".", "::1", "[::1", "[fe80::1%eth0]", "[evil]", "[127.0.0.1"),
                *("127.1", "127.0.0.1.1", "1", "0127.0.0.1", "256.0.0.1", "müller.example"),
                *("a" * 64, "a." * 130 + "a", "localhost\x00", "localhost\n", "http://localhost"),
            )
        ),
    ],
)
def test_authorities(text: str, expected: tuple[str, int | None] | None) -> None:
    assert parse_authority(text) == expected


@given(st.text(st.characters(codec="latin-1"), max_size=40))
def test_no_text_of_a_header_is_an_error(text: str) -> None:
    authority = parse_authority(text)
    assert authority is None or authority.host.isascii()
    AllowedHosts("0.0.0.0").is_same_origin(text, Authority("localhost", None))


def allowed(hosts: AllowedHosts, text: str) -> bool:
    authority = parse_authority(text)
    return authority is not None and bool(hosts.schemes(authority.host))


LOOPBACK = ("localhost:1", "LOCALHOST.", "127.0.0.1", "127.9.9.9:7860", "[::1]:7860", "[::1]")
FOREIGN = ("evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "evil-localhost", "0x7f.1")


@pytest.mark.parametrize("listen", ["127.0.0.1", "localhost", "::1", "[::1]"])
def test_a_local_server_answers_for_loopback_hosts_only(listen: str) -> None:
    hosts = AllowedHosts(listen)
    assert all(allowed(hosts, host) for host in LOOPBACK)
    for host in (*FOREIGN, "0.0.0.0", "192.168.1.5", "[fd00::1]", socket.gethostname() + "x"):
        assert not allowed(hosts, host), host


def test_a_server_of_one_address_answers_for_it() -> None:
    hosts = AllowedHosts("192.168.1.5")
    assert allowed(hosts, "192.168.1.5:7860")
    assert not allowed(hosts, "192.168.1.6")
    assert allowed(AllowedHosts("[FD00::1%eth0]"), "[fd00:0::1]")
    assert allowed(AllowedHosts("MusicBox."), "musicbox:7860")


@pytest.mark.parametrize("listen", ["0.0.0.0", "::", ""])
def test_a_server_of_all_addresses_answers_for_addresses_and_the_machines_name(
    listen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "MusicBox.lan.example")
    hosts = AllowedHosts(listen)
    own = ("musicbox", "musicbox.lan.example:7860", "musicbox.local", "192.168.1.5", "[fd00::1]")
    assert all(allowed(hosts, host) for host in (*LOOPBACK, *own))
    assert not any(allowed(hosts, host) for host in (*FOREIGN, "otherbox", "lan.example"))


def test_further_hosts() -> None:
    hosts = AllowedHosts("127.0.0.1", ["Music.Example.Org", "Müller.example", "fd00::7"])
    for host in ("music.example.org:8443", "xn--mller-kva.example", "[fd00::7]"):
        assert allowed(hosts, host), host
    assert not allowed(hosts, "x.music.example.org")
    hosts.allow("abc.gradio.live")
    assert hosts.schemes("abc.gradio.live") == {"https"}


@pytest.mark.parametrize(
    "name",
    ["", "https://a.example", "a.example:80", "a/b", "*", ".a.example", "a@b", "\ud800", "ä" * 70],
)
def test_what_is_no_host_cannot_be_allowed(name: str) -> None:
    with pytest.raises(qa.OptionError, match="is not the name of a host"):
        AllowedHosts("127.0.0.1", [name])


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("http://localhost:7860", "localhost:7860", True),
        ("HTTP://LOCALHOST:7860", "localhost:7860", True),
        ("http://localhost", "localhost:80", True),
        ("http://[::1]:7860", "[0::1]:7860", True),
        ("http://localhost:7861", "localhost:7860", False),
        ("http://localhost", "localhost:7860", False),
        ("http://127.0.0.1:7860", "localhost:7860", False),
        ("https://localhost:7860", "localhost:7860", False),
        ("null", "localhost:7860", False),
        ("", "localhost:7860", False),
        ("localhost:7860", "localhost:7860", False),
        ("http://localhost:7860/", "localhost:7860", False),
        ("http://localhost:7860 http://evil", "localhost:7860", False),
        ("http://user@localhost:7860", "localhost:7860", False),
        ("http://localhost:7860.evil.example", "localhost:7860", False),
        ("chrome-extension://localhost:7860", "localhost:7860", False),
        ("file://", "localhost:7860", False),
        ("https://proxied.example", "proxied.example", True),
        ("http://proxied.example:8080", "proxied.example:8080", True),
        ("https://proxied.example:443", "proxied.example", True),
        ("https://proxied.example:80", "proxied.example", False),
        ("https://evil.example", "proxied.example", False),
    ],
)
def test_origins(origin: str, host: str, same: bool) -> None:
    authority = parse_authority(host)
    assert authority is not None
    hosts = AllowedHosts("127.0.0.1", ["proxied.example"])
    assert hosts.is_same_origin(origin, authority) == same
