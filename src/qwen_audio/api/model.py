"""AudioModel, and `load`, which opens a checkpoint."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Unpack, overload

import torch

from qwen_audio.audio.inputs import AudioInput, AudioInputs, as_input_list
from qwen_audio.audio.load import load_waveform
from qwen_audio.audio.load_options import OnDamage
from qwen_audio.audio.window import WindowConfig
from qwen_audio.inference.cost import process_bytes
from qwen_audio.inference.html_table import html_table
from qwen_audio.inference.out_of_memory import explains_out_of_memory
from qwen_audio.inference.pipeline import Pipeline
from qwen_audio.inference.progress_bars import OnProgress, download_bar
from qwen_audio.models.checkpoint import EMBEDDED, Checkpoint
from qwen_audio.weights.device import available_bytes, resolve_device, resolve_dtype
from qwen_audio.weights.download import ProgressCallback
from qwen_audio.weights.option_values import resolve_bytes

from .attribution import AttributionMixin
from .audio_ablation import AblationMixin
from .compare import CompareMixin
from .describe import DescribeMixin
from .encode import EncodeMixin
from .inspection import ShapeTrace, trace_shapes
from .interpret import InterpretMixin
from .interventions import InterventionsMixin
from .occlusion import OcclusionMixin
from .options import InspectOptions
from .parity import ParityReport, check_parity, synthetic_clips
from .score import ScoreMixin
from .trace import TraceMixin

__all__ = ["AudioModel", "load"]

_SHARE_OF_MEMORY = 0.9
"""Of what is free when a model is loaded: other processes need some, too."""


def load(
    model: str | Path = EMBEDDED,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
    adapter: str | Path | None = None,
    quantize: str | None = None,
    chat: bool | None = None,
    max_memory: str | int | None = None,
    on_download: ProgressCallback | None = None,
    on_quantize: ProgressCallback | None = None,
    progress: bool | None = None,
) -> AudioModel:
    """Open a checkpoint. No weights are read until a tap needs them.

    Args:
        model: "embedded", a folder, or a hub model such as "Qwen/Qwen2-Audio-7B-Instruct".
        device: such as "cpu", "cuda" or "mps" (Apple's GPU, untested); an NVIDIA GPU if there is
            one, else the CPU.
        dtype: of the computation: "float32", "bfloat16" or "float16"; by default the checkpoint's
            own, but float32 on a CPU or GPU that has no instructions for bfloat16.
        revision: branch, tag or commit of a hub model.
        adapter: a LoRA adapter for it, as PEFT saves it: a folder, or a hub model. It is merged
            into the weights as they are read.
        quantize: hold the weights of linear layers in fewer bits: "int8", "int4" (groups of 32,
            head in 8 bits, encoder as it is) or "int4-g128" (the smallest: head in 4 bits, encoder
            in 8). They are quantised once, and kept in the hub's cache. Hidden states and text
            differ a little from those of the weights as they are: see docs/quantization.md.
        chat: whether prompts go through the chat template; by default as the checkpoint was trained
            (base: plain, Instruct: chat).
        max_memory: what this process may take of the device's memory, such as "4GB"; by default
            what it holds now and most of what is free. Layers that don't fit are streamed: read in
            every pass, one while another computes. That is fast for `encode` and `activations`, and
            slow for generating text, where every token is a pass.
        on_download: called with bytes downloaded and bytes to download while weights come from a
            hub.
        on_quantize: called with bytes of weights quantised and to be quantised, the first time.
        progress: whether progress bars show both, where the functions aren't given; by default in
            notebooks only.

    Raises:
        CheckpointError: if the checkpoint is missing or not exactly what its config says, or the
            adapter isn't LoRA, or is for another model.
        OptionError: for a device, dtype or memory limit that can't be used.
    """
    report = on_download or download_bar(progress)
    report_quantized = on_quantize or download_bar(progress, "quantising weights")
    resolved_device = resolve_device(device)
    limit = resolve_bytes(max_memory)
    if limit is None:
        free = available_bytes(resolved_device)
        limit = process_bytes(resolved_device) + round(_SHARE_OF_MEMORY * free)
    checkpoint = Checkpoint(model, revision, adapter, quantize)
    pipeline = Pipeline(
        checkpoint,
        resolved_device,
        resolve_dtype(dtype, checkpoint.dtype, resolved_device),
        chat=chat,
        max_memory=limit,
        report=report,
        report_quantized=report_quantized,
    )
    return AudioModel(
        pipeline,
        device=device,
        dtype=pipeline.dtype_name,  # and the commit: another process computes the same vectors
        revision=checkpoint.commit,
        adapter=adapter,
        quantize=quantize,
        chat=chat,
        max_memory=max_memory,
        progress=progress,
    )


class AudioModel(
    DescribeMixin,
    EncodeMixin,
    CompareMixin,
    InterpretMixin,
    ScoreMixin,
    InterventionsMixin,
    TraceMixin,
    AttributionMixin,
    AblationMixin,
    OcclusionMixin,
):
    """A loaded checkpoint; returned by `load`.

    Every method takes one input or a list of them, and returns one result or a list. An input is a
    path, "-" for standard input, bytes, a binary file object, a Waveform, or an array or tensor
    with `sampling_rate=`; `qwen_audio.find_files` lists those of a folder.

    Recordings longer than `window_seconds` (0.04 to 30, the default; more where the model takes
    more: see docs/families.md) are processed in full, window by window. One begins every
    `hop_seconds`, by default where the one before it ends. The last one is as short as what is
    left, down to 40 ms, and so says little: the results state their `start_seconds` and
    `end_seconds`, by which it can be left out.

    A pickle holds no weights but what it takes to load the model again: each worker of a PyTorch
    DataLoader, or of multiprocessing, loads its own.
    """

    def __init__(self, pipeline: Pipeline, **load_options: Any) -> None:
        """Of a pipeline that `load` makes of the checkpoint with these options."""
        super().__init__(pipeline)
        self._load_options = load_options

    @property
    def load_options(self) -> dict[str, Any]:
        """The options with which `load` gives the same model in another process."""
        return dict(self._load_options)

    def __reduce__(self) -> Any:
        return functools.partial(load, **self._load_options), (self.name,)

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
        track: int | None = None,
        on_damage: OnDamage = "raise",
        window_seconds: float = WindowConfig.window_seconds,
        hop_seconds: float | None = None,
    ) -> ShapeTrace | list[ShapeTrace]:
        """Shapes and costs of a recording at every tap, without computing it: see `ShapeTrace`."""
        inputs, single = as_input_list(audio)
        window_config = self.pipeline.window_config(window_seconds, hop_seconds)
        has_prompt = self.dimensions.has_language_model or prompt is not None
        prompt_text = self.pipeline.tokenizer.render(prompt) if has_prompt else None
        results = [
            trace_shapes(
                self.pipeline,
                load_waveform(item, sampling_rate=sampling_rate, track=track, on_damage=on_damage),
                window_config,
                prompt_text,
            )
            for item in inputs
        ]
        return results[0] if single else results

    @explains_out_of_memory
    def check_parity(
        self,
        audio: AudioInput | AudioInputs | None = None,
        *,
        prompt: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> ParityReport:
        """Compare with transformers' own model on this machine, tap by tap, as deep as memory
        allows; on synthetic clips, or on recordings of at most one window.

        Args:
            on_progress: see `OnProgress`.

        Raises:
            AudioError: for a recording that can't be decoded, or is longer.
            OptionError: where the audio encoder and one decoder layer don't fit in memory.
        """
        clips = synthetic_clips()
        if audio is not None:
            inputs, _ = as_input_list(audio)
            clips = [load_waveform(item) for item in inputs]
        return check_parity(self.pipeline, clips, prompt, on_progress)

    def __repr__(self) -> str:
        taps = " → ".join(str(tap) for tap in (self.taps[0], self.taps[-1]))
        adapter = "" if self.adapter is None else f" with {self.adapter!r}"
        numbers = self.dtype if self.quantization is None else f"{self.quantization}, {self.dtype}"
        return f"AudioModel({self.name!r}{adapter}, {taps}, {numbers} on {self.pipeline.device})"

    def _repr_html_(self) -> str:
        dimensions = self.dimensions
        rows = [
            (
                tap,
                dimensions.width(tap),
                "a position" if tap.in_language_model else f"{dimensions.rate_hz(tap):g} Hz",
            )
            for tap in self.taps
        ]
        return html_table(("tap", "width", "rows"), rows, repr(self))
