"""Downloads through huggingface_hub: whole files, retries and progress."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

from qwen_audio.errors import CheckpointError
from qwen_audio.paths import is_file, is_folder

from .hub_errors import TRANSIENT_STATUS_CODES, hub_error, is_of_storage

__all__ = [
    "Progress",
    "ProgressCallback",
    "check_adapter_name",
    "check_reachable",
    "check_repo_name",
    "download_file",
    "hub_client",
    "is_absent",
    "list_files",
    "timeouts",
    "with_retries",
]

ProgressCallback = Callable[[int, int], None]
"""Called with the bytes downloaded so far, and the bytes to download in total."""

_MAX_FAILURES, _RETRY_SECONDS, _PROGRESS_BYTES = 3, 0.5, 1 << 20
"""Failures in a row before giving up (one that received `_PROGRESS_BYTES` starts the count anew);
wait before the first retry, and that much more before each further one."""

_CONNECT_SECONDS = 3.0
_MAX_WAIT_SECONDS = 60
"""For a server that says when to try again; one that says later is given up."""


class Progress:
    """Total progress of several downloads, each in its own thread.

    Attributes:
        cancelled: set to end all downloads at their next report.
    """

    def __init__(self, report: ProgressCallback | None) -> None:
        self._report = report
        self._done = self._total = 0
        self._lock = Lock()
        self.cancelled = False

    def expect(self, size: int) -> None:
        """Start downloads of `size` bytes in total."""
        self._total, self.cancelled = self._done + size, False

    def counter(self, size: int) -> Callable[[int], None]:
        """A callback for one download to report bytes received; at most `size` are counted."""
        counted = 0

        def on_bytes(received: int) -> None:
            nonlocal counted
            with self._lock:
                if self.cancelled:
                    raise CheckpointError("cancelled, as another download failed")
                received = max(0, min(received, size - counted))
                counted, self._done = counted + received, self._done + received
                if received and self._report is not None:
                    self._report(self._done, self._total)

        return on_bytes


def check_repo_name(repo: str) -> None:
    """Raises CheckpointError for a name that no hub model can have; the hub is not asked."""
    if is_file(Path(repo).expanduser()):
        raise CheckpointError(f"{repo!r} is a file: give the folder of the checkpoint")
    if not _may_be_repo(repo):
        raise CheckpointError(
            f"{repo!r} is not a checkpoint: give 'embedded', an existing folder, or a hub "
            "model such as Qwen/Qwen2-Audio-7B-Instruct"
        )


def check_adapter_name(adapter: str) -> None:
    """Raises CheckpointError for what is neither a folder nor may be a model on a hub."""
    is_local = bool(adapter) and is_folder(Path(adapter).expanduser())
    if not is_local and not _may_be_repo(adapter):
        raise CheckpointError(
            f"{adapter!r} is not an adapter: give the folder with its adapter_config.json, or a "
            "hub model, 'owner/name'"
        )


def _may_be_repo(name: str) -> bool:
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


def download_file(
    repo: str,
    name: str,
    revision: str | None,
    *,
    hub_reached: bool,
    on_bytes: Callable[[int], None] | None = None,
) -> str:
    """Download a whole file into the hub's cache; returns its path.

    Args:
        hub_reached: whether the hub has responded before. If not, it is checked first: the client
            would retry an unreachable hub for half a minute, which can't be configured.
        on_bytes: called with the number of bytes received since the last call.

    Raises:
        CheckpointError: if it can't be downloaded or stored.
    """
    from huggingface_hub import hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    class ProgressBar(tqdm):
        """Reports bytes instead of showing a bar."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> None:
            if on_bytes is not None:
                on_bytes(int(n or 0))

        def update_transfer(self, n: float) -> None:
            """Ignored: compressed bytes."""

        set_transfer_postfix_str = update_transfer

    path, cached = "", None

    def attempt() -> None:
        nonlocal path
        path = hf_hub_download(
            repo, name, revision=revision, tqdm_class=None if on_bytes is None else ProgressBar
        )

    try:
        cached = try_to_load_from_cache(repo, name, revision=revision)
        if not hub_reached and not cached:
            check_reachable(hf_hub_url(repo, name, revision=revision))
        with_retries(attempt, lambda: 0)
    except CheckpointError:
        raise
    except Exception as error:  # the hub client's libraries have errors of their own
        if isinstance(cached, str) and not isinstance(error, HfHubHTTPError):
            return cached  # what answers, if anything, is no hub
        raise hub_error(repo, name, error) from error
    return path


def is_absent(repo: str, name: str, revision: str) -> bool:
    """Whether the hub responds that it has no such file; nothing is downloaded."""
    import httpx2
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import OfflineModeIsEnabled, RemoteEntryNotFoundError

    try:
        get_hf_file_metadata(hf_hub_url(repo, name, revision=revision))
    except RemoteEntryNotFoundError:
        return True
    except (httpx2.HTTPError, OSError, OfflineModeIsEnabled):  # downloading it will say what it is
        return False
    return False


def list_files(repo: str, revision: str | None) -> list[str]:
    """Names of the files of a hub model, for error messages: empty if the hub doesn't tell."""
    from huggingface_hub import HfApi, constants

    try:
        return HfApi(endpoint=constants.ENDPOINT).list_repo_files(repo, revision=revision)
    except Exception:  # noqa: BLE001 (the hub client's libraries have errors of their own)
        return []


def check_reachable(url: str) -> None:
    """Check that a server responds; any response will do except a transient failure.

    Raises:
        httpx2.HTTPError: if not.
    """
    hub = hub_client()

    def attempt() -> None:
        response = hub.get_session().head(
            url, headers=hub.build_hf_headers(), timeout=timeouts(), follow_redirects=False
        )
        if response.status_code in TRANSIENT_STATUS_CODES:
            hub.hf_raise_for_status(response)

    with_retries(attempt, lambda: 0)


def with_retries(attempt: Callable[[], None], bytes_received: Callable[[], int]) -> None:
    """Call `attempt` until it succeeds; errors that aren't transient are raised at once.

    It asks the hub in every call, which gives a fresh address where that of its storage expired.

    Args:
        bytes_received: by all attempts so far.

    Raises:
        httpx2.HTTPError: of the last attempt.
    """
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    failures, received_before = 0, bytes_received()
    while True:
        try:
            return attempt()
        except httpx2.HTTPError as error:
            if bytes_received() - received_before >= _PROGRESS_BYTES:
                failures, received_before = 0, bytes_received()
            failures += 1
            wait = _RETRY_SECONDS * failures
            if isinstance(error, HfHubHTTPError):
                is_transient = error.response.status_code in TRANSIENT_STATUS_CODES
                if not (is_transient or is_of_storage(error)):
                    raise
                retry_after = error.response.headers.get("Retry-After", "")
                wait = max(wait, int(retry_after) if retry_after.isdecimal() else 0)
            if failures == _MAX_FAILURES or wait > _MAX_WAIT_SECONDS:
                raise
            time.sleep(wait)


def timeouts() -> tuple[float, float, float, float]:
    """To connect, to read, to write and to get a connection from the pool, in seconds."""
    from huggingface_hub import constants

    return (_CONNECT_SECONDS, *(float(constants.HF_HUB_DOWNLOAD_TIMEOUT),) * 3)


def hub_client() -> Any:
    """`huggingface_hub.utils`, whose exports mypy doesn't see: how the library makes requests."""
    from huggingface_hub import utils

    return utils
