"""Inputs of commands: files, folders, globs, manifests, URIs, lists of names, standard input."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qwen_audio.errors import OptionError
from qwen_audio.paths import exists, is_uri

from .console import print_error, print_notice
from .options import add_list_option
from .output_names import folders_below

if TYPE_CHECKING:
    from qwen_audio.audio.source import ColumnValue, Source
    from qwen_audio.audio.source_listing import SourceListing

__all__ = [
    "add_from_file_option",
    "add_input_options",
    "find_inputs",
    "input_names",
    "resolve_files",
]

_STDIN = "-"


def add_input_options(parser: argparse.ArgumentParser, what: str = "") -> None:
    """INPUT…, --from-file and --follow-links; see `resolve_files`."""
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help=f"{what}audio files, folders, globs, manifests (.csv, .tsv, .jsonl) or URIs; @LIST: "
        "the files that a list names; - for audio on standard input",
    )
    add_from_file_option(parser)
    parser.add_argument(
        "--follow-links", action="store_true", help="also search linked folders (default: skipped)"
    )


def add_from_file_option(parser: argparse.ArgumentParser) -> None:
    """--from-file."""
    add_list_option(
        parser, "--from-file", "LIST", "as @LIST: names, one a line; - for standard input"
    )


def input_names(options: argparse.Namespace) -> list[str]:
    """What the command line and lists name, as it is.

    Raises:
        OptionError: if there is nothing, and for a list that can't be read.
    """
    return [name for name, _ in _names(options)]


def resolve_files(options: argparse.Namespace, *, required: bool = True) -> list[str]:
    """The recordings of all inputs, each once, as they are opened and shown; also `options.files`.

    `options.depths` says of each how many folders it is below its input, see `folders_below`, and
    `options.columns` has the other columns of those that are in a manifest.

    Those of a relative folder, glob or manifest are relative to the working directory. What is
    skipped is printed in one line, and each input that holds no audio, which makes the exit
    status 1.

    Raises:
        OptionError: if there are none, for a pattern that matches nothing, and for a list or a
            manifest that can't be read.
    """
    from qwen_audio.audio.find_files import opened_name
    from qwen_audio.audio.source_listing import find_sources

    files: dict[str, str] = {}
    depths: dict[str, int] = {}
    columns: dict[str, Mapping[str, ColumnValue]] = {}
    listings: list[SourceListing] = []
    names = list(_names(options, required=required))
    for name, is_literal in names:
        if name == _STDIN and not is_literal:
            files[_STDIN] = _STDIN
            continue
        if _is_file_name(name, is_literal):
            name = f"./{name}" if name == _STDIN else name
            files.setdefault(os.path.abspath(name), name)  # noqa: PTH100 (resolve follows links)
            continue
        try:
            listing = find_sources([name], follow_links=options.follow_links)
        except OptionError:
            if not is_uri(name):
                raise
            files.setdefault(name, name)  # an error when its turn comes, so that others are done
            continue
        for source in listing.sources:
            if source.path not in files:
                files[source.path] = shown = opened_name(source, name)
                depths[shown] = folders_below(shown, name)
                columns[shown] = source.extra
        listings.append(listing)
    _report(options, listings, has_files=bool(files) or not names)
    options.files = list(files.values())
    options.depths = {file: depths.get(file, 0) for file in options.files}
    options.columns = {file: columns.get(file, {}) for file in options.files}
    return options.files


def find_inputs(options: argparse.Namespace) -> SourceListing:
    """The recordings of all inputs as sources with the columns of their manifests, each once.

    As `resolve_files`, but not for standard input, which can't be opened again.

    Raises:
        OptionError: as there, and for -.
    """
    from qwen_audio.audio.source import Source
    from qwen_audio.audio.source_listing import SourceListing, find_sources

    listings: list[SourceListing] = []
    for name, is_literal in _names(options):
        if name == _STDIN and not is_literal:
            raise OptionError(
                "- can't be indexed, as what a collection holds is opened again: write it to a file"
            )
        if _is_file_name(name, is_literal):
            listings.append(SourceListing((Source.from_path(name),), ()))
        else:
            listings.append(find_sources([name], follow_links=options.follow_links))
    sources: dict[str, Source] = {}
    for listing in listings:
        for source in listing.sources:
            sources.setdefault(source.uri, source)
    _report(options, listings, has_files=bool(sources))
    skipped = tuple(name for listing in listings for name in listing.skipped)
    linked = tuple(name for listing in listings for name in listing.linked)
    return SourceListing(tuple(sources.values()), skipped, linked)


def _names(options: argparse.Namespace, *, required: bool = True) -> Iterator[tuple[str, bool]]:
    """What the command line and lists name, and whether it is of a list, where - and @ are files.

    Raises OptionError if there is nothing, or standard input would be read more than once.
    """
    lists = options.from_file or []
    if required and not (options.inputs or lists):
        options.parser.error("the following arguments are required: INPUT")
    if (options.inputs + lists).count(_STDIN) > 1:
        raise OptionError("- is given more than once, but standard input can be read only once")
    for name in options.inputs:
        if name.startswith("@"):
            yield from ((line, True) for line in _lines(name[1:], name))
        else:
            yield name, False
    for name in lists:
        yield from ((line, True) for line in _lines(name, f"--from-file {name}"))


def _lines(path: str, shown: str) -> list[str]:
    """The names in a list, one a line. Raises OptionError if it can't be read, or has none."""
    try:
        data = sys.stdin.buffer.read() if path == _STDIN else Path(path).read_bytes()
    except OSError as error:
        raise OptionError(
            f"{shown} can't be read ({error.strerror or error}): give a file with one name a line"
        ) from error
    if b"\0" in data:
        raise OptionError(f"{shown} is no list of names: give a file with one name a line")
    names = [os.fsdecode(line.removesuffix(b"\r")) for line in data.split(b"\n")]
    names = [name for name in names if name.strip()]
    if not names:
        raise OptionError(f"{shown} names no files: give one a line")
    return names


def _is_file_name(name: str, is_literal: bool) -> bool:
    """Whether it is opened as it is: a file of a list that isn't there fails by name."""
    return is_literal and not is_uri(name) and not exists(name)


def _report(
    options: argparse.Namespace, listings: Sequence[SourceListing], *, has_files: bool
) -> None:
    """Print what is left out. Raises OptionError if nothing is left."""
    from qwen_audio.audio.source_listing import first_names

    skipped = [name for listing in listings for name in listing.skipped]
    linked = [name for listing in listings for name in listing.linked]
    reasons = [reason for listing in listings for reason in listing.empty_reasons]
    is_incomplete = bool(reasons)
    if skipped and has_files:
        print_notice(f"skipped (not audio): {first_names(skipped)}")
    if linked:
        print_notice(f"skipped (linked folders, see --follow-links): {first_names(linked)}")
    last = reasons.pop() if reasons and not has_files else None
    for reason in reasons:
        print_error(reason)
    if last is not None:
        raise OptionError(last)
    options.is_incomplete = is_incomplete
