"""`find_files`: the recordings of folders, patterns and manifests, by the names to open them by."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from typing import Any

from qwen_audio.errors import AudioWarning, OptionError
from qwen_audio.paths import exists, is_uri, path_from_text, printable

from .source import Source
from .source_listing import find_sources

__all__ = ["find_files", "opened_name"]


def find_files(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], *, follow_links: bool = False
) -> list[str]:
    """The recordings in folders, patterns and manifests: what the command line makes of them.

    Args:
        inputs: folders, with all folders in them ("music"); patterns ("takes/*.flac", "**/*.wav");
            manifests (.csv, .tsv, .jsonl); files; addresses of fsspec's file systems
            ("s3://bucket/music"); or several of these. In folders, hidden files and those without a
            suffix of audio or video are left out.
        follow_links: also search folders that are symbolic links; else a warning names them.

    Returns:
        Names that every method takes, each recording once: of a folder or pattern sorted, of a
        manifest in the order of its rows. They are relative where the input is.

    Raises:
        OptionError: for an input that doesn't exist, matches nothing, or holds no audio, and for a
            manifest that names no recordings.
    """
    given = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    if not isinstance(given, Iterable):
        raise _not_a_name(inputs)
    files: dict[str, str] = {}
    for item in given:
        if not isinstance(item, str | os.PathLike):
            raise _not_a_name(item)
        name = os.fspath(item)
        listing = find_sources([name], follow_links=follow_links)
        if listing.linked:
            warnings.warn(
                f"{name}: folders that are links were not searched (follow_links=True does): "
                + ", ".join(listing.linked),
                AudioWarning,
                stacklevel=2,
            )
        for reason in listing.empty_reasons:
            raise OptionError(reason)
        names = {source.path: opened_name(source, name) for source in listing.sources}
        if name in names.values() and not is_uri(name) and not exists(path_from_text(name)):
            raise OptionError(f"{name} doesn't exist: check the path")
        for path, shown in names.items():
            files.setdefault(path, shown)
    return list(files.values())


def opened_name(source: Source, given: str) -> str:
    """The name by which a source of an input is opened and shown: relative where the input is.

    Args:
        given: the folder, pattern, manifest or file that the source is of.
    """
    if not source.is_local:
        return source.uri
    if is_uri(given) or "://" in given or os.path.isabs(given):  # noqa: PTH117
        return given if source.path == given or "://" in given else source.path
    if source.path == os.path.abspath(given):  # noqa: PTH100 (resolve follows links)
        return given
    return os.path.relpath(source.path)


def _not_a_name(item: Any) -> OptionError:
    return OptionError(
        f"{printable(repr(item)):.80} names no files: give a folder, a pattern such as "
        "'takes/*.flac', a manifest, or a list of these"
    )
