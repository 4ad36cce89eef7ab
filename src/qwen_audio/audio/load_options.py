"""How audio inputs are loaded: rate of arrays, track of files, what to do about damage, limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from qwen_audio.errors import OptionError, number_option, whole_number_option

from .decode_limits import DecodeLimits

__all__ = ["LoadOptions", "OnDamage"]

OnDamage = Literal["raise", "partial"]
"""What to do with a damaged file: raise an error, or decode the rest and say what is missing."""


@dataclass(frozen=True)
class LoadOptions:
    """Options of `load_waveform`, which explains them.

    Raises:
        OptionError: for a rate that is no number, a track that is no whole number from 0 on, or an
            unknown `on_damage`.
    """

    sampling_rate: float | None = None
    track: int | None = None
    on_damage: OnDamage = "raise"
    limits: DecodeLimits | None = None

    def __post_init__(self) -> None:
        if self.sampling_rate is not None:
            number_option("sampling_rate", self.sampling_rate, "a number of Hz")
        if self.track is not None:
            object.__setattr__(self, "track", whole_number_option("track", self.track, 0))
        if self.on_damage not in get_args(OnDamage):
            raise OptionError(f"on_damage={self.on_damage!r}: use 'raise' or 'partial'")
        if not isinstance(self.limits, DecodeLimits | None):
            raise OptionError(
                f"limits={self.limits!r:.80}: give a DecodeLimits, such as "
                "DecodeLimits(max_seconds=600)"
            )

    def check_no_track(self, name: str, reason: str) -> None:
        """Raises OptionError if a track is chosen of what has none."""
        if self.track is not None:
            raise OptionError(
                f"track={self.track} was given with {name}, which {reason}: leave it out"
            )
