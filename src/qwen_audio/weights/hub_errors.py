"""Errors of a hub, of what stands between, and of the disk, each as one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwen_audio.errors import CheckpointError

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

__all__ = ["TRANSIENT_STATUS_CODES", "hub_error", "is_not_found", "is_of_storage", "no_hub"]

TRANSIENT_STATUS_CODES = (408, 429, 500, 502, 503, 504)
_REFUSED_STATUS_CODES = (400, 401, 403, 404, 410)
"""Of storage, for an address that has expired or seems to, by its clock or ours."""


def hub_error(repo: str, name: str, error: Exception, bytes_present: str = "") -> CheckpointError:
    """An error of the hub's client or of the disk as a CheckpointError.

    Args:
        bytes_present: how far a download got, such as "3 of 5 bytes".
    """
    import httpx2
    from huggingface_hub.errors import (
        FileMetadataError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    is_unreachable = isinstance(error, LocalEntryNotFoundError)
    if is_unreachable and isinstance(error.__cause__, Exception):
        error = error.__cause__
    reason = " ".join((str(error).strip() or type(error).__name__).split())[:300]
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
    if isinstance(error, FileMetadataError) or status == 511:  # network authentication required
        problem = no_hub()
    elif isinstance(error, httpx2.ConnectError) and "CERTIFICATE" in reason.upper():
        problem = (
            f"can't be fetched: the hub's certificate isn't trusted ({reason}): if a proxy reads "
            "the traffic, name its certificate in SSL_CERT_FILE"
        )
    elif isinstance(error, httpx2.ProxyError) or status == 407:
        problem = f"can't be fetched through the proxy ({reason}): check HTTPS_PROXY and its login"
    elif isinstance(error, (OfflineModeIsEnabled, httpx2.ConnectError, httpx2.ConnectTimeout)) or (
        is_unreachable and not status
    ):
        problem = (
            "is not in the local cache and the hub can't be reached: check the network (or "
            "HF_HUB_OFFLINE), or give a folder"
        )
    elif isinstance(error, OSError) and error.errno is not None:
        problem = (
            f"can't be stored on this machine ({reason}): free disk space, or set HF_HOME to "
            "another folder"
        )
    elif isinstance(error, HfHubHTTPError) and is_of_storage(error):
        problem = (
            f"is refused by the storage that the hub names ({status}), also at fresh addresses: "
            "try again later, the download resumes; check this machine's clock"
        )
    elif bytes_present and isinstance(error, httpx2.TransportError):
        problem = (
            f"stopped downloading at {bytes_present} ({reason}): try again, the download resumes "
            "there"
        )
    elif status in TRANSIENT_STATUS_CODES:
        problem = f"can't be fetched from the hub now ({reason}): try again later"
    else:
        problem = (
            f"can't be fetched from the hub ({reason}): check the name, revision, network and "
            "access token"
        )
    return CheckpointError(f"{repo}: {name} {problem}")


def is_not_found(error: CheckpointError) -> bool:
    """Whether the hub responded that there is no such file (being unreachable is no proof)."""
    from huggingface_hub.errors import RemoteEntryNotFoundError

    return isinstance(error.__cause__, RemoteEntryNotFoundError)


def no_hub() -> str:
    """What is wrong where something answers that isn't a hub."""
    from huggingface_hub import constants

    return (
        "is not in the local cache and the hub can't be reached: what answers at "
        f"{constants.ENDPOINT} is no hub, as it names no commit (a login page, a proxy?): check "
        "the network and HF_ENDPOINT, or give a folder"
    )


def is_of_storage(error: HfHubHTTPError) -> bool:
    """Whether the storage that a hub redirects to refuses a request, as when an address expires.

    The hub's own responses have an error code, or are of the address that was asked for.
    """
    response = error.response
    is_elsewhere = bool(response.history) or "/resolve/" not in response.url.path
    is_refused = response.status_code in _REFUSED_STATUS_CODES
    return is_refused and is_elsewhere and "X-Error-Code" not in response.headers
