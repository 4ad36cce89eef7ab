"""Find recordings in folders, globs, manifests and remote file systems."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qwen_audio.errors import AudioError, OptionError

__all__ = [
    "AUDIO_SUFFIX",
    "MANIFEST_SUFFIXES",
    "ColumnValue",
    "Source",
    "SourceListing",
    "find_sources",
    "read_manifest",
    "source_from_row",
]

AUDIO_SUFFIX = re.compile(
    r"\.(3gp|aac|aifc?|aiff|amr|ape|au|caf|flac|m4[ab]|mk[av]|mov|mp[234c]|og[ag]|opus|ra|rf64|snd"
    r"|spx|tta|w64|wave?|web[am]|wma|wv)",
    re.IGNORECASE,
)
"""Suffixes of audio and video files. In folders, other files are skipped; files that are named
explicitly never are."""

MANIFEST_SUFFIXES = (".csv", ".tsv", ".jsonl")

_COLUMNS = ("source", "path", "file", "file_name", "audio", "uri")
"""Columns of a manifest that may hold the recording's path or URI; the first that is set does."""

_BLOCK_BYTES = 1 << 20

ColumnValue = str | int | float | bool | None
"""A value of a manifest's column."""


@dataclass(frozen=True)
class Source:
    """Path or URI of one recording.

    Attributes:
        uri: an absolute path, or a URI such as "s3://bucket/a.flac".
        extra: the other columns of its manifest row.
    """

    uri: str
    extra: Mapping[str, ColumnValue] = field(default_factory=dict, hash=False)

    @classmethod
    def from_path(cls, name: str | Path, extra: Mapping[str, ColumnValue] | None = None) -> Source:
        """From a URI, or from a path, which is made absolute; symbolic links are not followed."""
        text = str(name)
        if "://" not in text:
            text = os.path.abspath(text)  # noqa: PTH100 (Path.resolve follows links)
        return cls(text, extra or {})

    @property
    def is_local(self) -> bool:
        """Whether it is a path on this machine, not a URI."""
        return "://" not in self.uri

    def stat(self) -> tuple[int, str]:
        """Size in bytes, and version (modification time, or the file system's ETag or checksum).

        The file is not read. The version is empty where the file system states none.

        Raises:
            AudioError: if it does not exist, or its file system can't be reached.
        """
        try:
            if self.is_local:
                status = Path(self.uri).stat()
                return status.st_size, str(status.st_mtime_ns)
            system, path = _filesystem(self.uri)
            info = system.info(path)
        except Exception as error:  # every file system of fsspec has errors of its own
            reason = getattr(error, "strerror", None) or error
            raise AudioError(f"{self.uri} can't be found ({reason}): check it") from error
        version = next((info[key] for key in _VERSION_KEYS if info.get(key)), "")
        return int(info.get("size") or 0), str(version)

    def audio_input(self) -> str | io.BytesIO:
        """The recording as `load_waveform` accepts it: its path, or the fetched bytes of a URI.

        Raises:
            AudioError: if the URI can't be fetched.
        """
        if self.is_local:
            return self.uri
        try:
            system, path = _filesystem(self.uri)
            file = io.BytesIO(system.cat_file(path))
        except Exception as error:  # every file system of fsspec has errors of its own
            raise self._unreadable(error) from error
        file.name = self.uri
        return file

    def audio_input_and_hash(self) -> tuple[str | io.BytesIO, str]:
        """`audio_input()`, and the SHA-256 of the file's bytes in hexadecimal.

        Raises:
            AudioError: if it can't be read.
        """
        file = self.audio_input()
        if isinstance(file, io.BytesIO):
            return file, hashlib.sha256(file.getbuffer()).hexdigest()
        digest = hashlib.sha256()
        try:
            with Path(file).open("rb", buffering=0) as opened:
                while block := opened.read(_BLOCK_BYTES):
                    digest.update(block)
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error
        return file, digest.hexdigest()

    def _unreadable(self, error: Exception) -> AudioError:
        reason = getattr(error, "strerror", None) or error
        return AudioError(f"{self.uri} can't be read ({reason}): check it")


# Keys of a file's version in fsspec's file systems (S3, the Hub, GCS, Azure, GitHub, zip, disks).
_VERSION_KEYS = (
    *("ETag", "etag", "md5Hash", "sha", "CRC"),
    *("last_commit", "LastModified", "last_modified", "updated", "mtime", "created"),
)


@dataclass(frozen=True)
class SourceListing:
    """Recordings found in all inputs.

    Attributes:
        sources: each recording once, in order.
        skipped: paths and URIs of files in folders that are not audio by their suffix.
    """

    sources: tuple[Source, ...]
    skipped: tuple[str, ...]

    def check_available(self) -> None:
        """Raises OptionError if there are no recordings, or none of them exists."""
        if not self.sources:
            others = f" among {len(self.skipped)} files" if self.skipped else ""
            raise OptionError(f"there is no audio{others}: give recordings, or folders of them")
        first_reason = ""
        for source in self.sources:
            try:
                source.stat()
            except AudioError as error:
                first_reason = first_reason or str(error)
            else:
                return
        none = f"none of {len(self.sources)} recordings: " if len(self.sources) > 1 else ""
        raise OptionError(f"there is nothing to index: {none}{first_reason}")


def find_sources(inputs: Iterable[str | Path | Mapping[str, ColumnValue]]) -> SourceListing:
    """Recordings of all inputs: each once, in order.

    Args:
        inputs: files, folders (searched recursively), globs, manifests (.csv, .tsv, .jsonl), URIs
            of any of fsspec's file systems, and mappings as rows of a manifest. In folders, files
            without a suffix of audio, and hidden ones, are left out; the former are listed as
            skipped.

    Raises:
        OptionError: for a pattern or URI that matches nothing, and for a manifest or row that
            names no recording.
    """
    sources: dict[str, Source] = {}
    skipped: list[str] = []
    for item in inputs:
        for source in _expand(item):
            if isinstance(source, str):
                skipped.append(source)
            else:
                sources.setdefault(source.uri, source)
    return SourceListing(tuple(sources.values()), tuple(skipped))


def _expand(item: str | Path | Mapping[str, ColumnValue]) -> Iterator[Source | str]:
    """Sources of one input, and as strings the names of files that are skipped."""
    if isinstance(item, Mapping):
        yield source_from_row(item, Path(), "a row")
        return
    text = str(item)
    if "://" in text:
        yield from _remote(text)
        return
    path = Path(text)
    if path.is_dir():
        yield from _folder(path)
    elif path.suffix.lower() in MANIFEST_SUFFIXES and path.is_file():
        yield from read_manifest(path)
    elif path.exists() or not any(wildcard in text for wildcard in "*?["):
        yield Source.from_path(text)
    else:
        matches = sorted(_glob(path))
        if not matches:
            raise OptionError(f"{text} matches nothing: check the pattern")
        for match in matches:
            yield from _folder(match) if match.is_dir() else [Source.from_path(match)]


def _glob(pattern: Path) -> Iterator[Path]:
    root = Path(pattern.anchor) if pattern.is_absolute() else Path()
    return root.glob(str(pattern.relative_to(pattern.anchor)))


def _folder(folder: Path) -> Iterator[Source | str]:
    for path in sorted(path for path in folder.rglob("*") if not path.is_dir()):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue  # hidden files and folders
        yield Source.from_path(path) if AUDIO_SUFFIX.fullmatch(path.suffix) else str(path)


def _remote(uri: str) -> Iterator[Source | str]:
    first, chain, rest = uri.partition("::")  # "zip://*.flac::s3://bucket/takes.zip"
    try:
        system, path = _filesystem(uri)
        system.invalidate_cache()  # fsspec caches listings
        if any(wildcard in path for wildcard in "*?["):
            paths = sorted(system.glob(path))
        elif system.isdir(path):
            paths = sorted(system.find(path))
        else:  # spelled as a listing of its folder would, so that no recording is there twice
            yield Source(first + chain + rest if chain else system.unstrip_protocol(path))
            return
    except Exception as error:  # every file system of fsspec has errors of its own
        raise OptionError(f"{uri} can't be listed ({error}): check the URI") from error
    if not paths:
        raise OptionError(f"{uri} holds nothing: check the URI")
    for path in paths:
        full_uri = system.unstrip_protocol(path) + chain + rest
        yield Source(full_uri) if AUDIO_SUFFIX.fullmatch(Path(path).suffix) else full_uri


def read_manifest(path: Path) -> Iterator[Source]:
    """Recordings of a manifest (.csv, .tsv, .jsonl), one a row; paths are relative to its folder.

    Raises:
        OptionError: if it can't be read or is empty, or a row names no recording.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".jsonl":
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
            rows = [
                {name: value if name is None else _number(value) for name, value in row.items()}
                for row in csv.DictReader(text.splitlines(), delimiter=delimiter, strict=True)
            ]
    except (OSError, ValueError, csv.Error) as error:
        raise OptionError(
            f"{path} can't be read as a manifest ({error}): use .csv, .tsv or .jsonl in UTF-8"
        ) from error
    if not rows:
        raise OptionError(f"{path} holds no rows: expected one per recording")
    for number, row in enumerate(rows, start=1):
        yield source_from_row(row, path.parent, f"{path}, row {number}")


def source_from_row(row: Any, folder: Path, row_name: str) -> Source:
    """The recording that a manifest's row names, with the row's other columns.

    Args:
        folder: relative paths are relative to it.
        row_name: shown in messages.

    Raises:
        OptionError: if it names no recording, or a column holds a list or an object.
    """
    if not isinstance(row, Mapping) or None in row:
        raise OptionError(
            f"{row_name} is not a row of named columns: give every value a column with a name"
        )
    column = next((name for name in _COLUMNS if row.get(name)), None)
    if column is None:
        raise OptionError(f"{row_name} names no recording: use a column {', '.join(_COLUMNS)}")
    location = str(row[column])
    path = location if "://" in location else folder / location
    nested = [name for name, value in row.items() if isinstance(value, dict | list)]
    if nested:
        raise OptionError(
            f"{row_name}: column {nested[0]} holds a list or an object: use text, numbers or "
            "booleans"
        )
    return Source.from_path(path, {name: value for name, value in row.items() if name != column})


def _number(text: str | None) -> ColumnValue:
    """A CSV cell as a number where it is one, None where it is empty, else as text."""
    if not text:
        return None
    for number_type in (int, float):
        try:
            value = number_type(text)
        except ValueError:
            continue
        # 007 is text, not a number.
        return value if str(value) == text or number_type is float else text
    return text


def _filesystem(uri: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    filesystem_and_path: tuple[Any, str] = url_to_fs(uri)
    return filesystem_and_path
