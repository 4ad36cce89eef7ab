"""Find recordings in folders, globs, manifests and remote file systems."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from qwen_audio.errors import AudioError, OptionError
from qwen_audio.paths import exists, is_file, is_folder, is_uri, path_from_text, path_to_text

from .manifest import MANIFEST_SUFFIXES, read_manifest, source_from_row
from .source import Source, filesystem

__all__ = [
    "AUDIO_SUFFIX",
    "FolderFiles",
    "SourceListing",
    "files_below",
    "find_sources",
    "first_names",
    "only",
]

_SHOWN_NAMES = 3

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
        linked: folders that are symbolic links, which are skipped, too, unless they are followed.
        empty: inputs that hold no audio.
    """

    sources: tuple[Source, ...]
    skipped: tuple[str, ...]
    linked: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()

    @property
    def empty_reasons(self) -> list[str]:
        """A line for each input that holds no audio."""
        reason = f"holds no audio{only(self.skipped)}: give recordings, or folders of them"
        return [f"{name} {reason}" for name in self.empty]

    def check_available(self) -> None:
        """Raises OptionError if there are no recordings, or none of them exists."""
        if not self.sources:
            raise OptionError(
                f"there is no audio{only(self.skipped)}: give recordings, or folders of them"
            )
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


def first_names(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + more


def only(skipped: Sequence[str]) -> str:
    """What there is instead of audio, for messages: ", only notes.txt"; "" where there is none."""
    return f", only {first_names(skipped)}" if skipped else ""


def find_sources(
    inputs: Iterable[str | Path | Mapping[str, Any]], *, follow_links: bool = False
) -> SourceListing:
    """Recordings of all inputs: each once, in order.

    Args:
        inputs: files, folders (searched recursively), globs, manifests (.csv, .tsv, .jsonl), URIs
            of any of fsspec's file systems, and mappings as rows of a manifest. In folders, files
            without a suffix of audio, and hidden ones, are left out; the former are listed as
            skipped.
        follow_links: also search folders that are symbolic links; else they are listed.

    Raises:
        OptionError: for a pattern or URI that matches nothing, and for a manifest or row that
            names no recording.
    """
    sources: dict[str, Source] = {}
    skipped: list[str] = []
    linked: list[str] = []
    empty: list[str] = []
    for item in inputs:
        is_empty = True
        for source in _expand(item, follow_links):
            if isinstance(source, Source):
                is_empty = False
                sources.setdefault(source.uri, source)
            elif isinstance(source, _Link):
                linked.append(source)
            else:
                skipped.append(source)
        if is_empty:
            empty.append(path_to_text(str(item)))
    return SourceListing(tuple(sources.values()), tuple(skipped), tuple(linked), tuple(empty))


class _Link(str):
    """The path of a linked folder that is skipped."""


def _expand(item: str | Path | Mapping[str, Any], follow_links: bool) -> Iterator[Source | str]:
    """Sources of one input, and as strings the names of files and links that are skipped."""
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
        yield from _folder(path, follow_links)
    elif path.suffix.lower() in MANIFEST_SUFFIXES and is_file(path):
        yield from read_manifest(path)
    elif exists(path) or not any(wildcard in text for wildcard in "*?["):
        yield Source.from_path(text)
    else:
        matches = sorted(_glob(path))
        if not matches:
            raise OptionError(f"{text} matches nothing: check the pattern")
        for match in matches:
            yield from (
                _folder(match, follow_links) if is_folder(match) else [Source.from_path(match)]
            )


def _glob(pattern: Path) -> Iterator[Path]:
    root = Path(pattern.anchor) if pattern.is_absolute() else Path()
    return root.glob(str(pattern.relative_to(pattern.anchor)))


class FolderFiles(NamedTuple):
    """The files of a folder and the folders in it; folders that can't be listed, and links."""

    files: list[Path]
    unlisted: list[Path]
    linked: list[Path]


def files_below(folder: Path, *, follow_links: bool = False) -> FolderFiles:
    """What there is in a folder. Hidden files and folders are left out.

    Args:
        follow_links: search linked folders, too, each folder once; else they are only listed.
    """
    found: list[Path] = []
    unlisted: list[Path] = []
    linked: list[Path] = []
    seen = {_identity(folder)} if follow_links else set()
    for parent, folders, files in os.walk(
        folder,
        onerror=lambda error: unlisted.append(Path(error.filename)),
        followlinks=follow_links,
    ):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if follow_links:  # of which any may lead back
            identities = {name: _identity(Path(parent, name)) for name in folders}
            folders[:] = [name for name in folders if identities[name] not in seen]
            seen |= set(identities.values())
        else:
            linked += [Path(parent, name) for name in folders if _is_link(parent, name)]
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    return FolderFiles(sorted(found), sorted(unlisted), sorted(linked))


def _is_link(parent: str, name: str) -> bool:
    return os.path.islink(os.path.join(parent, name))  # noqa: PTH114, PTH118 (names of any length)


def _identity(folder: Path) -> str:
    return os.path.realpath(folder)


def _folder(folder: Path, follow_links: bool) -> Iterator[Source | str]:
    files, unlisted, linked = files_below(folder, follow_links=follow_links)
    yield from map(Source.from_path, unlisted)  # which fail by name
    yield from (_Link(path_to_text(str(path))) for path in linked)
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
