"""Find recordings in folders, globs, manifests and remote file systems."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_audio.errors import AudioError, OptionError
from qwen_audio.paths import exists, is_file, is_folder, is_uri, path_from_text, path_to_text

from .manifest import MANIFEST_SUFFIXES, read_manifest, source_from_row
from .source import Source, filesystem

__all__ = ["AUDIO_SUFFIX", "SourceListing", "files_below", "find_sources"]

AUDIO_SUFFIX = re.compile(
    r"\.(3gp|aac|aifc?|aiff|amr|ape|au|caf|flac|m4[ab]|mk[av]|mov|mp[234c]|og[ag]|opus|ra|rf64|snd"
    r"|spx|tta|w64|wave?|web[am]|wma|wv)",
    re.IGNORECASE,
)
"""Suffixes of audio and video files. In folders, other files are skipped; files that are named
explicitly never are."""


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


def find_sources(inputs: Iterable[str | Path | Mapping[str, Any]]) -> SourceListing:
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


def _expand(item: str | Path | Mapping[str, Any]) -> Iterator[Source | str]:
    """Sources of one input, and as strings the names of files that are skipped."""
    if isinstance(item, Mapping):
        source = source_from_row(item, Path(), "a row")
        if source.audio is not None:
            raise OptionError(
                f"{source.uri} holds its audio in memory, but what is indexed must be a file that "
                "can be opened again: write it to a file, and give that in a column 'source'"
            )
        yield source
        return
    text = str(item)
    if is_uri(text):
        yield from _remote(text)
        return
    text = path_from_text(text)
    path = Path(text)
    if is_folder(path):
        yield from _folder(path)
    elif path.suffix.lower() in MANIFEST_SUFFIXES and is_file(path):
        yield from read_manifest(path)
    elif exists(path) or not any(wildcard in text for wildcard in "*?["):
        yield Source.from_path(text)
    else:
        matches = sorted(_glob(path))
        if not matches:
            raise OptionError(f"{text} matches nothing: check the pattern")
        for match in matches:
            yield from _folder(match) if is_folder(match) else [Source.from_path(match)]


def _glob(pattern: Path) -> Iterator[Path]:
    root = Path(pattern.anchor) if pattern.is_absolute() else Path()
    return root.glob(str(pattern.relative_to(pattern.anchor)))


def files_below(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files of a folder and the folders in it, and the folders that can't be listed.

    Hidden files and folders are left out, as are links to folders.
    """
    found: list[Path] = []
    unlisted: list[Path] = []
    for parent, folders, files in os.walk(
        folder, onerror=lambda error: unlisted.append(Path(error.filename))
    ):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    return sorted(found), sorted(unlisted)


def _folder(folder: Path) -> Iterator[Source | str]:
    files, unlisted = files_below(folder)
    yield from map(Source.from_path, unlisted)  # which fail by name
    for path in files:
        is_audio = AUDIO_SUFFIX.fullmatch(path.suffix)
        yield Source.from_path(path) if is_audio else path_to_text(str(path))


def _remote(uri: str) -> Iterator[Source | str]:
    first, chain, rest = uri.partition("::")  # "zip://*.flac::s3://bucket/takes.zip"
    try:
        system, path = filesystem(uri)
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
