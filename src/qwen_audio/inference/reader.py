"""Recordings → outputs at taps and captions, one recording after another, as each is complete."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from qwen_audio.audio.load_options import LoadOptions
from qwen_audio.audio.log_mel import AudioWindow
from qwen_audio.audio.waveform import RecordingInfo
from qwen_audio.audio.window import Window, WindowConfig
from qwen_audio.errors import AudioError
from qwen_audio.models.tap import Tap
from qwen_audio.weights.device import trim_heap

from .batching import FailedRecording, batched_windows_and_failures
from .finite import hold_overflows, run_by_recording
from .options import Sampling
from .pipeline import Pipeline
from .progress_bars import OnWindow, no_progress
from .reducers import RowReducer

__all__ = ["CapturedRecording", "capture_recording", "capture_recordings"]

T = TypeVar("T")

_DEFAULT_LOAD_OPTIONS = LoadOptions()


@dataclass(frozen=True, eq=False)
class CapturedRecording(Generic[T]):
    """One recording's windows, and for each its outputs.

    Attributes:
        outputs: for each window, by tap, what the reducer made of the rows.
        captions: for each window its answer to the caption prompt; empty where there is none.
        token_ids: for each window its positions in the language model; empty where no tap is in it.
    """

    recording: RecordingInfo
    windows: tuple[Window, ...]
    outputs: tuple[dict[Tap, T], ...]
    captions: tuple[str, ...] = ()
    token_ids: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, eq=False)
class _Output(Generic[T]):
    """What one pass gave for one window."""

    by_tap: dict[Tap, T]
    token_ids: tuple[int, ...]
    caption: str | None = None


def capture_recordings(
    pipeline: Pipeline,
    inputs: Iterable[Any],
    taps: Sequence[Tap],
    reducer: RowReducer[T],
    *,
    prompt_text: str | None,
    window_config: WindowConfig,
    load_options: LoadOptions = _DEFAULT_LOAD_OPTIONS,
    continuation: Sampling | None = None,
    caption_prompt: str | None = None,
    is_proven: bool = False,
    on_window: OnWindow = no_progress,
) -> Iterator[CapturedRecording[T] | AudioError]:
    """For each input, in order, its outputs, or the error that says why there are none.

    That is a recording that can't be decoded, or one whose rows overflow (`NotFiniteError`).

    Args:
        taps, reducer, prompt_text, continuation: see `Pipeline.capture`.
        caption_prompt: a rendered prompt, also answered (greedily) for every window. Vectors and
            captions come from one pass of the encoder.
        is_proven: whether the model is known not to overflow for every recording; else the first
            recordings decide, see `hold_overflows`, whose errors are raised.
        on_window: called for every window of a pass, before its recording is yielded.
    """

    def capture(windows: Sequence[AudioWindow]) -> list[_Output[T]]:
        return _capture_batch(
            pipeline, windows, taps, reducer, prompt_text, continuation, caption_prompt
        )

    batches = batched_windows_and_failures(pipeline, inputs, load_options, window_config)
    return hold_overflows(_by_recording(batches, capture, on_window), is_proven=is_proven)


def _by_recording(
    batches: Iterator[list[AudioWindow | FailedRecording]],
    capture: Callable[[Sequence[AudioWindow]], list[_Output[T]]],
    on_window: OnWindow,
) -> Generator[CapturedRecording[T] | AudioError]:
    """Batches, captured, as recordings; one with a window that overflows as its error."""
    pending: list[tuple[Window, _Output[T]]] = []
    failed_index = -1
    for batch in batches:
        # Further windows of a recording that failed in the batch before are left out.
        items = [item for item in batch if item.recording_index != failed_index]
        windows = [item for item in items if isinstance(item, AudioWindow)]
        results = iter(run_by_recording(windows, capture) if windows else ())
        trim_heap()
        for item in items:
            result = item.error if isinstance(item, FailedRecording) else next(results)
            if item.recording_index == failed_index:
                continue
            if isinstance(item, FailedRecording) or isinstance(result, AudioError):
                yield cast(AudioError, result)
                pending, failed_index = [], item.recording_index
                continue
            pending.append((item.window, result))
            on_window(item.window.end_seconds)
            if item.recording is not None:  # its last window
                yield _captured_recording(item.recording, pending)
                pending = []


def capture_recording(
    pipeline: Pipeline,
    audio: Any,
    taps: Sequence[Tap],
    reducer: RowReducer[T],
    prompt_text: str | None,
    window_config: WindowConfig,
) -> CapturedRecording[T]:
    """One recording's outputs; see `capture_recordings`.

    Raises:
        AudioError: if it can't be decoded.
    """
    (captured,) = capture_recordings(
        pipeline, [audio], taps, reducer, prompt_text=prompt_text, window_config=window_config
    )
    if isinstance(captured, AudioError):
        raise captured
    return captured


def _capture_batch(
    pipeline: Pipeline,
    windows: Sequence[AudioWindow],
    taps: Sequence[Tap],
    reducer: RowReducer[T],
    prompt_text: str | None,
    continuation: Sampling | None,
    caption_prompt: str | None,
) -> list[_Output[T]]:
    if caption_prompt is None:
        captured = pipeline.capture(windows, taps, reducer, prompt_text, continuation)
        return [_Output(window.outputs, window.token_ids) for window in captured]
    pipeline.fetch_weights(None)  # all at once
    captured = pipeline.capture(
        windows, taps, reducer, prompt_text, continuation, with_projector_rows=True
    )
    audio_rows = [
        [window.projector_rows] for window in captured if window.projector_rows is not None
    ]
    texts = pipeline.generate(caption_prompt, audio_rows, Sampling())
    return [
        _Output(window.outputs, window.token_ids, text.text)
        for window, text in zip(captured, texts, strict=True)
    ]


def _captured_recording(
    recording: RecordingInfo, captured: Sequence[tuple[Window, _Output[T]]]
) -> CapturedRecording[T]:
    windows, outputs = zip(*captured, strict=True)
    return CapturedRecording(
        recording,
        windows,
        tuple(output.by_tap for output in outputs),
        tuple(output.caption for output in outputs if output.caption is not None),
        tuple(output.token_ids for output in outputs),
    )
