"""Names of output files: one for each recording, in a folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath

from qwen_audio.errors import OptionError
from qwen_audio.paths import path_from_text

__all__ = ["output_paths"]

_MAX_NAME_BYTES = 255
"""Of a file's name, in the file systems of today's systems."""


def output_paths(files: Sequence[str], folder: Path, suffix: str) -> dict[str, Path]:
    """The path FOLDER/NAME.suffix of every file, by its name without its own suffix.

    Raises:
        OptionError: if several would have the same.
    """
    stems = ["stdin" if file == "-" else _stem(file, f".{suffix}") for file in files]
    stem, count = Counter(stems).most_common(1)[0]
    if count > 1:
        raise OptionError(
            f"{count} files called {stem} would be written to one: do one by one, each with -o"
        )
    return {file: folder / f"{stem}.{suffix}" for file, stem in zip(files, stems, strict=True)}


def _stem(file: str, ending: str) -> str:
    """A file's name without its suffix, cut where no file could be called that and the ending."""
    stem = PurePath(path_from_text(file)).stem
    while len(os.fsencode(stem + ending)) > _MAX_NAME_BYTES:
        stem = stem[:-1]
    return stem
