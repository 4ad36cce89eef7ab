"""Options of `probe`, checked without torch."""

from __future__ import annotations

from collections.abc import Sequence

from qwen_audio.errors import OptionError, check_extra

from .probes import PROBES

__all__ = ["check_folds", "check_installed", "check_probes", "check_seed"]


def check_folds(folds: int) -> None:
    """Raises OptionError for fewer than two folds."""
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
        raise OptionError(f"folds={folds!r}: use 2 or more")


def check_installed(*modules: str) -> None:
    """Raises MissingExtraError without the extra `probe`, of which `modules` are needed, too."""
    needed = ("pandas", "scipy", "sklearn", "threadpoolctl", *modules)
    check_extra("probing", "probe", *needed)


def check_probes(probes: Sequence[str] | None) -> None:
    """Raises OptionError for unknown probes."""
    if isinstance(probes, str) or not set(probes or PROBES) <= set(PROBES):
        raise OptionError(f"probes={probes!r}: use a list of {', '.join(PROBES)}")


def check_seed(seed: int) -> None:
    """Raises OptionError for a seed that NumPy can't take."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise OptionError(f"seed={seed!r}: use a whole number from 0 to 2**32 - 1")
