"""Audio ablation: whether an answer depends on the sound, by replacing the sound."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64

from qwen_audio.audio.timecode import format_range
from qwen_audio.audio.window import Window
from qwen_audio.errors import counted
from qwen_audio.inference.html_table import html_table

from .files import where_set
from .intervals import wilson_interval
from .tabulated import Tabulated

__all__ = ["HEARD", "MAX_OTHERS", "NOISE", "SHUFFLED", "SILENCE", "AudioAblation", "Verdict"]

HEARD, SHUFFLED, SILENCE, NOISE = "heard", "shuffled", "silence", "noise"
Verdict = Literal["depends on the sound", "ignores the sound", "unclear"]

MAX_OTHERS = 8
_MARGIN = math.log(2)
"""An answer that loses more is less than half as likely as heard."""
_MIN_OTHERS = 3
"""For a verdict that an answer ignores the sound: with fewer, the interval reaches beyond .56."""


@dataclass(frozen=True, eq=False, repr=False)
class AudioAblation(Tabulated):
    """How likely an answer is as heard, and with other sounds; from `AudioModel.audio_ablation`.

    The drop of a condition is log P(answer) as heard minus that with the other sound, the mean over
    the windows. A sound changes the answer where the drop is above log 2: the answer is less than
    half as likely. The verdict is

    - "depends on the sound": at least one of the other clips changes the answer;
    - "ignores the sound": none of at least three clips does, nor silence, nor noise;
    - "unclear": neither. Silence and noise alone are like nothing the model was trained on.

    `interval` says for which share of such clips that may hold (Wilson, 95 %). An answer that is
    right for all other clips, too, is likely with them: `others` should differ in what is asked.

    Attributes:
        name: of the recording.
        prompt: as rendered.
        answers: of each window: the answer that is scored.
        choices: the answers that were given, if any: probabilities are then relative to them where
            there are several.
        windows: that were encoded at once.
        conditions: "heard", "shuffled" (the audio tokens of the window in another order), "silence"
            and "noise" (white, at the window's level), then the names of the other clips.
        log_probability: shape (windows, conditions): of each window's answer.
        tokens: of each window's answer.
        dtype: of the computation.
        edits: that it was made under, as embedding specs have them; None: none.
    """

    name: str
    prompt: str
    answers: tuple[str, ...]
    choices: tuple[str, ...]
    windows: tuple[Window, ...]
    conditions: tuple[str, ...]
    log_probability: Float64[np.ndarray, "windows conditions"]
    tokens: tuple[int, ...]
    dtype: str = "float32"
    edits: str | None = None

    @property
    def drop(self) -> Float64[np.ndarray, "conditions"]:
        """By condition: how much log P falls, in nats; the mean over the windows."""
        return np.asarray((self.log_probability[:, :1] - self.log_probability).mean(0))

    @property
    def others(self) -> Float64[np.ndarray, "others"]:
        """The drops under other clips."""
        return self.drop[4:]

    @property
    def changed(self) -> int:
        """How many of the other clips change the answer."""
        return int((self.others > _MARGIN).sum())

    @property
    def interval(self) -> tuple[float, float]:
        """Of 95 % (Wilson), of the share of clips that change the answer."""
        counts = (np.array([count], np.float64) for count in (self.changed, len(self.others)))
        low, high = wilson_interval(*counts)
        return float(low[0]), float(high[0])

    @property
    def verdict(self) -> Verdict:
        """By the rule above."""
        if self.changed:
            return "depends on the sound"
        if len(self.others) >= _MIN_OTHERS and self.drop[2:4].max() <= _MARGIN:
            return "ignores the sound"
        return "unclear"

    def table(self) -> list[dict[str, Any]]:
        """One row a window and condition."""
        return [
            {
                "window": number,
                "start_seconds": window.start_seconds,
                "end_seconds": window.end_seconds,
                "answer": answer,
                "condition": condition,
                "log_probability": float(value),
                "drop": float(values[0] - value),
            }
            for number, (window, answer, values) in enumerate(
                zip(self.windows, self.answers, self.log_probability, strict=True)
            )
            for condition, value in zip(self.conditions, values, strict=True)
        ]

    def arrays(self) -> dict[str, np.ndarray]:
        """The numbers, and what their axes are of."""
        return {
            "log_probability": self.log_probability,
            "conditions": np.array(self.conditions),
        }

    def facts(self) -> dict[str, Any]:
        """The verdict, and what it is by."""
        low, high = self.interval
        return {
            "name": self.name,
            "prompt": self.prompt,
            "answers": self.answers,
            "choices": self.choices,
            "verdict": self.verdict,
            "changed": self.changed,
            "others": self.conditions[4:],
            "low": low,
            "high": high,
            "drop_others": float(self.others.mean()),
            "drop_shuffled": float(self.drop[1]),
            "drop_silence": float(self.drop[2]),
            "drop_noise": float(self.drop[3]),
            "windows": len(self.windows),
            "dtype": self.dtype,
            **where_set(edits=self.edits),
        }

    def _repr_html_(self) -> str:
        rows = [
            (
                format_range(row["start_seconds"], row["end_seconds"]),
                row["answer"],
                row["condition"],
                f"{row['log_probability']:.2f}",
                _signed(row["drop"]),
            )
            for row in self.table()
        ]
        return html_table(("time", "answer", "sound", "log P", "drop"), rows, repr(self))

    @property
    def summary(self) -> str:
        """The verdict, and what it is by, in a line."""
        low, high = self.interval
        pairs = zip(self.conditions[1:4], self.drop[1:4], strict=True)
        fall = _signed(self.others.mean())
        drops = ", ".join(f"{name} {_signed(drop)}" for name, drop in pairs)
        return (
            f"{self.verdict} ({self.changed} of {counted(len(self.others), 'other clip')} change "
            f"the answer, 95 % {low:.0%} to {high:.0%}; log P falls by {fall} "
            f"with them, {drops})"
        )

    def __repr__(self) -> str:
        windows = counted(len(self.windows), "window")
        return f"AudioAblation({self.name}: {self.summary}; {windows}; {self.dtype})"


def _signed(nats: float) -> str:
    """With two decimals; of what rounds to zero "+0.00"."""
    return f"{round(float(nats), 2) + 0.0:+.2f}"
