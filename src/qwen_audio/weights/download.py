"""Talking to a hub through huggingface_hub: whole files, patience, and what to say of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import Any

from qwen_audio.errors import CheckpointError

__all__ = [
    "Progress",
    "ProgressCallback",
    "check_reachable",
    "check_repo_name",
    "client",
    "download",
    "hub_error",
    "is_lacking",
    "timeouts",
    "with_retries",
]

ProgressCallback = Callable[[int, int], None]
"""Told how many bytes were brought so far, and how many are to be brought in all."""

_TRIES, _WAIT_SECONDS, _PROGRESS = 3, 0.5, 1 << 20
"""Tries that may fail one after another (a try that brought `_PROGRESS` bytes hasn't failed)."""

_CONNECT_SECONDS = 3.0
_PASSING = (408, 429, 500, 502, 503, 504)


class Progress:
    """The sum of several fetches, each in a thread of its own."""

    def __init__(self, report: ProgressCallback | None) -> None:
        self._report = report
        self._done = self._total = 0
        self._lock = Lock()
        self.stopped = False

    def expect(self, size: int) -> None:
        """Begin with what is to come."""
        self._total, self.stopped = self._done + size, False

    def share(self, size: int) -> Callable[[int], None]:
        """For a fetch to say how many more bytes came, of which `size` count."""
        told = 0

        def arrived(more: int) -> None:
            nonlocal told
            with self._lock:
                if self.stopped:
                    raise CheckpointError("stopped, as another fetch failed")
                more = max(0, min(more, size - told))
                told, self._done = told + more, self._done + more
                if more and self._report is not None:
                    self._report(self._done, self._total)

        return arrived


def check_repo_name(repo: str) -> None:
    """Raises CheckpointError for a name that no hub model can have; the hub is not asked."""
    if repo.count("/") != 1 or repo.startswith((".", "/", "~")):
        raise CheckpointError(
            f"{repo!r} is not a checkpoint: give 'embedded', an existing folder, or a hub "
            "model such as Qwen/Qwen2-Audio-7B-Instruct"
        )


def download(
    repo: str,
    name: str,
    revision: str | None,
    *,
    reached: bool,
    arrived: Callable[[int], None] | None = None,
) -> str:
    """Have a whole file in the hub's cache.

    Args:
        reached: whether the hub has answered before. The client tries for half a minute, and
            can't be told not to: whether there is anybody is asked first.
    """
    from huggingface_hub import hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> None:
            if arrived is not None:
                arrived(int(n or 0))

        def update_transfer(self, n: float) -> None:
            """Not shown: bytes as they were compressed."""

        set_transfer_postfix_str = update_transfer

    try:
        if not reached and not try_to_load_from_cache(repo, name, revision=revision):
            check_reachable(hf_hub_url(repo, name, revision=revision))
        return hf_hub_download(
            repo, name, revision=revision, tqdm_class=None if arrived is None else Bar
        )
    except CheckpointError:
        raise
    except Exception as error:  # the hub client's libraries have errors of their own
        raise hub_error(repo, name, error) from error


def is_lacking(error: CheckpointError) -> bool:
    """Whether it is the hub's own word that there is no such file: what can't be fetched may be."""
    from huggingface_hub.errors import RemoteEntryNotFoundError

    return isinstance(error.__cause__, RemoteEntryNotFoundError)


def hub_error(repo: str, name: str, error: Exception, bytes_present: str = "") -> CheckpointError:
    """What to say of an error of the hub's client or of the disk; `came`: how far it got."""
    import httpx2
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, HfHubHTTPError):
        error = error.__cause__
    reason = " ".join((str(error).strip() or type(error).__name__).split())[:300]
    silence = (OfflineModeIsEnabled, httpx2.ConnectError, httpx2.ConnectTimeout)
    if isinstance(error, (LocalEntryNotFoundError, *silence)):
        what = (
            "is not in the local cache and the hub can't be reached: check the network (or "
            "HF_HUB_OFFLINE), or name a folder"
        )
    elif isinstance(error, OSError) and error.errno is not None:
        what = f"can't be kept on this machine ({reason}): make room, or let HF_HOME name a folder"
    elif bytes_present and isinstance(error, httpx2.TransportError):
        what = f"broke off at {bytes_present} ({reason}): try again, what came is kept"
    else:
        what = (
            f"can't be fetched from the hub ({reason}): check the name, revision, network and "
            "access token"
        )
    return CheckpointError(f"{repo}: {name} {what}")


def check_reachable(url: str) -> None:
    """Whether anybody is there. What they say doesn't matter, unless it is to come back later.

    Raises:
        httpx2.HTTPError: if not.
    """
    hub = client()

    def one_try() -> None:
        answer = hub.get_session().head(
            url, headers=hub.build_hf_headers(), timeout=timeouts(), follow_redirects=False
        )
        if answer.status_code in _PASSING:
            hub.hf_raise_for_status(answer)

    with_retries(one_try, lambda: 0)


def with_retries(one_try: Callable[[], None], brought: Callable[[], int]) -> None:
    """Try again, a few times, what may succeed later."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    failed, before = 0, brought()
    while True:
        try:
            return one_try()
        except httpx2.HTTPError as error:
            if brought() - before >= _PROGRESS:
                failed, before = 0, brought()
            failed += 1
            if isinstance(error, HfHubHTTPError) and error.response.status_code not in _PASSING:
                raise
            if failed == _TRIES:
                raise
            time.sleep(_WAIT_SECONDS * failed)


def timeouts() -> tuple[float, float, float, float]:
    """To connect, and to read, write and wait for one's turn, in seconds."""
    from huggingface_hub import constants

    return (_CONNECT_SECONDS, *(float(constants.HF_HUB_DOWNLOAD_TIMEOUT),) * 3)


def client() -> Any:
    """How huggingface_hub makes its own requests. (It exports that without saying so to mypy.)"""
    from huggingface_hub import utils

    return utils
