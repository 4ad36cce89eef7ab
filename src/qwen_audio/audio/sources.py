"""What a caller means by "these recordings": folders, globs, lists, manifests, addresses."""

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
    "MANIFESTS",
    "Found",
    "Source",
    "Value",
    "find_sources",
    "manifest_sources",
    "source_of_row",
]

AUDIO_SUFFIX = re.compile(
    r"\.(3gp|aac|aifc?|aiff|amr|ape|au|caf|flac|m4[ab]|mk[av]|mov|mp[234c]|og[ag]|opus|ra|rf64|snd"
    r"|spx|tta|w64|wave?|web[am]|wma|wv)",
    re.IGNORECASE,
)
"""What is taken for audio inside folders. Files that are named are taken whatever they end in."""

MANIFESTS = (".csv", ".tsv", ".jsonl")

_COLUMNS = ("source", "path", "file", "file_name", "audio", "uri")
"""Of a manifest: the first of these that it has names the recordings."""

_BLOCK = 1 << 20

Value = str | int | float | bool | None


@dataclass(frozen=True)
class Source:
    """One recording to be, by its name.

    Attributes:
        uri: an absolute path, so that it is the same from wherever it is looked at; or an address
            such as "s3://bucket/a.flac".
        extra: more columns of the manifest that it comes from.
    """

    uri: str
    extra: Mapping[str, Value] = field(default_factory=dict, hash=False)

    @classmethod
    def of(cls, name: str | Path, extra: Mapping[str, Value] | None = None) -> Source:
        """By a path or an address as somebody wrote it."""
        text = str(name)
        if "://" not in text:  # links keep their names, which are those that somebody knows
            text = os.path.abspath(text)  # noqa: PTH100
        return cls(text, extra or {})

    @property
    def is_local(self) -> bool:
        """Whether it is a file of this machine."""
        return "://" not in self.uri

    def state(self) -> tuple[int, str]:
        """Its size in bytes and when it changed last, without reading it.

        Raises:
            AudioError: if it is gone, or can't be asked.
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
        changed = next((info[key] for key in _CHANGED if info.get(key)), "")
        return int(info.get("size") or 0), str(changed)

    def content(self) -> tuple[Any, str]:
        """What `load_waveform` takes (a path, or bytes from elsewhere), and a hash of its bytes.

        Raises:
            AudioError: if it can't be read.
        """
        digest = hashlib.sha256()
        try:
            if not self.is_local:
                system, path = _filesystem(self.uri)
                data: bytes = system.cat_file(path)
                digest.update(data)
                named = io.BytesIO(data)
                named.name = self.uri
                return named, digest.hexdigest()
            with Path(self.uri).open("rb", buffering=0) as opened:
                while block := opened.read(_BLOCK):
                    digest.update(block)
        except Exception as error:  # as above
            reason = getattr(error, "strerror", None) or error
            raise AudioError(f"{self.uri} can't be read ({reason}): check it") from error
        return self.uri, digest.hexdigest()


# What file systems call the version of a file (S3, the Hub, GCS, Azure, GitHub, zip, disks).
_CHANGED = (
    *("ETag", "etag", "md5Hash", "sha", "CRC"),
    *("last_commit", "LastModified", "last_modified", "updated", "mtime", "created"),
)


@dataclass(frozen=True)
class Found:
    """The recordings of all inputs, each once, and what lay among them and is none."""

    sources: tuple[Source, ...]
    skipped: tuple[str, ...]

    def check(self) -> None:
        """Raises OptionError where there is nothing to hear, or all of it is not to be found."""
        if not self.sources:
            others = f" among {len(self.skipped)} files" if self.skipped else ""
            raise OptionError(f"there is no audio{others}: name recordings, or folders with some")
        reason = ""
        for source in self.sources:
            try:
                source.state()
            except AudioError as error:
                reason = reason or str(error)
            else:
                return
        none = f"none of {len(self.sources)} recordings: " if len(self.sources) > 1 else ""
        raise OptionError(f"there is nothing to index: {none}{reason}")


def find_sources(inputs: Iterable[str | Path | Mapping[str, Value]]) -> Found:
    """Folders (searched to their depth), globs, manifests (.csv, .jsonl), files, addresses.

    Inside folders, files whose suffix is not audio's are passed over, and told of. A file or a row
    that is named is taken as it is.

    Raises:
        OptionError: for what matches nothing, and for manifests that name no recordings.
    """
    sources: dict[str, Source] = {}
    skipped: list[str] = []
    for item in inputs:
        for found in _expand(item):
            if isinstance(found, str):
                skipped.append(found)
            else:
                sources.setdefault(found.uri, found)
    return Found(tuple(sources.values()), tuple(skipped))


def _expand(item: str | Path | Mapping[str, Value]) -> Iterator[Source | str]:
    if isinstance(item, Mapping):
        yield source_of_row(item, Path(), "a row")
        return
    text = str(item)
    if "://" in text:
        yield from _remote(text)
        return
    path = Path(text)
    if path.is_dir():
        yield from _folder(path)
    elif path.suffix.lower() in MANIFESTS and path.is_file():
        yield from manifest_sources(path)
    elif path.exists() or not any(sign in text for sign in "*?["):
        yield Source.of(text)
    else:
        places = sorted(_glob(path))
        if not places:
            raise OptionError(f"{text} matches nothing: check the pattern")
        for place in places:
            yield from _folder(place) if place.is_dir() else [Source.of(place)]


def _glob(pattern: Path) -> Iterator[Path]:
    root = Path(pattern.anchor) if pattern.is_absolute() else Path()
    return root.glob(str(pattern.relative_to(pattern.anchor)))


def _folder(folder: Path) -> Iterator[Source | str]:
    for path in sorted(path for path in folder.rglob("*") if not path.is_dir()):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue  # what a system keeps for itself
        yield Source.of(path) if AUDIO_SUFFIX.fullmatch(path.suffix) else str(path)


def _remote(uri: str) -> Iterator[Source | str]:
    first, chain, rest = uri.partition("::")  # "zip://*.flac::s3://bucket/takes.zip"
    try:
        system, path = _filesystem(uri)
        system.invalidate_cache()  # of listings: what is there now, not what was seen before
        if any(sign in path for sign in "*?["):
            paths = sorted(system.glob(path))
        elif system.isdir(path):
            paths = sorted(system.find(path))
        else:  # by the name that its folder would list it under, or it would be there twice
            yield Source(first + chain + rest if chain else system.unstrip_protocol(path))
            return
    except Exception as error:  # every file system of fsspec has errors of its own
        raise OptionError(f"{uri} can't be listed ({error}): check the address") from error
    if not paths:
        raise OptionError(f"{uri} holds nothing: check the address")
    for one in paths:
        named = system.unstrip_protocol(one) + chain + rest
        yield Source(named) if AUDIO_SUFFIX.fullmatch(Path(one).suffix) else named


def manifest_sources(path: Path) -> Iterator[Source]:
    """Rows of a table (.csv, .tsv, .jsonl); paths in it are seen from its folder.

    Raises:
        OptionError: if it can't be read, or a row names no recording.
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
        raise OptionError(f"{path} can't be read as a manifest ({error})") from error
    if not rows:
        raise OptionError(f"{path} holds no rows: expected one a recording")
    for number, row in enumerate(rows, start=1):
        yield source_of_row(row, path.parent, f"{path}, row {number}")


def source_of_row(row: Any, folder: Path, where: str) -> Source:
    """Of a manifest's row: the recording that it names, seen from `folder`, and its other columns.

    Raises:
        OptionError: that says `where`, if it names none or a column holds no single value.
    """
    if not isinstance(row, Mapping) or None in row:
        raise OptionError(f"{where} is not a row of named columns")
    column = next((name for name in _COLUMNS if row.get(name)), None)
    if column is None:
        raise OptionError(f"{where} names no recording: use a column {', '.join(_COLUMNS)}")
    named = str(row[column])
    place = named if "://" in named else folder / named
    nested = [name for name, value in row.items() if isinstance(value, dict | list)]
    if nested:
        raise OptionError(f"{where}: column {nested[0]} holds no single value")
    return Source.of(place, {name: value for name, value in row.items() if name != column})


def _number(text: str | None) -> Value:
    """A cell of a CSV: a number where it is one, nothing where it is empty."""
    if not text:
        return None
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return value if str(value) == text or kind is float else text  # 007 is no number
    return text


def _filesystem(uri: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    found: tuple[Any, str] = url_to_fs(uri)
    return found
