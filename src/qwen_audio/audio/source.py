"""One recording as a path or URI: its size and version, and its bytes."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qwen_audio.errors import AudioError
from qwen_audio.paths import is_uri, path_from_text, path_to_text, printable

__all__ = ["ColumnValue", "Source", "filesystem"]

ColumnValue = str | int | float | bool | None
"""A value of a manifest's column."""

# Keys of a file's version in fsspec's file systems (S3, the Hub, GCS, Azure, GitHub, zip, disks).
_VERSION_KEYS = (
    *("ETag", "etag", "md5Hash", "sha", "CRC"),
    *("last_commit", "LastModified", "last_modified", "updated", "mtime", "created"),
)


@dataclass(frozen=True)
class Source:
    """Path or URI of one recording.

    Attributes:
        uri: an absolute path, or a URI such as "s3://bucket/a.flac"; of a path that isn't UTF-8
            its "file://" URI.
        extra: the other columns of its manifest row.
        audio: the recording itself, where it is only in memory: `uri` is then just a name.
    """

    uri: str
    extra: Mapping[str, ColumnValue] = field(default_factory=dict, hash=False)
    audio: Any = field(default=None, compare=False, repr=False)

    @classmethod
    def from_path(cls, name: str | Path, extra: Mapping[str, ColumnValue] | None = None) -> Source:
        """From a URI, or from a path, which is made absolute; symbolic links are not followed.

        A path is stored as `path_to_text` gives it.
        """
        text = str(name)
        if is_uri(text):
            return cls(printable(text), extra or {})
        path = os.path.abspath(path_from_text(text))  # noqa: PTH100 (resolve follows links)
        return cls(path_to_text(path), extra or {})

    @property
    def is_local(self) -> bool:
        """Whether it is a path on this machine, not a URI of another file system."""
        return not is_uri(self.uri)

    @property
    def path(self) -> str:
        """The local path, as the operating system takes it; the URI where it isn't local."""
        return path_from_text(self.uri)

    def stat(self) -> tuple[int, str]:
        """Size in bytes, and version (modification time, or the file system's ETag or checksum).

        The file is not read. The version is empty where the file system states none.

        Raises:
            AudioError: if it does not exist, or its file system can't be reached.
        """
        try:
            if self.is_local:
                status = Path(self.path).stat()
                return status.st_size, str(status.st_mtime_ns)
            system, path = filesystem(self.uri)
            info = system.info(path)
        except Exception as error:  # every file system of fsspec has errors of its own
            reason = getattr(error, "strerror", None) or error
            raise AudioError(
                f"{printable(self.path)} can't be found ({reason}): check it"
            ) from error
        version = next((info[key] for key in _VERSION_KEYS if info.get(key)), "")
        return int(info.get("size") or 0), str(version)

    def audio_input(self) -> Any:
        """The recording as `load_waveform` accepts it: its path, the fetched bytes of a URI, or
        what is in memory.

        Raises:
            AudioError: if the URI can't be fetched.
        """
        if self.audio is not None:
            return self.audio
        if self.is_local:
            return self.path
        try:
            system, path = filesystem(self.uri)
            file = io.BytesIO(system.cat_file(path))
        except Exception as error:  # every file system of fsspec has errors of its own
            raise self.unreadable(error) from error
        file.name = self.uri
        return file

    def unreadable(self, error: Exception) -> AudioError:
        """The error for what can't be read."""
        if not self.is_local and isinstance(error, ImportError):
            return AudioError(
                f"{printable(self.uri)} can't be opened ({error}): install that beside this "
                "package, or save the recording as a file first"
            )
        if not self.is_local and isinstance(error, FileNotFoundError):
            return AudioError(f"{printable(self.uri)} can't be found: check the address")
        reason = getattr(error, "strerror", None) or error
        return AudioError(f"{printable(self.path)} can't be read ({reason}): check it")


def filesystem(uri: str) -> tuple[Any, str]:
    """The fsspec file system of a URI, and the path in it."""
    from fsspec.core import url_to_fs

    filesystem_and_path: tuple[Any, str] = url_to_fs(uri)
    return filesystem_and_path
