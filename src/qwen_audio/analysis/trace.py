"""Trace: what a model's answer is made of, by level and span (activation patching)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from qwen_audio.errors import counted

from .files import where_set
from .picture import Picture
from .tabulated import Tabulated

__all__ = ["Trace"]


@dataclass(frozen=True, eq=False, repr=False)
class Trace(Tabulated, Picture):
    """Activation patching of a recording with another's hidden states; returned by
    `AudioModel.trace`.

    The model reads the first recording, with the second's rows at one tap and span, and computes
    the rest from there. What is measured is the difference of the answers' log-probabilities.
    If the first recording is the clean one, this is noising: which states are necessary. If it is
    the corrupted one, it is denoising: which are sufficient.

    Attributes:
        names: of both recordings.
        answers: whose log-probabilities are subtracted, first minus second.
        taps: from shallow to deep.
        spans: which rows were patched.
        positions: for each span how many.
        log_probabilities: shape (recordings, answers): in nats, of both recordings as they are.
        difference: shape (taps, spans): of the first, patched.
        prompt: as rendered.
        dtype: of the computation.
        edits: that it was made under, as embedding specs have them; None: none.
    """

    names: tuple[str, str]
    answers: tuple[str, str]
    taps: tuple[str, ...]
    spans: tuple[str, ...]
    positions: tuple[int, ...]
    log_probabilities: Float64[np.ndarray, "recordings answers"]
    difference: Float64[np.ndarray, "taps spans"]
    prompt: str = ""
    dtype: str = "float32"
    edits: str | None = None

    def __post_init__(self) -> None:
        if self.difference.shape != (len(self.taps), len(self.spans)):
            raise ValueError(f"{self.difference.shape}, {len(self.taps)}, {len(self.spans)}")

    @property
    def difference_a(self) -> float:
        """Of the answers' log-probabilities, first minus second, for the first recording."""
        return float(self.log_probabilities[0, 0] - self.log_probabilities[0, 1])

    @property
    def difference_b(self) -> float:
        """The same for the second recording."""
        return float(self.log_probabilities[1, 0] - self.log_probabilities[1, 1])

    @property
    def share(self) -> Float64[np.ndarray, "taps spans"]:
        """Shape (taps, spans): the share of the way from the first recording's difference (0) to
        the second's (1)."""
        moved = self.difference - self.difference_a
        return moved / (self.difference_b - self.difference_a) + 0.0  # no zero with a sign

    def facts(self) -> dict[str, Any]:
        """What is true of all rows of the table."""
        return {
            "names": self.names,
            "answers": self.answers,
            "log_probabilities": self.log_probabilities.tolist(),
            "difference_a": self.difference_a,
            "difference_b": self.difference_b,
            "positions": dict(zip(self.spans, self.positions, strict=True)),
            "taps": self.taps,
            "spans": self.spans,
            "prompt": self.prompt,
            "dtype": self.dtype,
            **where_set(edits=self.edits),
        }

    def table(self) -> list[dict[str, Any]]:
        """One row per tap and span."""
        return [
            {"tap": tap, "span": span, "share": float(share), "difference": float(difference)}
            for tap, shares, differences in zip(self.taps, self.share, self.difference, strict=True)
            for span, share, difference in zip(self.spans, shares, differences, strict=True)
        ]

    def arrays(self) -> dict[str, np.ndarray]:
        """The numbers, and what their axes are of."""
        return {"share": self.share, "difference": self.difference}

    def __repr__(self) -> str:
        size = f"{counted(len(self.taps), 'tap')} × {', '.join(self.spans)}"
        one, two = self.answers
        return (
            f"Trace({size}; log p({one!r:.40}) − log p({two!r:.40}): {self.difference_a:+.2f} → "
            f"{self.difference_b:+.2f} nats)"
        )
