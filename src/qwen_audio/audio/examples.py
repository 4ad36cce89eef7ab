"""The example recordings that come with the package: a guitar, a djembe, and speech."""

from __future__ import annotations

from functools import cache
from pathlib import Path

__all__ = ["example_paths"]

_NAMES = ("guitar.flac", "djembe.flac", "speech.flac")


@cache
def example_paths() -> dict[str, Path]:
    """File name → path of those that exist: in the installed package, or in `examples/` at the root
    of a checkout."""
    packaged = Path(__file__).parents[1] / "examples"
    folder = packaged if packaged.is_dir() else Path(__file__).parents[3] / "examples"
    return {name: folder / name for name in _NAMES if (folder / name).is_file()}
