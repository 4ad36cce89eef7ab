"""A Ray Dataset of recordings: what a method of the model says of them, a row a window."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from qwen_audio.audio.source import Source
from qwen_audio.errors import AudioError, OptionError, check_extra

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data

    from qwen_audio.api.model import AudioModel
    from qwen_audio.collection.engines.ray_worker import ModelLoader

__all__ = ["map_dataset"]

Verb = Literal["encode", "describe", "activations"]

_BATCH_RECORDINGS = 16
"""That a worker is given at once: clips share passes, and memory holds the rows of so many."""


def map_dataset(
    uris: Iterable[str | Path],
    verb: Verb = "encode",
    *,
    model: AudioModel | None = None,
    workers: int | None = None,
    cpus_per_worker: int = 1,
    gpus_per_worker: float = 0.0,
    **options: Any,
) -> ray.data.Dataset:
    """A lazy Ray Dataset with a row per window of every recording, in any order.

    Recordings are read by the workers. This process must be connected to Ray (`ray.init`), or Ray
    starts on this machine.

    Args:
        uris: paths and URIs that every machine of the cluster sees under the same name.
        verb: a method of the model. "encode": the column `vector`; "describe": `caption`;
            "activations": for each tap a column of its rows.
        model: loaded by every worker for itself; the embedded checkpoint by default.
        workers: processes, each with a model; by default as many as fit.
        cpus_per_worker, gpus_per_worker: what each takes; a GPU can be shared, such as 0.5.
        options: of the method, such as tap, prompt and window_seconds; of "activations" `taps`.

    Returns:
        Columns `uri`, `window`, `start_seconds`, `end_seconds`, the method's own, and `error`: null
        but for a recording that can't be decoded, whose row has only `uri` and this.

    Raises:
        MissingExtraError: without the extra `ray`.
        OptionError: for another verb, standard input, audio in memory, options that the method
            doesn't take in a dataset, or a cluster without room for the workers.
        TapError: for a tap that the model doesn't have.
    """
    check_extra("map_dataset", "ray", "ray", "pyarrow")
    from qwen_audio.collection.engines.ray import RayEngine
    from qwen_audio.collection.engines.ray_cluster import check_versions, check_workers, connect
    from qwen_audio.collection.engines.ray_worker import ModelLoader

    engine = RayEngine(
        workers=workers, cpus_per_worker=cpus_per_worker, gpus_per_worker=gpus_per_worker
    )
    names = [_checked_uri(uri) for uri in _several(uris)]
    if model is None:
        from qwen_audio.api.model import load

        model = load()
    method = _Method(ModelLoader.of_model(model, cpus_per_worker, gpus_per_worker), verb, options)
    method.check(model)
    ray = connect(None)
    count = check_workers(ray, workers, engine.resources)
    check_versions(ray, engine.resources)
    import pyarrow as pa
    import ray.data

    # In as many blocks as there are batches: Ray gives each worker the next one when it is free.
    blocks = max(1, math.ceil(len(names) / _BATCH_RECORDINGS))
    dataset = ray.data.from_arrow(pa.table({"uri": pa.array(names, pa.string())}))
    return dataset.repartition(blocks).map_batches(
        _MappedBatch,
        batch_size=_BATCH_RECORDINGS,
        batch_format="pyarrow",
        fn_constructor_args=(method,),
        compute=ray.data.ActorPoolStrategy(size=count),
        **engine.resources.options,
    )


def _several(uris: Iterable[str | Path]) -> list[str | Path]:
    if isinstance(uris, str | bytes | Path):
        raise OptionError(f"uris={uris!r:.80} is one recording: give a list")
    return list(uris)


def _checked_uri(uri: Any) -> str:
    """The recording as all machines of a cluster know it.

    Raises:
        OptionError: for what only this process can read.
    """
    if not isinstance(uri, str | Path) or str(uri) == "-":
        shown = "-" if uri == "-" else type(uri).__name__
        raise OptionError(
            f"{shown} can't be read by the workers of a cluster: give paths or URIs of recordings "
            "that all its machines see"
        )
    return Source.from_path(uri).uri


@dataclass(frozen=True)
class _Method:
    """A method of a model with its options, on workers."""

    loader: ModelLoader
    verb: Verb
    options: dict[str, Any]

    def check(self, model: AudioModel) -> None:
        """Raises OptionError, TapError for a method or options that can't be used."""
        if self.verb not in _ROWS:
            raise OptionError(f"verb={self.verb!r:.80}: use one of {', '.join(map(repr, _ROWS))}")
        if model.pipeline.edits:
            raise OptionError("model.edit has no effect on the workers of a cluster: leave it")
        allowed = set(inspect.signature(getattr(model, self.verb)).parameters) - _NO_OPTIONS
        unknown = sorted(self.options.keys() - allowed)
        if unknown:
            raise OptionError(
                f"{unknown[0]} is no option of {self.verb!r} in a dataset: use "
                f"{', '.join(sorted(allowed))}"
            )
        if self.verb == "activations" and "taps" not in self.options:
            raise OptionError("verb='activations' needs taps, such as taps=['encoder.1']")
        if not isinstance(self.options.get("tap", ""), str):
            raise OptionError("a dataset has the vectors of one tap: give tap as a str")
        if self.options.get("pooling") == "none":
            raise OptionError("pooling='none' gives no vector a window: use verb='activations'")
        self.rows(model, [])

    def rows(self, model: AudioModel, names: Sequence[str]) -> list[dict[str, Any]]:
        """The rows of recordings.

        Raises:
            AudioError: for the first that can't be decoded.
        """
        inputs = [Source(name).audio_input() for name in names]
        options = {**self.options, **({"per": "window"} if self.verb == "encode" else {})}
        results: Any = getattr(model, self.verb)(inputs, progress=False, **options)
        rows_of = _ROWS[self.verb]
        return [
            {"uri": name, **row}
            for name, result in zip(names, results, strict=True)
            for row in rows_of(result)
        ]

    @property
    def schema(self) -> pa.Schema:
        """Of the dataset: the same of every batch, with rows or without."""
        import pyarrow as pa

        vector = pa.list_(pa.float32())
        columns = {"encode": [("vector", vector)], "describe": [("caption", pa.string())]}
        taps = [(str(tap), pa.large_list(vector)) for tap in self.options.get("taps", ())]
        return pa.schema(
            [
                ("uri", pa.string()),
                ("window", pa.int32()),
                ("start_seconds", pa.float64()),
                ("end_seconds", pa.float64()),
                *columns.get(self.verb, taps),
                ("error", pa.string()),
            ]
        )


class _MappedBatch:
    """An actor of Ray Data: URIs → rows."""

    def __init__(self, method: _Method) -> None:
        self._method = method

    @functools.cached_property
    def _model(self) -> AudioModel:
        return self._method.loader.load()

    def __call__(self, batch: pa.Table) -> pa.Table:
        import pyarrow as pa

        names = batch["uri"].to_pylist()
        try:
            rows = self._method.rows(self._model, names)  # short clips share passes
        except AudioError:
            rows = [row for name in names for row in self._rows_or_error(name)]
        return pa.Table.from_pylist(rows, self._method.schema)

    def _rows_or_error(self, name: str) -> list[dict[str, Any]]:
        try:
            return self._method.rows(self._model, [name])
        except AudioError as error:
            return [{"uri": name, "error": str(error)}]


def _encoded(embeddings: Any) -> Iterator[dict[str, Any]]:
    index = embeddings.index
    for number, vector in enumerate(np.asarray(embeddings)):
        yield {
            "window": int(index.window[number]),
            "start_seconds": float(index.start_seconds[number]),
            "end_seconds": float(index.end_seconds[number]),
            "vector": vector,
        }


def _described(description: Any) -> Iterator[dict[str, Any]]:
    for answer in description.answers:
        yield {
            "window": answer.window,
            "start_seconds": answer.start_seconds,
            "end_seconds": answer.end_seconds,
            "caption": answer.text,
        }


def _activated(hidden_states: Any) -> Iterator[dict[str, Any]]:
    windows = next(iter(hidden_states.values())).windows
    numbers = {str(tap): states.index.window for tap, states in hidden_states.items()}
    for number, window in enumerate(windows):
        yield {
            "window": number,
            "start_seconds": window.start_seconds,
            "end_seconds": window.end_seconds,
            **{
                str(tap): list(np.asarray(states)[numbers[str(tap)] == number])
                for tap, states in hidden_states.items()
            },
        }


_ROWS = {"encode": _encoded, "describe": _described, "activations": _activated}
"""Method → what makes rows of its result for a recording."""
_NO_OPTIONS = {
    *("audio", "per", "return_tensors", "requires_grad", "stream", "sampling_rate"),
    *("progress", "on_progress"),
}
"""Arguments that have no meaning, or one value, in a dataset."""
