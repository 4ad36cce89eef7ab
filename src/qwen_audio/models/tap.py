"""Tap: a place on the line where a sequence of vectors can be read.

    mel → encoder.0 … encoder.N → audio_tower → projector → lm.0 … lm.M → lm.norm

Data flows to the right only; whatever stands right of a tap is neither read nor computed for it.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from qwen_audio.audio.log_mel import MEL_FRAMES_PER_SECOND
from qwen_audio.errors import TapError

__all__ = ["ModelDimensions", "Stage", "Tap"]


_FORM = re.compile(
    r"(?P<stage>mel|encoder|audio_tower|projector|lm)(?:\.(?P<level>0|-?[1-9][0-9]{0,8}|norm))?"
)


class Stage(IntEnum):
    """The stages in the order in which data passes them."""

    MEL = 0
    ENCODER = 1
    AUDIO_TOWER = 2
    PROJECTOR = 3
    LM = 4
    LM_NORM = 5


# Mel frames per row. The encoder's second convolution has stride 2, the pooling after it width 2;
# in the language model the rows of the audio span keep the projector's rate.
_MEL_FRAMES_PER_ROW = {
    Stage.MEL: 1,
    Stage.ENCODER: 2,
    Stage.AUDIO_TOWER: 4,
    Stage.PROJECTOR: 4,
    Stage.LM: 4,
    Stage.LM_NORM: 4,
}


@functools.total_ordering
@dataclass(frozen=True, repr=False)
class Tap:
    """A stage and, for `encoder` and `lm`, how many layers the data has passed.

    Taps compare by depth: `Tap.parse("mel") < Tap.parse("lm.0")`.
    """

    stage: Stage
    level: int | None = None

    @classmethod
    def parse(cls, text: str | Tap) -> Tap:
        """Read `mel`, `encoder.k`, `audio_tower`, `projector`, `lm.k` or `lm.norm`.

        k may be negative and then counts from the deepest; `ModelDimensions.tap` resolves it.

        Raises:
            TapError: if the text has another form.
        """
        if isinstance(text, Tap):
            return text
        match = _FORM.fullmatch(text) if isinstance(text, str) else None
        if match:
            stage, level = match["stage"], match["level"]
            layered = stage in ("encoder", "lm")
            if stage == "lm" and level == "norm":
                return cls(Stage.LM_NORM)
            if layered and level not in (None, "norm"):
                return cls(Stage[stage.upper()], int(level))
            if not layered and level is None:
                return cls(Stage[stage.upper()])
        raise TapError(
            f"{text!r} is not a tap: use mel, encoder.K, audio_tower, projector, lm.K or lm.norm, "
            "with K a number of layers such as encoder.2 or lm.-1 (`qwen-audio taps` lists them)"
        )

    @property
    def hop_seconds(self) -> float:
        """Seconds of audio from one row to the next."""
        return _MEL_FRAMES_PER_ROW[self.stage] / MEL_FRAMES_PER_SECOND

    @property
    def rate_hz(self) -> float:
        """Rows for each second of audio."""
        return MEL_FRAMES_PER_SECOND / _MEL_FRAMES_PER_ROW[self.stage]

    @property
    def in_language_model(self) -> bool:
        """Whether rows are positions of audio and prompt together, not frames of audio alone."""
        return self.stage >= Stage.LM

    def __str__(self) -> str:
        name = {Stage.LM_NORM: "lm.norm"}.get(self.stage, self.stage.name.lower())
        return name if self.level is None else f"{name}.{self.level}"

    def __repr__(self) -> str:
        return f"Tap({str(self)!r})"

    def __lt__(self, other: Tap) -> bool:
        return (self.stage, self.level or 0) < (other.stage, other.level or 0)


@dataclass(frozen=True)
class ModelDimensions:
    """The widths and depths of one model, from its config.json."""

    mel_bins: int
    encoder_layers: int
    encoder_width: int
    lm_layers: int
    lm_width: int

    @classmethod
    def of(cls, config: Any) -> ModelDimensions:
        """From transformers' Qwen2AudioConfig."""
        audio, text = config.audio_config, config.text_config
        return cls(
            mel_bins=audio.num_mel_bins,
            encoder_layers=audio.encoder_layers,
            encoder_width=audio.d_model,
            lm_layers=text.num_hidden_layers,
            lm_width=text.hidden_size,
        )

    def tap(self, text: str | Tap) -> Tap:
        """Parse a tap and check it against this model; a negative level becomes its depth.

        Raises:
            TapError: if the text is no tap, or the model has no such layer.
        """
        tap = Tap.parse(text)
        if tap.level is None:
            return tap
        deepest = self.encoder_layers if tap.stage is Stage.ENCODER else self.lm_layers
        level = tap.level + deepest + 1 if tap.level < 0 else tap.level
        if not 0 <= level <= deepest:
            name = tap.stage.name.lower()
            raise TapError(
                f"{tap} is not on this model's line: {name}.K goes from {name}.0 to "
                f"{name}.{deepest}, or from the end {name}.-1 to {name}.-{deepest + 1}"
            )
        return Tap(tap.stage, level)

    def taps(self) -> tuple[Tap, ...]:
        """Every tap of the line, shallowest first."""
        return (
            Tap(Stage.MEL),
            *(Tap(Stage.ENCODER, k) for k in range(self.encoder_layers + 1)),
            Tap(Stage.AUDIO_TOWER),
            Tap(Stage.PROJECTOR),
            *(Tap(Stage.LM, k) for k in range(self.lm_layers + 1)),
            Tap(Stage.LM_NORM),
        )

    def width(self, tap: Tap) -> int:
        """Numbers in one row at this tap."""
        if tap.stage is Stage.MEL:
            return self.mel_bins
        return self.encoder_width if tap.stage < Stage.PROJECTOR else self.lm_width
