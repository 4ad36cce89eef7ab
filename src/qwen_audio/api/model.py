"""QwenAudio: the whole line behind a few verbs, and `load`, which opens a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack, overload

import torch

from qwen_audio.audio.inputs import AudioInput, AudioInputs, as_input_list
from qwen_audio.audio.load import load_waveform
from qwen_audio.audio.window import WindowConfig
from qwen_audio.inference.pipeline import Pipeline
from qwen_audio.models.checkpoint import EMBEDDED, Checkpoint
from qwen_audio.weights.device import available_bytes, resolve_bytes, resolve_device, resolve_dtype
from qwen_audio.weights.download import Report

from .describe import Describing
from .encode import Encoding
from .inspection import ShapeTrace, trace_shapes
from .interpret import Looking
from .options import InspectOptions
from .parity import ParityReport, check_parity, synthetic_clips

__all__ = ["AudioModel", "load"]

_SHARE_OF_MEMORY = 0.9
"""Of what is free when a model is loaded: others want some, too."""


def load(
    model: str | Path = EMBEDDED,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
    chat: bool | None = None,
    max_memory: str | int | None = None,
    on_download: Report | None = None,
) -> AudioModel:
    """Open a checkpoint. No weights are read until a tap needs them.

    Args:
        model: "embedded", a folder, or a hub model such as "Qwen/Qwen2-Audio-7B-Instruct".
        device: where to compute; a GPU if there is one, else the CPU.
        dtype: of the arithmetic: "float32", "bfloat16" or "float16"; by default the checkpoint's
            own, but float32 on a CPU that has no instructions for bfloat16.
        revision: branch, tag or commit of a hub model.
        chat: whether questions go through the chat template; by default as the checkpoint was
            taught (base: plain, Instruct: chat).
        max_memory: what this process may take of the device's memory, such as "4GB"; by default
            most of what is free. Layers that don't fit are read for every pass, one while another
            computes: quick for `encode` and `activations`, slow for words, which take a pass each.
        on_download: called with bytes brought and bytes to bring while weights come from a hub.

    Raises:
        CheckpointError: if the checkpoint is missing or not exactly what its config says.
        OptionError: for a device, dtype or memory that isn't there.
    """
    where = resolve_device(device)
    limit = resolve_bytes(max_memory)
    checkpoint = Checkpoint(model, revision)
    return AudioModel(
        Pipeline(
            checkpoint,
            where,
            resolve_dtype(dtype, checkpoint.dtype, where),
            chat=chat,
            max_memory=round(_SHARE_OF_MEMORY * available_bytes(where)) if limit is None else limit,
            report=on_download,
        )
    )


class AudioModel(Describing, Encoding, Looking):
    """One checkpoint's line. Made by `load`.

    Every method takes one input or a list of them, and gives one result or a list. An input is a
    path, "-" for standard input, bytes, a binary file object, a Waveform, or an array or tensor
    with `sampling_rate=`. Recordings longer than a window are heard window by window, all of it.
    """

    @overload
    def inspect(self, audio: AudioInput, **options: Unpack[InspectOptions]) -> ShapeTrace: ...
    @overload
    def inspect(
        self, audio: AudioInputs, **options: Unpack[InspectOptions]
    ) -> list[ShapeTrace]: ...
    def inspect(
        self,
        audio: AudioInput | AudioInputs,
        *,
        prompt: str | None = None,
        sampling_rate: int | None = None,
        window_seconds: float = WindowConfig.window_seconds,
        hop_seconds: float | None = None,
    ) -> ShapeTrace | list[ShapeTrace]:
        """A clip's whole story on the line, without computing it: see `ShapeTrace`."""
        inputs, single = as_input_list(audio)
        window_config = WindowConfig(window_seconds, hop_seconds)
        prompt_text = self.pipeline.prompts.render(prompt)
        results = [
            trace_shapes(
                self.pipeline,
                load_waveform(item, sampling_rate=sampling_rate),
                window_config,
                prompt_text,
            )
            for item in inputs
        ]
        return results[0] if single else results

    def check_parity(
        self, audio: AudioInput | AudioInputs | None = None, *, prompt: str | None = None
    ) -> ParityReport:
        """Compare with transformers' own model on this machine, tap by tap, as deep as memory
        allows; on sounds made for it, or on recordings of at most 30 s.

        Raises:
            AudioError: for a recording that can't be heard, or is longer.
            OptionError: where memory does not even hold the ear and one decoder layer.
        """
        clips = synthetic_clips()
        if audio is not None:
            inputs, _ = as_input_list(audio)
            clips = [load_waveform(item) for item in inputs]
        return check_parity(self.pipeline, clips, prompt)

    def __repr__(self) -> str:
        taps = " → ".join(str(tap) for tap in (self.taps[0], self.taps[-1]))
        where = f"{self.dtype} on {self.pipeline.device}"
        return f"AudioModel({self.name!r}, {taps}, {where})"
