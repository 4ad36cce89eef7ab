"""Names of output files: one for each recording, in a folder."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path, PurePath

from qwen_audio.errors import OptionError
from qwen_audio.paths import is_folder, is_uri, path_from_text

__all__ = ["folders_below", "output_paths"]

_MAX_NAME_BYTES = 255
"""Of a file's name, in the file systems of today's systems."""
_WILDCARD = re.compile("[*?[]")


def folders_below(file: str, name: str) -> int:
    """How many folders a recording is below the input that names it.

    That is a folder, or the part of a pattern before its first wildcard. Anything else is a file,
    or a list of them: 0.
    """
    if is_folder(name) or (is_uri(name) and file.startswith(f"{name.rstrip('/')}/")):
        root = _parts(name)
    elif (wildcard := _WILDCARD.search(name)) is not None and not os.path.lexists(name):
        root = _parts(name[: wildcard.start()] + "x")[:-1]
    else:
        return 0
    parts = _parts(file)
    return max(len(parts) - 1 - len(root), 0) if parts[: len(root)] == root else 0


def output_paths(depths: Mapping[str, int], folder: Path, suffix: str) -> dict[str, Path]:
    """The path of every file's output, by its name without its own suffix.

    FOLDER/NAME.suffix, with as many of the file's folders in between as `depths` says; or, where
    two files would have the same, all of those below the folder that all files have in common.

    Raises:
        OptionError: for files in one folder that differ in their suffix only.
    """
    parts = {file: _parts(file) for file in depths}
    stems = {file: _stem(parts[file][-1], f".{suffix}") for file in depths}
    levels = zip(*(parts[file][:-1] for file in depths if file != "-"), strict=False)
    common = sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, levels))
    for in_common in (False, True):
        paths = {
            file: folder.joinpath(
                *parts[file][common if in_common else len(parts[file]) - 1 - depth : -1],
                f"{stems[file]}.{suffix}",
            )
            for file, depth in depths.items()
        }
        path, count = Counter(paths.values()).most_common(1)[0]
        if count == 1:
            return paths
    alike = ", ".join(file for file in paths if paths[file] == path)
    raise OptionError(
        f"{alike} would be written to one file, {path.name}: give one of them, as by a pattern "
        'such as "*.wav", or each with an -o of its own'
    )


def _parts(file: str) -> tuple[str, ...]:
    """The folders of a path or URI, and its name."""
    if file == "-":
        return ("stdin",)
    if is_uri(file):
        path = file.partition("::")[0].partition("://")[2]
        return tuple(part for part in path.split("/") if part not in ("", ".", "..")) or ("audio",)
    absolute = PurePath(os.path.abspath(path_from_text(file)))  # noqa: PTH100 (resolve follows links)
    return absolute.relative_to(absolute.anchor).parts


def _stem(name: str, ending: str) -> str:
    """A file's name without its suffix, cut where no file could be called that and the ending."""
    stem = PurePath(name).stem
    while len(os.fsencode(stem + ending)) > _MAX_NAME_BYTES:
        stem = stem[:-1]
    return stem
