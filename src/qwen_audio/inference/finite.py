"""Rows that overflow: found at every tap of a pass, named, and told from a model that always does.

Infinity and NaN in a row stay in it to the end of the pipeline, and spread to other rows by
attention. So every tap that a pass computes is checked, with one reduction, and the first one that
isn't finite is named.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, TypeVar

import torch
from torch import Tensor

from qwen_audio.audio.log_mel import AudioWindow
from qwen_audio.errors import AudioError, CheckpointError, NotFiniteError, OptionError
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.tap import Stage, Tap
from qwen_audio.models.tensors import EMBEDDINGS

__all__ = ["FiniteCheck", "hold_overflows", "raise_first", "run_by_recording"]

T = TypeVar("T")
U = TypeVar("U")

_MAX_SQUARED = 2.0**56
"""Norms square values, and sums of squares of larger ones overflow in float32: norms then return
zeros, which are finite and wrong."""
_CLAMP_FLOAT16 = torch.finfo(torch.float16).max - 1000
"""transformers' encoder layers replace what overflows in float16 by this number."""
_MAX_OVERFLOWS = 8
"""So many recordings in a row that overflow, and none that doesn't: the model always does."""


class FiniteCheck:
    """Checks the rows of all taps of one pass, in order.

    Args:
        token_ids: of the language model's inputs: which embeddings it has looked up.
    """

    def __init__(self, checkpoint: Checkpoint, token_ids: Iterable[int] = ()) -> None:
        self._checkpoint, self._token_ids = checkpoint, token_ids
        self._taps: list[Tap | None] = []
        self._extremes: list[Tensor] = []

    def watch(self, tap: Tap | None, rows: Tensor) -> None:
        """Reduce the rows of a tap (None: logits) to their extremes, without waiting for a GPU."""
        if rows.numel():
            self._taps.append(tap)
            self._extremes += rows.aminmax()

    def check(self) -> None:
        """Check all rows since the last call.

        Raises:
            NotFiniteError: if activations overflow.
            OptionError, CheckpointError: if a weight isn't finite, in this dtype or as stored, so
                that rows of no recording can be.
        """
        if self._taps:
            self.check_and_read(self._extremes[0].new_empty(0))

    def check_and_read(self, numbers: Tensor) -> list[float]:
        """Check all rows since the last call, of which there are some, and read other numbers from
        the device at the same time: a GPU is waited for once.

        Args:
            numbers: shape (n,); whole ones up to 2**24 are exact.

        Raises:
            NotFiniteError, OptionError, CheckpointError: see `check`.
        """
        dtype = self._extremes[0].dtype
        both = torch.cat([torch.stack(self._extremes).float(), numbers.float()]).tolist()
        count = len(self._extremes)
        for tap, low, high in zip(self._taps, both[:count:2], both[1:count:2], strict=True):
            limit = _limit(tap, dtype)
            if not (-limit < low and high < limit):  # also where one is NaN
                raise self._error(tap, dtype)
        self._taps, self._extremes = [], []
        return both[count:]

    def _error(self, tap: Tap | None, dtype: torch.dtype) -> Exception:
        name = _name(dtype)
        place = "the language model's head" if tap is None else str(tap)
        for tensor in self._new_tensors(tap):
            stored, largest = self._largest_weight(tensor)
            if not largest < float("inf"):
                return CheckpointError(
                    f"{self._checkpoint.name}: tensor {tensor} holds NaN or infinity, so that "
                    f"nothing is finite from {place} on: download the checkpoint again, or save it "
                    "again from intact weights"
                )
            if largest > torch.finfo(dtype).max:
                return OptionError(
                    f"{name} overflows at {place}: tensor {tensor} of {self._checkpoint.name} "
                    f"holds {largest:.3g} (in {_name(stored)}), and {name} ends at "
                    f"{torch.finfo(dtype).max:.3g}: {_advice(dtype)}"
                )
        return NotFiniteError(place, name, _advice(dtype))

    def _new_tensors(self, tap: Tap | None) -> list[str]:
        """The tensors that a tap needs and the tap before it doesn't."""
        taps = [*self._checkpoint.dimensions.taps(), None]
        number = taps.index(tap)
        before = self._checkpoint.required_tensors(taps[number - 1]) if number else {}
        return [name for name in self._checkpoint.required_tensors(tap) if name not in before]

    def _largest_weight(self, name: str) -> tuple[torch.dtype, float]:
        """The stored dtype of a tensor, and its largest absolute value; NaN if it holds one."""
        if name == EMBEDDINGS:
            tensors = self._checkpoint.embedding_rows(sorted(set(self._token_ids)))
        else:
            tensors = list(self._checkpoint.tensors.read(name).values())
        extremes = torch.stack([torch.stack(tensor.aminmax()) for tensor in tensors])
        return tensors[0].dtype, float(extremes.abs().max())


def _limit(tap: Tap | None, dtype: torch.dtype) -> float:
    """Rows at a tap must be smaller than this: up to it, the layers after it compute right."""
    if dtype is not torch.float16:
        return _MAX_SQUARED
    in_encoder = tap is not None and tap.stage is Stage.ENCODER
    return _CLAMP_FLOAT16 if in_encoder else float("inf")


def _advice(dtype: torch.dtype) -> str:
    if dtype is torch.float16:
        return "use bfloat16 or float32"
    widest = dtype is torch.float32
    return "check the checkpoint's weights" if widest else "use float32, or check the weights"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def run_by_recording(
    windows: Sequence[AudioWindow], run: Callable[[Sequence[AudioWindow]], Sequence[T]]
) -> list[T | NotFiniteError]:
    """The results of `run` for all windows in one pass.

    If rows overflow in it, each recording is run alone: an error that names it takes the place of
    the results of every recording that overflows alone, too.
    """
    try:
        return list(run(windows))
    except NotFiniteError as error:
        recordings: dict[int, list[AudioWindow]] = {}
        for window in windows:
            recordings.setdefault(window.recording_index, []).append(window)
        if len(recordings) == 1:
            return [error.named(windows[0].name)] * len(windows)
    results: list[T | NotFiniteError] = []
    for same in recordings.values():  # in order: a recording's windows are consecutive
        results += run_by_recording(same, run)
    return results


def raise_first(results: Iterable[T | NotFiniteError]) -> list[T]:
    """The results. Raises the first error among them."""
    checked: list[T] = []
    for result in results:
        if isinstance(result, NotFiniteError):
            raise result
        checked.append(result)
    return checked


def hold_overflows(
    results: Generator[U | AudioError], *, is_proven: bool = False
) -> Iterator[U | AudioError]:
    """The same results, in order: whether a recording overflows or the model is decided first.

    From the first NotFiniteError on results are held back, until a recording gives finite rows.
    Then it is a fault of single recordings. If none does, it is one of the model in this dtype.

    Args:
        is_proven: whether the model is known to give finite rows for other recordings.

    Raises:
        OptionError: if all recordings overflow (or the first 8 that can be decoded), in float16.
        CheckpointError: the same in another dtype.
        NotFiniteError: if there is only one recording, which can't decide it.
    """
    held: list[Any] = []
    overflows: list[NotFiniteError] = []
    with closing(results):
        for result in results:
            if isinstance(result, NotFiniteError):
                overflows.append(result)
            is_proven = is_proven or not isinstance(result, AudioError)
            held.append(result)
            if is_proven or not overflows:
                yield from held
                held = []
            if len(held) and len(overflows) == _MAX_OVERFLOWS:
                break
    if held:
        raise overflows[0].of_model(len(overflows))
