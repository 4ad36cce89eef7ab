"""What a language model's matrices multiply when it captions recordings: calibration of GPTQ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from qwen_audio.audio.window import WindowConfig
from qwen_audio.errors import AudioError
from qwen_audio.models.tap import Stage, Tap
from qwen_audio.models.tensors import DECODER_LAYERS, LM_HEAD
from qwen_audio.weights.gptq import InputMoments

from .memory_budget import batch_by_size
from .options import Sampling
from .pipeline import Pipeline
from .progress_bars import OnWindow, no_progress
from .reader import capture_recordings
from .reducers import rows_as_computed

__all__ = ["Calibration", "caption_rows"]

_BATCH_POSITIONS = 4_096
"""That a layer computes at a time: 90 MB of 11,008 columns in 16 bits."""


def caption_rows(
    pipeline: Pipeline, recordings: Sequence[Any], on_window: OnWindow = no_progress
) -> Iterator[list[Tensor]]:
    """For each recording, of each window the language model's inputs, (positions, width): prompt,
    audio and the caption that it generates.

    Raises:
        AudioError: for a recording that can't be decoded.
    """
    tap = Tap(Stage.LM, 0)
    for captured in capture_recordings(
        pipeline,
        recordings,
        [tap],
        rows_as_computed,
        prompt_text=pipeline.tokenizer.render(None),
        window_config=WindowConfig(),
        continuation=Sampling(),
        on_window=on_window,
    ):
        if isinstance(captured, AudioError):
            raise captured
        yield [window[tap][0] for window in captured.outputs]


class Calibration:
    """The moments of the inputs of every matrix of a language model, one layer after another.

    A layer computes all inputs before the next one is read: its weights, and the moments of its
    inputs, are all that is in memory.

    Args:
        pipeline: of weights that aren't quantised; what it holds in memory is released.
        clips: inputs of the language model, of `caption_rows`.

    Attributes:
        positions: of all clips.
    """

    def __init__(self, pipeline: Pipeline, clips: Sequence[Tensor]) -> None:
        self._lm, self._device = pipeline.lm, pipeline.device
        pipeline.modules.release_for_streaming(DECODER_LAYERS)
        batches = batch_by_size(clips, lambda rows: (len(rows),), (_BATCH_POSITIONS,))
        self._batches: list[tuple[Tensor, Any]] = []
        for batch in batches:
            rows = torch.cat(batch)
            arguments = self._lm.layer_arguments(rows, tuple(map(len, batch)))
            self._batches.append((rows, arguments))
        self._layers = self._lm.layers()
        self.positions = sum(len(rows) for rows, _ in self._batches)

    @torch.no_grad()
    def of_module(self, prefix: str) -> dict[str, InputMoments]:
        """By tensor, the moments of a module's inputs: of a decoder layer, or of the head; none of
        others. Layers are asked for in order, and the head after them."""
        if prefix.startswith(DECODER_LAYERS):
            return self._of_layer(next(self._layers))
        if prefix != LM_HEAD.removesuffix("weight"):
            return {}
        norm = self._lm.final_norm()
        moments = InputMoments(self._batches[0][0].shape[1], self._device)
        for rows, _ in self._batches:
            moments.add(norm(rows))
        return {"weight": moments}

    def _of_layer(self, layer: nn.Module) -> dict[str, InputMoments]:
        moments: dict[str, InputMoments] = {}
        with _observed(layer, moments):
            for number, (rows, arguments) in enumerate(self._batches):
                self._batches[number] = self._lm.run_layer(layer, rows, arguments), arguments
        return moments


@contextmanager
def _observed(layer: nn.Module, moments: dict[str, InputMoments]) -> Iterator[None]:
    """Within it, the inputs of a layer's matrices are added to their moments, by tensor. Matrices
    of the same inputs (queries, keys and values) share theirs."""
    last: tuple[Tensor | None, str] = None, ""

    def observe(name: str, rows: Tensor) -> None:
        nonlocal last
        if rows is last[0]:
            moments[name] = moments[last[1]]
            return
        if name not in moments:
            moments[name] = InputMoments(rows.shape[-1], rows.device)
        moments[name].add(rows)
        last = rows, name

    with ExitStack() as hooks:
        for path, module in layer.named_modules():
            if hasattr(module, "in_features"):  # also where it is packed
                name = f"{path}.weight"
                handle = module.register_forward_pre_hook(
                    lambda _, inputs, name=name: observe(name, inputs[0])
                )
                hooks.callback(handle.remove)
        yield
