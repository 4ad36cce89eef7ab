"""Errors of LanceDB and of storage as one line: what failed, and what to check."""

from __future__ import annotations

import re

from .location import TableLocation

__all__ = ["error_reason", "is_conflict", "what_to_check"]

_CAUSES = (
    (r"NoSuchBucket|ContainerNotFound|bucket does not exist", "there is no such bucket"),
    (r"BadScheme", "its endpoint is http://, which needs AWS_ALLOW_HTTP=true"),
    (
        r"Failed to get AWS credentials|TokenRequest|no storage account configured",
        "no credentials were found",
    ),
    (
        r"InvalidAccessKeyId|SignatureDoesNotMatch|AccessDenied|status: 40[13]\b",
        "access is denied",
    ),
    (r"kind: (Connect|Timeout)\b|dns error|TimedOut", "no answer"),
)
"""What object_store's errors say, in the order of precedence: a pattern, and the cause in words.
They are dumps of nested structures, with the bodies of responses."""
_STORAGE = re.compile(r"object_store|storage account")
_URI = re.compile(r"uri: Some\((\w+://[^/)]+)")
_CONFLICT = re.compile("commit conflict|concurrent (transaction|writers)")


def error_reason(error: BaseException, max_characters: int = 300) -> str:
    """What an error of LanceDB or the system states, without its stack of Rust files."""
    text = getattr(error, "strerror", None) or " ".join(str(error).split())
    for pattern, cause in _CAUSES:
        if _STORAGE.search(text) and re.search(pattern, text):
            host = _URI.search(text)
            return f"{cause}, {host[1]}" if host and cause == "no answer" else cause
    return re.sub(r",? *(at )?/\S*\.rs.*|\. Valid fields are .*", "", text)[:max_characters]


def is_conflict(error: BaseException | None) -> bool:
    """Whether a write failed because another writer's commit came first."""
    return error is not None and _CONFLICT.search(str(error)) is not None


def what_to_check(location: TableLocation) -> str:
    """What may be wrong where a table can't be read or written."""
    if location.is_remote:
        return "check the bucket, the credentials (environment or storage_options) and the network"
    return "check the folder, its permissions and the free space"
