"""Encode: sources → Arrow rows of a collection's standard columns, or the error why there are none.

Nothing here reads or writes a collection, so that it runs in any process on any machine.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from jaxtyping import Float32

from qwen_audio.audio.load_options import LoadOptions
from qwen_audio.audio.source import Source
from qwen_audio.audio.source_content import SourceVersion, stream_source
from qwen_audio.audio.waveform import Waveform
from qwen_audio.errors import AudioError
from qwen_audio.inference.embedding_spec import EmbeddingSpec
from qwen_audio.inference.progress_bars import OnWindow, no_progress
from qwen_audio.paths import printable

if TYPE_CHECKING:
    import pyarrow as pa

    from qwen_audio.api.model import AudioModel
    from qwen_audio.audio.window import WindowConfig
    from qwen_audio.audio.window_stream import NewPeak, SampledWindow
    from qwen_audio.inference.pooling import PooledWindow, Pooling
    from qwen_audio.inference.reader import CapturedRecording

__all__ = [
    "EncodedRecording",
    "EncodedSource",
    "EncodingSettings",
    "PendingSource",
    "encode_sources",
    "encode_windows",
]


@dataclass(frozen=True)
class EncodingSettings:
    """What decides the rows of a recording, beside the model.

    Attributes:
        spec: how vectors are made.
        schema: the standard columns with their types.
        has_captions: whether every window gets a caption.
        is_proven: whether the model is known not to overflow for every recording: see
            `hold_overflows`.
    """

    spec: EmbeddingSpec
    schema: pa.Schema
    has_captions: bool
    is_proven: bool


class PendingSource:
    """A recording that is to be encoded.

    Attributes:
        source: where it is.
        version: which version of it; that which was decoded, with its hash, once its last window
            is there.
    """

    def __init__(self, source: Source, version: SourceVersion) -> None:
        self.source, self.version = source, version

    def windows(
        self, window_config: WindowConfig, track: int | None, new_peak: NewPeak | None
    ) -> Generator[SampledWindow]:
        """Its windows, decoded as they are needed, in prefetch threads: see `stream_source`.

        Raises:
            AudioError: if it can't be decoded, or changes meanwhile.
        """

        def decoded(version: SourceVersion) -> None:
            self.version = version

        yield from stream_source(
            self.source, window_config, track=track, new_peak=new_peak, on_version=decoded
        )


@dataclass(frozen=True, eq=False)
class EncodedRecording:
    """The rows of a recording.

    Attributes:
        version: which version of it was decoded, with its hash.
        rows: one per window, of the standard columns.
        duration_seconds: of the recording.
    """

    version: SourceVersion
    rows: pa.Table
    duration_seconds: float


EncodedSource: TypeAlias = tuple[PendingSource, EncodedRecording | AudioError]
"""A source with its rows, or the error that says why there are none."""


def encode_sources(
    model: AudioModel,
    settings: EncodingSettings,
    pending: Iterable[PendingSource],
    on_window: OnWindow = no_progress,
) -> Iterator[EncodedSource]:
    """Encode the sources, in order. They are taken from `pending` in threads that read ahead.

    Args:
        on_window: called for every window, before its recording is yielded.

    Raises:
        OptionError, CheckpointError, NotFiniteError: for a model that overflows: see
            `hold_overflows`.
    """
    from qwen_audio.inference.reader import capture_recordings

    spec = settings.spec
    tap, pooling = model.dimensions.tap(spec.tap), _pooling(spec)
    window_config = model.pipeline.window_config(spec.window_seconds, spec.hop_seconds)
    options = (window_config, spec.track, model.pipeline.new_peak)
    in_progress: deque[PendingSource] = deque()

    def inputs() -> Iterator[Callable[[], Generator[SampledWindow]]]:
        for item in pending:
            in_progress.append(item)
            yield partial(item.windows, *options)

    for reading in capture_recordings(
        model.pipeline,
        inputs(),
        [tap],
        pooling.pool_window,
        prompt_text=spec.prompt,
        window_config=window_config,
        caption_prompt=model.pipeline.tokenizer.render(None) if settings.has_captions else None,
        is_proven=settings.is_proven,
        on_window=on_window,
    ):
        item = in_progress.popleft()
        if isinstance(reading, AudioError):
            yield item, reading
            continue
        try:
            rows = _rows(item, reading, [pooling.combine([p[tap]]) for p in reading.outputs])
        except AudioError as error:
            yield item, error
        else:
            table = _arrow_table(settings.schema, rows)
            yield item, EncodedRecording(item.version, table, reading.recording.duration_seconds)


def encode_windows(
    model: AudioModel, audio: Any, spec: EmbeddingSpec
) -> list[Float32[np.ndarray, "width"]]:
    """The vectors of one recording's windows, as `encode_sources` makes them.

    Raises:
        AudioError: if it can't be decoded.
    """
    from qwen_audio.inference.reader import capture_recordings

    tap, pooling = model.dimensions.tap(spec.tap), _pooling(spec)
    window_config = model.pipeline.window_config(spec.window_seconds, spec.hop_seconds)
    (reading,) = capture_recordings(
        model.pipeline,
        [audio],
        [tap],
        pooling.pool_window,
        prompt_text=spec.prompt,
        window_config=window_config,
        load_options=LoadOptions(track=None if isinstance(audio, Waveform) else spec.track),
    )
    if isinstance(reading, AudioError):
        raise reading
    return [pooling.combine([pooled[tap]]) for pooled in reading.outputs]


def _pooling(spec: EmbeddingSpec) -> Pooling:
    from qwen_audio.inference.pooling import Pooling

    options = spec.options
    return Pooling(options["pooling"], options["span"])


def _rows(
    item: PendingSource,
    reading: CapturedRecording[PooledWindow],
    vectors: list[Float32[np.ndarray, "width"]],
) -> list[dict[str, Any]]:
    """One row per window of a recording: columns by name, the vector of length 1.

    Raises:
        AudioError: for a vector that is not finite, or zero.
    """
    recording, now, rows = reading.recording, datetime.now(UTC), []
    for number, (window, numbers) in enumerate(zip(reading.windows, vectors, strict=True)):
        vector = numbers.astype(np.float64)
        norm = math.sqrt(float(vector @ vector))
        if not 0 < norm < math.inf:
            raise AudioError(
                f"{printable(item.source.path)}: the vector at {window} "
                f"{'is zero' if norm == 0 else 'is not finite'}, and can't be compared with "
                "others: check the recording"
            )
        row = {
            "source": item.source.uri,
            "window": number,
            "start_seconds": window.start_seconds,
            "end_seconds": window.end_seconds,
            "duration_seconds": recording.duration_seconds,
            "sampling_rate": recording.rate_hz,
            "channels": recording.channels,
            "format": recording.format,
            "title": recording.tags.get("title"),
            "artist": recording.tags.get("artist"),
            "album": recording.tags.get("album"),
            "caption": reading.captions[number] if reading.captions else None,
            "source_bytes": item.version.size_bytes,
            "source_changed": item.version.modified,
            "content_hash": item.version.content_hash,
            "indexed_at": now,
            "norm": norm,
            "vector": (vector / norm).astype(np.float32),
        }
        rows.append(row)
    return rows


def _arrow_table(schema: pa.Schema, rows: list[dict[str, Any]]) -> pa.Table:
    """The rows, at least one, as an Arrow table of this schema."""
    import pyarrow as pa

    columns = []
    for field in schema:
        values: list[Any] = [row[field.name] for row in rows]
        if field.name == "vector":
            # Not `to_pandas_dtype()`, which needs pandas on pyarrow below 26.
            dtype = np.float16 if pa.types.is_float16(field.type.value_type) else np.float32
            numbers = pa.array(np.concatenate(values).astype(dtype))
            columns.append(pa.FixedSizeListArray.from_arrays(numbers, field.type.list_size))
        else:
            columns.append(pa.array(values, field.type))
    return pa.Table.from_arrays(columns, schema=schema)
