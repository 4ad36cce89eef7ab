"""Recordings that requests name by address, fetched from hosts that are allowed."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx2

from qwen_audio import __version__

from .api_errors import ParameterError
from .body import ByteBudget, Reservation
from .engine import BusyError
from .hosts import Authority, is_ip_address
from .limits import ApiLimits
from .media_hosts import AllowedMediaHosts, is_public_address

__all__ = ["Download", "MediaFetcher"]

_TIMEOUT = httpx2.Timeout(10.0, connect=5.0)
"""Of each operation; `ApiLimits.fetch_seconds` is the limit of all together."""
_REDIRECTS = 3
_REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
_HEADERS = {
    "accept": "audio/*, video/*;q=0.9, */*;q=0.5",
    "accept-encoding": "identity",  # what is compressed again may be a bomb
    "user-agent": f"qwen-audio/{__version__}",
}


class MediaFetcher:
    """Fetches recordings with GET, without credentials, cookies or proxies of this machine.

    Of every address, also of those that it is redirected to, the host has to be allowed, and a
    name's IP addresses public. It connects to the IP address that was checked, as a name may have
    another one the next time that it is looked up.

    Args:
        hosts: that are allowed; see `AllowedMediaHosts`.
        limits: `fetch_seconds` and `request_bytes` for all recordings of one request; `slots`
            requests fetch at the same time, and `queue_size` wait to.
    """

    def __init__(self, hosts: Iterable[str], limits: ApiLimits) -> None:
        self.hosts, self.limits = AllowedMediaHosts(hosts), limits
        self.memory = ByteBudget(limits.upload_memory_bytes)
        self._turns = asyncio.Semaphore(limits.slots)
        self._requests = 0
        # Looking up a name blocks a thread: one apart from all other work.
        self._resolvers = ThreadPoolExecutor(limits.slots, "resolve")

    @contextmanager
    def download(self, texts: Mapping[str, str]) -> Iterator[Download]:
        """What a request has to fetch. Its memory is counted until the context ends.

        Args:
            texts: JSON path → what the request says there: addresses, or anything else.

        Raises:
            ParameterError: (400) for an address that is refused.
            BusyError: if too many requests fetch recordings.
        """
        urls = {place: _url(place, text) for place, text in texts.items() if _is_url(text)}
        for place, url in urls.items():
            self.authority(place, url)
        if urls and self._requests >= self.limits.slots + self.limits.queue_size:
            raise BusyError("Too many recordings are being fetched: try again in a few seconds.")
        download = Download(self, urls)
        self._requests += bool(urls)
        try:
            with download.memory:
                yield download
        finally:
            self._requests -= bool(urls)

    def close(self) -> None:
        """End the threads."""
        self._resolvers.shutdown(wait=False, cancel_futures=True)

    async def run(self, download: Download) -> None:
        """Fetch all of its recordings, one after another.

        Raises:
            ParameterError: (400) for an address that is refused, or gives no file; (413) if all of
                them are larger than a request may be.
            RequestError: (503) if there is no memory for them.
        """
        place, seconds = "", self.limits.fetch_seconds
        async with self._turns:
            try:
                async with asyncio.timeout(seconds):
                    for place, url in download.urls.items():
                        await self._fetch(download, place, url)
            except TimeoutError:
                raise _unavailable(place, f"takes longer than {seconds:g} s") from None

    def authority(self, place: str, url: httpx2.URL) -> Authority:
        """The host and port of a URL.

        Raises:
            ParameterError: (400) if it is not allowed.
        """
        if url.userinfo:
            message = f"{place} has a user name or password, which this server doesn't send."
            raise ParameterError(400, message, place, "invalid_url")
        host, port = url.raw_host.decode(), url.port
        authority = self.hosts.find(url.scheme, host, port)
        if authority is None:
            shown = f"[{host}]" if ":" in host else host[:80]
            shown += "" if port is None else f":{port}"
            raise ParameterError(
                400,
                f"{place}: this server doesn't fetch from {shown}: send the bytes of the file as "
                f"data:audio/wav;base64,…, or start the server with --allow-media-host {shown}",
                place,
                "invalid_url",
            )
        return authority

    async def _fetch(self, download: Download, place: str, url: httpx2.URL) -> None:
        """Fetch one recording, following redirects."""
        for _ in range(1 + _REDIRECTS):
            try:
                location = await self._get(download, place, url)
                if location is None:
                    return
                url = url.join(location)
            except (httpx2.HTTPError, httpx2.InvalidURL, OSError, UnicodeError) as error:
                raise _unavailable(place, f"failed ({_reason(error)})") from error
        raise _unavailable(place, f"was redirected more than {_REDIRECTS} times")

    async def _get(self, download: Download, place: str, url: httpx2.URL) -> str | None:
        """Fetch what is at a URL; returns the target if that is a redirect."""
        authority = self.authority(place, url)
        addresses = await self._addresses(place, authority)
        headers = {**_HEADERS, "host": url.netloc.decode()}
        is_name = not is_ip_address(authority.host)
        tls = {"sni_hostname": authority.host} if is_name else {}
        while True:
            target = url.copy_with(host=addresses.pop(0))
            async with httpx2.AsyncClient(
                verify=self._tls, trust_env=False, timeout=_TIMEOUT
            ) as client:
                try:
                    async with client.stream(
                        "GET", target, headers=headers, extensions=tls
                    ) as response:
                        return await _receive(download, place, response)
                except (httpx2.ConnectError, httpx2.ConnectTimeout):
                    if not addresses:
                        raise

    async def _addresses(self, place: str, authority: Authority) -> list[str]:
        """The IP addresses of a host that may be connected to."""
        host, port = authority
        if is_ip_address(host):  # was allowed by the one who started the server
            return [host]
        found = await asyncio.get_running_loop().run_in_executor(
            self._resolvers, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        addresses = dict.fromkeys(str(address[0]) for *_, address in found)
        public = list(filter(is_public_address, addresses))
        if not public:
            raise ParameterError(
                400,
                f"{place}: {host} has no public IP address, and the server connects to no other: a "
                "host in its own network has to be allowed by its address.",
                place,
                "invalid_url",
            )
        return public

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        return httpx2.create_ssl_context(trust_env=False)


class Download:
    """The recordings that one request names by address.

    Attributes:
        urls: by JSON path.
        files: what has been fetched of them.
        memory: of the files.
    """

    def __init__(self, fetcher: MediaFetcher, urls: Mapping[str, httpx2.URL]) -> None:
        self.urls, self.files = urls, dict[str, bytes]()
        self.memory, self._limit = Reservation(fetcher.memory), fetcher.limits.request_bytes

    def check_size(self, place: str, nbytes: int) -> None:
        """Raises ParameterError (413) if this many more bytes are too many."""
        if self.memory.nbytes + nbytes > self._limit:
            raise ParameterError(
                413,
                f"{place}: the recordings of a request may have {self._limit / 2**20:g} MB "
                "together, the limit of this server: choose shorter ones.",
                place,
                "audio_too_large",
            )

    def take(self, place: str, nbytes: int) -> None:
        """Count bytes that have arrived."""
        self.check_size(place, nbytes)
        self.memory.take(nbytes)


async def _receive(download: Download, place: str, response: httpx2.Response) -> str | None:
    """Add the body of a response; of a redirect, return the target."""
    location = response.headers.get("location")
    if response.status_code in _REDIRECT_STATUSES and location is not None:
        return str(location)
    if response.status_code != 200:
        raise _unavailable(place, f"was answered with status {response.status_code}")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise _unavailable(place, "was answered with a compressed body")
    length = response.headers.get("content-length", "")
    download.check_size(place, int(length) if length.isdigit() else 0)
    parts = []
    async for part in response.aiter_raw():
        download.take(place, len(part))
        parts.append(part)
    download.files[place] = b"".join(parts)
    return None


def _url(place: str, text: str) -> httpx2.URL:
    """Raises ParameterError (400) for a text that is no URL."""
    try:
        return httpx2.URL(text)
    except httpx2.InvalidURL:
        raise ParameterError(400, f"{place} is no valid URL.", place, "invalid_url") from None


def _is_url(text: str) -> bool:
    """Whether a text is a URL that may be fetched, and not the bytes of a recording."""
    return text[:8].lower().startswith(("http://", "https://"))


def _unavailable(place: str, what: str) -> ParameterError:
    message = f"{place}: fetching the recording {what}: check the address, or send the bytes."
    return ParameterError(400, message, place, "media_unavailable")


def _reason(error: Exception) -> str:
    """Why fetching failed, in some words."""
    if isinstance(error, socket.gaierror):
        return "there is no host of this name"
    if isinstance(error, httpx2.TimeoutException):
        return "no answer in time"
    return str(error).partition("\n")[0][:100] or type(error).__name__
