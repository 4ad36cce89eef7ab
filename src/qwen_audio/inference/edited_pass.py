"""What a pass of the encoder or decoder does at a tap for edits and gradients."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qwen_audio.models.kv_cache import CachePass
from qwen_audio.models.tap import Tap

from .interventions import REDUCIBLE, ActiveEdit, active_edits, is_leaf
from .spans import Segment

__all__ = ["EditedPositions", "edited_clips", "parts_called"]


def edited_clips(
    owner: object,
    tap: Tap,
    clips: Sequence[Tensor],
    audio_counts: Sequence[int],
    may_reduce: bool,
) -> tuple[list[Tensor], list[Tensor]]:
    """Rows of each clip at a tap of the encoder, after edits; those of padding stay.

    Args:
        audio_counts: how many of a clip's rows are audio, the first ones.
        may_reduce: whether the language model takes any number of them; rows of padding, which it
            isn't given then, go where their number changes.

    Returns:
        For each clip its rows of audio, leaves where that is asked for, and all of its rows.
    """
    active = [each for each in active_edits(owner) if each.place.tap == tap]
    audios, edited = [], []
    for rows, count in zip(clips, audio_counts, strict=True):
        audio, padding = rows[:count], rows[count:]
        for each in active:
            audio = each.apply(audio, may_reduce=may_reduce and tap.stage in REDUCIBLE)
        if len(audio) != count:
            padding = padding[:0]
        if is_leaf(owner, tap):
            audio = audio.detach().clone().requires_grad_()
        audios.append(audio)
        edited.append(torch.cat([audio, padding]) if len(padding) else audio)
    return audios, edited


class EditedPositions:
    """Edits of the positions of one pass of the language model.

    Args:
        inputs: of the pass (`DecoderInput`). What follows cached positions is generated, as under
            edits no prompt is processed in parts.
    """

    def __init__(
        self,
        owner: object,
        inputs: Sequence[Any],
        cached: CachePass | None,
        audio_id: int,
    ) -> None:
        self._active: dict[Tap, list[ActiveEdit]] = {}
        for each in active_edits(owner):
            if each.place.tap.in_language_model:
                self._active.setdefault(each.place.tap, []).append(each)
        self._segments: list[Sequence[Segment]] = []
        self._audios: list[Sequence[tuple[int, int]]] = []
        starts = [0] * len(inputs) if cached is None else cached.starts
        for item, start in zip(inputs, starts, strict=True) if self._active else ():
            generated: Sequence[Segment] = (("generated", len(item.token_ids)),)
            self._segments.append(generated if start else item.segments(audio_id))
            self._audios.append(item.audios)

    @property
    def taps(self) -> frozenset[Tap]:
        """That have edits."""
        return frozenset(self._active)

    def apply(self, tap: Tap, rows: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
        """The rows of all inputs at a tap, after edits; the same tensor where there are none."""
        for each in self._active.get(tap, ()):
            edited = rows.clone()
            for group in filter(None, self._groups(each.place.span)):
                is_run = len(group) == group[-1] - group[0] + 1
                places: Any = slice(group[0], group[-1] + 1) if is_run else list(group)
                edited[places] = each.apply(rows[places])
            rows = edited
        return rows

    def _groups(self, span: str) -> Iterator[Sequence[int]]:
        """The rows of a span: each audio's, each input's of the prompt, and generated ones one by
        one, as they are made."""
        start = 0
        for segments, audios in zip(self._segments, self._audios, strict=True):
            kinds = [kind for kind, count in segments for _ in range(count)]
            generated = [start + k for k, kind in enumerate(kinds) if kind == "generated"]
            given = [start + k for k, kind in enumerate(kinds) if kind != "generated"]
            if span == "audio":
                places = iter([start + k for k, kind in enumerate(kinds) if kind == "audio"])
                for audio, padding in audios:
                    yield list(itertools.islice(places, audio))
                    list(itertools.islice(places, padding))
                yield list(places)  # where it isn't known whose they are
            elif span == "prompt":
                yield [start + k for k, kind in enumerate(kinds) if kind == "prompt"]
            elif span == "last":
                yield given[-1:]
            elif span == "all":
                yield given
            if span in ("generated", "all"):
                yield from ([row] for row in generated)
            start += len(kinds)


@contextmanager
def parts_called(
    modules: Mapping[str, nn.Module], on_part: Callable[[str, Tensor], Tensor]
) -> Iterator[None]:
    """While a layer runs in this thread: its parts' rows are what `on_part` returns for them.

    Args:
        modules: by part: what computes it; of the heads, what takes them as its input.
        on_part: called with a part and its rows, (rows, width).
    """

    thread = threading.get_ident()

    def output_hook(part: str) -> Callable[..., Any]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            if threading.get_ident() != thread:
                return output
            rows, *rest = output if isinstance(output, tuple) else (output,)
            given = rows.reshape(-1, rows.shape[-1])
            changed = on_part(part, given)
            rows = rows if changed is given else changed.reshape(rows.shape)
            return (rows, *rest) if isinstance(output, tuple) else rows

        return hook

    def input_hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if threading.get_ident() != thread:
            return inputs
        rows, *rest = inputs
        given = rows.reshape(-1, rows.shape[-1])
        changed = on_part("heads", given)
        return (rows if changed is given else changed.reshape(rows.shape), *rest)

    handles = [
        module.register_forward_pre_hook(input_hook)
        if part == "heads"
        else module.register_forward_hook(output_hook(part))
        for part, module in modules.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
