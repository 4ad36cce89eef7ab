"""Audio ablation: whether an answer depends on the sound, by replacing the sound."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float64

from qwen_audio.audio.timecode import format_range
from qwen_audio.audio.window import Window
from qwen_audio.errors import counted
from qwen_audio.inference.data_frame import table_to_pandas
from qwen_audio.inference.html_table import html_table

from .files import save_numbers

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["HEARD", "MAX_OTHERS", "NOISE", "SHUFFLED", "SILENCE", "AudioAblation", "Verdict"]

HEARD, SHUFFLED, SILENCE, NOISE = "heard", "shuffled", "silence", "noise"
Verdict = Literal["depends on the sound", "ignores the sound", "unclear"]

MAX_OTHERS = 8
_MARGIN = math.log(2)
"""An answer that loses less is at least half as likely with another sound."""
_T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365}
"""Student's t by degrees of freedom, for intervals of 95 %."""


@dataclass(frozen=True, eq=False, repr=False)
class AudioAblation:
    """How likely an answer is as heard, and with other sounds; from `AudioModel.audio_ablation`.

    The drop of a condition is log P(answer) as heard minus that with the other sound, the mean over
    the windows. The verdict is by the mean drop under other clips, with its interval of 95 %
    (Student's t over the clips): "depends on the sound" where the interval is above log 2, that is,
    the answer is less than half as likely with another sound; "ignores the sound" where the
    interval is below log 2, and so are the drops under silence and under noise; else "unclear".
    An answer that is right for the other clips, too, such as "No" about something that none of them
    has, is likely with them: then choose `others` that differ.

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

    @property
    def drop(self) -> Float64[np.ndarray, "conditions"]:
        """By condition: how much log P falls, in nats; the mean over the windows."""
        return np.asarray((self.log_probability[:, :1] - self.log_probability).mean(0))

    @property
    def others(self) -> Float64[np.ndarray, "others"]:
        """The drops under other clips."""
        return self.drop[4:]

    @property
    def interval(self) -> tuple[float, float]:
        """Of 95 %, of the mean drop under other clips; infinite with a single one."""
        count, mean = len(self.others), float(self.others.mean())
        if count < 2:
            return -math.inf, math.inf
        error = float(self.others.std(ddof=1)) / math.sqrt(count) * _T_975[count - 1]
        return mean - error, mean + error

    @property
    def verdict(self) -> Verdict:
        """By the rule above."""
        low, high = self.interval
        if low > _MARGIN:
            return "depends on the sound"
        if max(high, *self.drop[2:4]) < _MARGIN:
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

    def to_pandas(self) -> pd.DataFrame:
        """`table` as a DataFrame.

        Raises:
            MissingExtraError: without pandas.
        """
        return table_to_pandas(self.table())

    def save(self, path: str | Path) -> Path:
        """Write the arrays (.npz), or `table` (.csv, .json).

        Raises:
            OptionError: for another suffix, or a path that can't be written to.
        """
        arrays: dict[str, np.ndarray | None] = {
            "log_probability": self.log_probability,
            "conditions": np.array(self.conditions),
        }
        return save_numbers(path, self.facts(), arrays, self.table)

    def facts(self) -> dict[str, Any]:
        """The verdict, and what it is by."""
        low, high = self.interval
        return {
            "name": self.name,
            "prompt": self.prompt,
            "answers": self.answers,
            "choices": self.choices,
            "verdict": self.verdict,
            "drop_of_others": float(self.others.mean()),
            "low": low if math.isfinite(low) else None,
            "high": high if math.isfinite(high) else None,
            **{
                f"drop_{name}": float(self.drop[k])
                for k, name in enumerate(self.conditions[1:4], 1)
            },
            "others": self.conditions[4:],
            "windows": len(self.windows),
            "dtype": self.dtype,
        }

    def _repr_html_(self) -> str:
        rows = [
            (
                format_range(row["start_seconds"], row["end_seconds"]),
                row["answer"],
                row["condition"],
                f"{row['log_probability']:.2f}",
                f"{row['drop']:+.2f}",
            )
            for row in self.table()
        ]
        return html_table(("time", "answer", "sound", "log P", "drop"), rows, repr(self))

    def __repr__(self) -> str:
        low, high = self.interval
        drops = ", ".join(
            f"{name} {drop:+.2f}"
            for name, drop in zip(self.conditions[1:4], self.drop[1:4], strict=True)
        )
        return (
            f"AudioAblation({self.name}: {self.verdict}; log P of the answer falls by "
            f"{self.others.mean():+.2f} [{low:+.2f}, {high:+.2f}] with "
            f"{counted(len(self.others), 'other clip')}, {drops}; "
            f"{counted(len(self.windows), 'window')}; {self.dtype})"
        )
