"""Rows of taps as a folder of Arrow shards, as libraries for sparse dictionaries read them.

The folder is what `datasets.load_from_disk` opens, as SAELens does for cached activations.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qwen_audio.analysis.files import atomic_write, check_output_folder, write_errors
from qwen_audio.audio.source import Source
from qwen_audio.errors import AudioError, OptionError, check_extra
from qwen_audio.inference.embedding_spec import EmbeddingSpec
from qwen_audio.inference.row_index import RowIndex
from qwen_audio.paths import exists, is_folder, path_to_text

from .embeddings import Embeddings

if TYPE_CHECKING:
    import datasets

__all__ = ["DATASET_SUFFIX", "ActivationDataset", "check_dataset"]

DATASET_SUFFIX = ".dataset"

_SHARD_BYTES = 2**28
"""Of rows that wait in memory: 16 000 of the 7B's language model, eleven minutes of audio."""

_PROGRESS = "activations.json"
"""The shards that are whole, and the recordings in each: what a run that was stopped has done."""


def check_dataset(path: str | Path, specs: Sequence[EmbeddingSpec] = ()) -> Path:
    """A folder that `ActivationDataset` can write, checked before the work and not after.

    Raises:
        OptionError: if it can't be written, or for specs of pooled vectors.
        MissingExtraError: without datasets.
    """
    target = check_output_folder(path)
    check_extra(f"writing {DATASET_SUFFIX}", "datasets", "datasets")
    for spec in specs:
        if spec.pooling != "none":
            raise OptionError(
                f"{target}: {DATASET_SUFFIX} is of rows, not of {spec.pooling} vectors: use "
                "pooling none, or a file such as .npz"
            )
    return target


class ActivationDataset:
    """Rows of any number of recordings as a dataset of Hugging Face, in shards as they come.

    Used in a `with`: `add` for every recording. `datasets.load_from_disk` opens the folder once the
    block has ended; before that, and after an error, it holds whole shards with the recordings
    that were done, which `resume` continues. Memory is bounded by a shard and a recording.

    A row of the dataset is one position: a column for each tap, named after it, of shape (1, width)
    in float32, and the columns of `RowIndex`. That is the layout of SAELens' cached activations for
    a `hook_name` such as "lm.2" with a `context_size` of 1. The specs are in the dataset's
    description, as JSON by tap.

    Attributes:
        target: the folder.
        sources: the recordings in it, in order.

    Args:
        resume: continue a folder that is there.
        shard_bytes: write a shard once so many bytes of rows wait.

    Raises:
        OptionError: for a folder that can't be written, or is there and not to be continued; in
            `add` for taps whose rows aren't at the same times, and for another spec than before.
    """

    def __init__(
        self, path: str | Path, *, resume: bool = False, shard_bytes: int = _SHARD_BYTES
    ) -> None:
        self.target = check_dataset(path)
        self._shard_bytes = shard_bytes
        self._specs: dict[str, EmbeddingSpec] = {}
        self._shards: list[dict[str, Any]] = []
        self._waiting: list[dict[str, Embeddings]] = []
        self._sources: list[str] = []
        self._versions: list[Any] = []
        self._widths: dict[str, int] = {}
        if not exists(self.target) or (is_folder(self.target) and not any(self.target.iterdir())):
            return
        if not resume:
            raise OptionError(
                f"{self.target} holds something already: continue activations with --resume "
                "(resume=True), or delete it"
            )
        self._read_progress()

    def _read_progress(self) -> None:
        try:
            progress = json.loads((self.target / _PROGRESS).read_text(encoding="utf-8"))
            self._specs = {
                name: EmbeddingSpec.from_settings(**settings)
                for name, settings in progress["specs"].items()
            }
            self._widths, self._shards = progress["widths"], progress["shards"]
        except (OSError, ValueError, KeyError, OptionError) as error:
            raise OptionError(
                f"{self.target} holds no activations that can be continued ({error}): name another "
                "folder, or delete it"
            ) from error

    @property
    def sources(self) -> list[str]:
        """The recordings in it, in order."""
        return [name for shard in self._shards for name in shard["sources"]] + self._sources

    @property
    def specs(self) -> tuple[EmbeddingSpec, ...]:
        """Of each tap."""
        return tuple(self._specs.values())

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """By tap, rows and width so far."""
        rows = sum(shard["rows"] for shard in self._shards)
        rows += sum(len(next(iter(parts.values()))) for parts in self._waiting)
        return {spec.tap: (rows, self._widths[name]) for name, spec in self._specs.items()}

    def pending(self, files: Sequence[str], specs: Sequence[EmbeddingSpec]) -> list[str]:
        """The files that it doesn't hold yet.

        Raises:
            OptionError: if it holds rows of other specs, or a file has changed since.
        """
        if self._specs and list(self._specs.values()) != list(specs):
            raise self._other_specs()
        done = {
            _key(name): version
            for shard in self._shards
            for name, version in zip(shard["sources"], shard["versions"], strict=True)
        }
        for file in files:
            if _key(file) in done and done[_key(file)] != _version(file):
                raise OptionError(
                    f"{file} has changed since {self.target} was written: delete the folder, and "
                    "write it again"
                )
        return [file for file in files if _key(file) not in done]

    def _other_specs(self) -> OptionError:
        return OptionError(
            f"{self.target} was made with other settings: give the same, or name another folder"
        )

    def add(
        self, embeddings: Embeddings | Mapping[str, Embeddings], source: str | None = None
    ) -> None:
        """Unpooled rows of one recording, as `encode` gave them; the same taps every time.

        Args:
            source: the recording's path, if it isn't what it is called in the embeddings.
        """
        parts = [embeddings] if isinstance(embeddings, Embeddings) else embeddings.values()
        by_tap = {part.spec.tap: part for part in parts}
        specs = {name: part.spec for name, part in by_tap.items()}
        check_dataset(self.target, list(specs.values()))
        if self._specs and specs != self._specs:
            raise self._other_specs()
        first = next(iter(by_tap.values()))
        for name, part in by_tap.items():
            if not np.array_equal(part.start_seconds, first.start_seconds, equal_nan=True):
                raise OptionError(
                    f"{first.spec.tap} and {name} have rows at other times, and a row of a dataset "
                    "is of one time: write a dataset for each"
                )
        self._specs = specs
        self._widths = {name: part.shape[-1] for name, part in by_tap.items()}
        names = first.index.sources if source is None else (path_to_text(source),)
        if source is not None:
            by_tap = {name: _renamed(part, names) for name, part in by_tap.items()}
        self._waiting.append(by_tap)
        self._sources += names
        self._versions += [_version(name if source is None else source) for name in names]
        if sum(part.nbytes for rows in self._waiting for part in rows.values()) > self._shard_bytes:
            self._write_shard()

    def __enter__(self) -> ActivationDataset:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            with suppress(OptionError):  # which would hide the error
                self._write_shard()
            return
        self._write_shard()
        if self._shards:
            self._finish()

    def _write_shard(self) -> None:
        """Rows that wait as a file, and then in the list of what is done."""
        if not self._waiting:
            return
        import pyarrow as pa

        with write_errors(self.target):
            self.target.mkdir(parents=True, exist_ok=True)
        name = f"data-{len(self._shards):05d}.arrow"
        table = self._table()

        def write(draft: Path) -> None:
            with draft.open("wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(table)

        atomic_write(self.target / name, write)
        done = {"sources": self._sources, "versions": self._versions}
        self._shards.append({"file": name, "rows": len(table), **done})
        self._waiting, self._sources, self._versions = [], [], []
        progress = {"specs": self._settings(), "widths": self._widths, "shards": self._shards}
        _write_json(self.target / _PROGRESS, progress)

    def _table(self) -> Any:
        import datasets

        columns: dict[str, Any] = {}
        for name in self._specs:
            rows = np.concatenate([np.asarray(parts[name]) for parts in self._waiting])
            columns[name] = rows[:, None]
        indices = [next(iter(parts.values())).index for parts in self._waiting]
        columns |= RowIndex.concatenate(indices).columns()
        columns = {n: c.tolist() if c.dtype.kind == "U" else c for n, c in columns.items()}
        return datasets.Dataset.from_dict(columns, features=self._features(columns)).data.table

    def _features(self, columns: Mapping[str, Any]) -> datasets.Features:
        import datasets

        types = {"window": "int64", "start_seconds": "float64", "end_seconds": "float64"}
        features: dict[str, Any] = {
            name: datasets.Array2D(shape=(1, width), dtype="float32")
            for name, width in self._widths.items()
        }
        others = (name for name in columns if name not in features)
        features |= {name: datasets.Value(types.get(name, "string")) for name in others}
        return datasets.Features(features)

    def _settings(self) -> dict[str, Any]:
        return {name: spec.settings for name, spec in self._specs.items()}

    def _finish(self) -> None:
        """What `load_from_disk` reads, the list of files last."""
        import datasets
        import pyarrow as pa

        with write_errors(self.target), (self.target / self._shards[0]["file"]).open("rb") as file:
            schema = pa.ipc.open_stream(file).schema
        features = datasets.Features.from_arrow_schema(schema).to_dict()
        info = {"description": json.dumps(self._settings()), "features": features}
        _write_json(self.target / "dataset_info.json", info)
        rows = sum(shard["rows"] for shard in self._shards)
        prints = "-".join(spec.fingerprint for spec in self.specs)
        state: dict[str, Any] = {
            "_data_files": [{"filename": shard["file"]} for shard in self._shards],
            "_fingerprint": f"{prints}-{rows}",
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        }
        _write_json(self.target / "state.json", state)


def _write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False)
    atomic_write(path, lambda draft: draft.write_text(text, encoding="utf-8"))


def _renamed(part: Embeddings, names: tuple[str, ...]) -> Embeddings:
    return Embeddings(np.asarray(part), replace(part.index, sources=names), part.spec)


def _key(name: str) -> str:
    """What a recording is known by, however it is called."""
    return Source.from_path(name).uri


def _version(name: str) -> list[Any] | None:
    """Size and version of a file, as JSON has them; None of what is no file."""
    try:
        return list(Source.from_path(name).stat())
    except AudioError:
        return None
