"""direction: the difference of class means at a tap, for steering."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float32

from qwen_audio.api.model import AudioModel, load
from qwen_audio.errors import OptionError, whole_number_option
from qwen_audio.inference.embedding_spec import EmbeddingSpec
from qwen_audio.inference.options import PoolingName, SpanName
from qwen_audio.inference.progress_bars import OnProgress
from qwen_audio.models.tap import Tap

from .content import identify, load_identified
from .labels import LabelledDataset, LabelsInput, read_labels
from .targets import Target

__all__ = ["Direction", "direction"]


@dataclass(frozen=True, eq=False, repr=False)
class Direction:
    """A direction at one tap: the mean vector of a class minus that of others; returned by
    `qwen_audio.direction`. `qwen_audio.edits.add` takes it.

    Attributes:
        vector: shape (width,).
        tap: of the vectors.
        positive, negative: the class, and what it is compared with; "" for all others.
        counts: recordings of both.
        spec: what the vectors were computed with.
        is_control: whether this is a random vector.
    """

    vector: Float32[np.ndarray, "width"]
    tap: str
    positive: str
    negative: str
    counts: tuple[int, int]
    spec: EmbeddingSpec
    is_control: bool = False

    @property
    def norm(self) -> float:
        """L2 norm."""
        return float(np.linalg.norm(self.vector))

    def random(self, seed: int = 0) -> Direction:
        """A control: a random direction of the same norm. What it does, too, is no effect of the
        labels."""
        seed = whole_number_option("seed", seed, 0, 2**63 - 1)
        noise = np.random.default_rng(seed).standard_normal(len(self.vector))
        vector = (noise * (self.norm / np.linalg.norm(noise))).astype(np.float32)
        return replace(self, vector=vector, is_control=True)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.vector, dtype, copy=copy)

    def __len__(self) -> int:
        return len(self.vector)

    def __repr__(self) -> str:
        kind = "random control of " if self.is_control else ""
        return (
            f"Direction({kind}{self.positive!r} ({self.counts[0]}) − "
            f"{self.negative or 'others'!r} ({self.counts[1]}) at {self.tap}: "
            f"{len(self)} numbers, norm {self.norm:.3g})"
        )


def direction(
    labels: LabelsInput | LabelledDataset,
    model: AudioModel | None = None,
    *,
    tap: str | Tap,
    target: str | None = None,
    positive: str | None = None,
    negative: str | None = None,
    span: SpanName = "audio",
    prompt: str | None = None,
    progress: bool | None = None,
    on_progress: OnProgress | None = None,
) -> Direction:
    """The mean of the vectors of one class minus the mean of those of another, or of all others.

    Args:
        labels: as for `probe`: a manifest, a folder of class folders, or rows.
        model: by default the embedded checkpoint.
        tap: where; vectors are means over the span's rows of each recording.
        target: the column of classes; needed where there are several.
        positive: the class; needed where there are more than two. Of two it is the one that comes
            first in the labels.
        negative: the class to compare with; by default all others.
        span, prompt: as for `encode`.
        progress, on_progress: as for `encode`.

    Raises:
        AudioError: for a recording that can't be decoded.
        TapError, OptionError: for a tap that isn't there, and labels that name no two classes.
    """
    dataset = labels if isinstance(labels, LabelledDataset) else read_labels(labels)
    column = _column(dataset, target)
    classes = list(dict.fromkeys(str(value) for value in column.values if value is not None))
    positive, negative = _classes(column.name, classes, positive, negative)
    chosen = [
        (partial(load_identified, source, identify(source), None), str(value) == positive)
        for source, value in zip(dataset.sources, column.values, strict=True)
        if value is not None and (negative is None or str(value) in (positive, negative))
    ]
    model = load() if model is None else model
    pooling: PoolingName = "last" if span == "last" else "mean"
    spec = model.spec(tap, pooling=pooling, span=span, prompt=prompt)
    vectors = model.encode_each(
        [load for load, _ in chosen],
        tap=tap,
        pooling=pooling,
        span=span,
        prompt=prompt,
        progress=progress,
        on_progress=on_progress,
    )
    is_positive = np.array([is_it for _, is_it in chosen])
    values = np.stack([np.asarray(vector, np.float64) for vector in vectors])
    vector = values[is_positive].mean(0) - values[~is_positive].mean(0)
    if not vector.any():
        raise OptionError(
            f"{positive!r} and {negative or 'the others'!r} have equal means at {tap}"
        )
    counts = int(is_positive.sum()), int((~is_positive).sum())
    return Direction(vector.astype(np.float32), spec.tap, positive, negative or "", counts, spec)


def _column(dataset: LabelledDataset, target: str | None) -> Target:
    columns = {each.name: each for each in dataset.targets if each.task == "classes"}
    if target is not None and target not in columns:
        reason = dataset.problems.get(target, "there is no such column of classes")
        raise OptionError(f"target={target!r}: {reason}; use {', '.join(columns) or 'others'}")
    if target is None and len(columns) != 1:
        found = ", ".join(columns) or "; ".join(dataset.problems.values()) or "none"
        raise OptionError(f"direction takes one column of classes: name it (target): {found}")
    return columns[target or next(iter(columns))]


def _classes(
    name: str, classes: list[str], positive: str | None, negative: str | None
) -> tuple[str, str | None]:
    listed = ", ".join(classes[:10])
    if len(classes) < 2:
        raise OptionError(f"column {name!r} has one class ({listed}): a direction takes two")
    if positive is None:
        if len(classes) > 2:
            raise OptionError(
                f"column {name!r} has {len(classes)} classes: name one (positive): {listed}"
            )
        positive = next(each for each in classes if each != negative)
    if unknown := [each for each in (positive, negative) if each not in (None, *classes)]:
        raise OptionError(f"column {name!r} has no class {unknown[0]!r}: use {listed}")
    if positive == negative:
        raise OptionError(f"positive and negative are both {positive!r}: name two classes")
    if negative is None and len(classes) == 2:
        negative = next(each for each in classes if each != positive)
    return positive, negative
