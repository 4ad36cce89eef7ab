"""Options of `probe`, checked without torch."""

from __future__ import annotations

from collections.abc import Sequence

from qwen_audio.errors import OptionError, check_extra, whole_number_option

from .probes import PROBES

__all__ = ["check_folds", "check_installed", "check_probes", "check_seed"]


def check_folds(folds: int) -> int:
    """The number of folds. Raises OptionError for fewer than two."""
    return whole_number_option("folds", folds, 2)


def check_installed(*modules: str) -> None:
    """Raises MissingExtraError without the extra `probe`, of which `modules` are needed, too."""
    needed = ("pandas", "scipy", "sklearn", "threadpoolctl", *modules)
    check_extra("probing", "probe", *needed)


def check_probes(probes: Sequence[str] | None) -> None:
    """Raises OptionError for unknown probes."""
    if isinstance(probes, str) or not set(probes or PROBES) <= set(PROBES):
        raise OptionError(f"probes={probes!r}: use a list of {', '.join(PROBES)}")


def check_seed(seed: int) -> int:
    """The seed. Raises OptionError for one that NumPy can't take."""
    return whole_number_option("seed", seed, 0, 2**32 - 1)
