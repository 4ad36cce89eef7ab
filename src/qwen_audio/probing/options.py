"""Options of `probe`, checked without torch."""

from __future__ import annotations

from collections.abc import Sequence

from qwen_audio.errors import OptionError, check_extra, whole_number_option

from .probes import PROBES
from .targets import Target

__all__ = [
    "DEFAULT_FOLDS",
    "check_folds",
    "check_installed",
    "check_min_count",
    "check_probes",
    "check_seed",
]

DEFAULT_FOLDS = 5


def check_folds(folds: int | None) -> int | None:
    """The number of folds. Raises OptionError for fewer than two."""
    return None if folds is None else whole_number_option("folds", folds, 2)


def check_installed(*modules: str) -> None:
    """Raises MissingExtraError without the extra `probe`, of which `modules` are needed, too."""
    needed = ("pandas", "scipy", "sklearn", "threadpoolctl", *modules)
    check_extra("probing", "probe", *needed)


def check_min_count(min_count: int | None, targets: Sequence[Target]) -> int | None:
    """The count. Raises OptionError for none, and where there are no classes to count."""
    if min_count is None:
        return None
    min_count = whole_number_option("min_count", min_count, 1)
    if targets and all(target.task == "quantity" for target in targets):
        names = ", ".join(target.name for target in targets)
        raise OptionError(
            f"min_count={min_count} has no effect on quantities ({names}): leave it out"
        )
    return min_count


def check_probes(probes: Sequence[str] | None) -> None:
    """Raises OptionError for unknown probes."""
    if isinstance(probes, str) or not set(probes or PROBES) <= set(PROBES):
        raise OptionError(f"probes={probes!r}: use a list of {', '.join(PROBES)}")


def check_seed(seed: int) -> int:
    """The seed. Raises OptionError for one that NumPy can't take."""
    return whole_number_option("seed", seed, 0, 2**32 - 1)
