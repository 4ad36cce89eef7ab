"""Taps: named points of the pipeline where a sequence of vectors can be read.

    mel → encoder.0 … encoder.N → audio_tower → projector → lm.0 … lm.M → lm.norm

Each stage depends only on the stages before it, so nothing after a tap is loaded or computed.

What a tap yields for one window, a matrix of shape (rows, width); rates are Qwen2-Audio's, and
those of other families their own (see `ModelDimensions`):

    mel          100 rows a second (10 ms hop)         × mel_bins
    encoder.k    50 rows a second (conv2: stride 2)    × encoder_width
    audio_tower  25 rows a second (pooling by 2)       × tower_width
    projector    25 rows a second (the audio tokens)   × lm_width
    lm.k         one row a position: the prompt's text tokens, and the audio tokens, which keep
                 25 a second                           × lm_width
    lm.norm      as lm.k

Inside decoder layer k, the one before `lm.k`, are `lm.k.heads` (the outputs of all attention heads,
side by side), `lm.k.attention` and `lm.k.mlp`: lm.(k−1) + lm.k.attention + lm.k.mlp = lm.k.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from qwen_audio.errors import OptionError, TapError, whole_number_option

from .row_times import RowTimes

__all__ = ["LAYER_PARTS", "ModelDimensions", "Stage", "Tap"]


_TAP_PATTERN = re.compile(
    r"(?P<stage>mel|encoder|audio_tower|projector|lm)"
    r"(?:\.(?P<layer>0|-?[1-9][0-9]{0,8}|norm)(?:\.(?P<part>heads|attention|mlp))?)?"
)

LAYER_PARTS = ("heads", "attention", "mlp")
"""Taps inside a decoder layer, in order."""


class Stage(IntEnum):
    """The stages of the pipeline, in order."""

    MEL = 0
    ENCODER = 1
    AUDIO_TOWER = 2
    PROJECTOR = 3
    LM = 4
    LM_NORM = 5


@functools.total_ordering
@dataclass(frozen=True, repr=False)
class Tap:
    """A stage and, for `encoder.k` and `lm.k`, the number k of layers applied; `part`, one of
    `LAYER_PARTS`, is inside the last of them.

    Taps are ordered by depth: `Tap.parse("mel") < Tap.parse("lm.0")`.

    Raises:
        TapError: for a layer that is no whole number.
    """

    stage: Stage
    layer: int | None = None
    part: str | None = None

    def __post_init__(self) -> None:
        if self.layer is not None:
            try:
                layer = whole_number_option("layer", self.layer, -(10**9), 10**9)
            except OptionError as error:
                raise TapError(str(error)) from None
            object.__setattr__(self, "layer", layer)

    @classmethod
    def parse(cls, text: str | Tap) -> Tap:
        """Parse `mel`, `encoder.k`, `audio_tower`, `projector`, `lm.k`, `lm.norm`, or a tap inside
        a layer, `lm.k.heads`, `lm.k.attention` or `lm.k.mlp`.

        A negative k counts from the last layer; `ModelDimensions.tap` resolves it.

        Raises:
            TapError: if the text has another form.
        """
        if isinstance(text, Tap):
            return text
        match = _TAP_PATTERN.fullmatch(text) if isinstance(text, str) else None
        if match:
            stage, layer, part = match["stage"], match["layer"], match["part"]
            has_layers = stage in ("encoder", "lm")
            if stage == "lm" and layer == "norm" and part is None:
                return cls(Stage.LM_NORM)
            if has_layers and layer not in (None, "norm") and (stage == "lm" or part is None):
                return cls(Stage[stage.upper()], int(layer), part)
            if not has_layers and layer is None:
                return cls(Stage[stage.upper()])
        raise TapError(
            f"{text!r} is not a tap: use mel, encoder.K, audio_tower, projector, lm.K or lm.norm, "
            "with K a number of layers such as encoder.2 or lm.-1 (`qwen-audio taps` lists them), "
            "or lm.K.heads, lm.K.attention or lm.K.mlp"
        )

    @property
    def in_language_model(self) -> bool:
        """Whether rows are positions of the language model (text and audio), not audio frames."""
        return self.stage >= Stage.LM

    def __str__(self) -> str:
        name = {Stage.LM_NORM: "lm.norm"}.get(self.stage, self.stage.name.lower())
        return ".".join(str(each) for each in (name, self.layer, self.part) if each is not None)

    def __repr__(self) -> str:
        return f"Tap({str(self)!r})"

    def __lt__(self, other: Tap) -> bool:
        return self._depth < other._depth

    @property
    def _depth(self) -> tuple[int, int, int]:
        """What is inside a layer is before what is after it."""
        place = len(LAYER_PARTS) if self.part is None else LAYER_PARTS.index(self.part)
        return self.stage, self.layer or 0, place


@dataclass(frozen=True)
class ModelDimensions:
    """Stages, widths, rates and numbers of layers of one model.

    Attributes:
        mel_bins: width of `mel`.
        encoder_layers, lm_layers: N and M of the last taps `encoder.N` and `lm.M`.
        encoder_width: width of `encoder.k` (transformers' d_model).
        tower_width: width of `audio_tower`, the projector's input.
        lm_width: width of `projector`, `lm.k` and `lm.norm` (transformers' hidden_size).
        heads_width: width of `lm.k.heads`: that of a head times their number.
        row_times: of every stage that the model has; in the language model, of audio tokens.
    """

    mel_bins: int
    encoder_layers: int
    encoder_width: int
    tower_width: int
    lm_layers: int
    lm_width: int
    row_times: Mapping[Stage, RowTimes] = field(hash=False)
    heads_width: int = 0

    @property
    def has_language_model(self) -> bool:
        """Whether there are taps in one, prompts, and answers."""
        return Stage.LM in self.row_times

    def times(self, tap: Tap) -> RowTimes:
        """When the rows of a tap begin; in the language model, those of audio tokens."""
        return self.row_times[tap.stage]

    def hop_seconds(self, tap: Tap) -> float:
        """Seconds of audio between rows; in the language model, of audio tokens only."""
        return self.times(tap).hop_seconds

    def rate_hz(self, tap: Tap) -> float:
        """Rows per second of audio; in the language model, of audio tokens only."""
        return self.times(tap).rate_hz

    def tap(self, text: str | Tap) -> Tap:
        """Parse a tap and check it against this model; a negative layer becomes its number.

        Raises:
            TapError: if the text is not a tap, or the model has no such layer.
        """
        tap = Tap.parse(text)
        if tap.stage not in self.row_times:
            raise TapError(
                f"{tap} is not a tap of this model: its last one is {self.taps()[-1]} "
                "(`qwen-audio taps` lists them)"
            )
        if tap.layer is None:
            return tap
        last = self.encoder_layers if tap.stage is Stage.ENCODER else self.lm_layers
        layer = tap.layer + last + 1 if tap.layer < 0 else tap.layer
        if not 0 <= layer <= last:
            name = tap.stage.name.lower()
            raise TapError(
                f"{tap} is not a tap of this model: {name}.K goes from {name}.0 to "
                f"{name}.{last}, or from the end {name}.-1 to {name}.-{last + 1}"
            )
        if tap.part is not None and not layer:
            raise TapError(f"{tap} is not a tap of this model: lm.K.{tap.part} has K from 1 on")
        return Tap(tap.stage, layer, tap.part)

    def taps(self, *, inside_layers: bool = False) -> tuple[Tap, ...]:
        """Every tap of the model, in the order of the pipeline.

        Args:
            inside_layers: also those inside decoder layers.
        """
        parts = LAYER_PARTS if inside_layers else ()
        taps = (
            Tap(Stage.MEL),
            *(Tap(Stage.ENCODER, k) for k in range(self.encoder_layers + 1)),
            Tap(Stage.AUDIO_TOWER),
            Tap(Stage.PROJECTOR),
            *(
                Tap(Stage.LM, k, part)
                for k in range(self.lm_layers + 1)
                for part in (*(parts if k else ()), None)
            ),
            Tap(Stage.LM_NORM),
        )
        return tuple(tap for tap in taps if tap.stage in self.row_times)

    def width(self, tap: Tap) -> int:
        """Length of one row at this tap."""
        if tap.part == "heads":
            return self.heads_width
        widths = {
            Stage.MEL: self.mel_bins,
            Stage.ENCODER: self.encoder_width,
            Stage.AUDIO_TOWER: self.tower_width,
        }
        return widths.get(tap.stage, self.lm_width)
