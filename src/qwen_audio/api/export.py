"""Embeddings as files, or a folder of shards, with the time of each row."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from qwen_audio.analysis.files import atomic_write, check_output_path, save_arrays, write_errors
from qwen_audio.errors import check_extra
from qwen_audio.inference.embedding_spec import EmbeddingSpec
from qwen_audio.inference.row_index import RowIndex
from qwen_audio.paths import path_to_text

from .activation_dataset import DATASET_SUFFIX, ActivationDataset, check_dataset
from .embeddings import Embeddings

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["VectorFile", "check_output", "save_embeddings"]

_BYTES_AT_ONCE = 2**23
_ARROW_SUFFIXES = (".parquet", ".arrow")


def check_output(path: str | Path) -> Path:
    """A path that `VectorFile` or `ActivationDataset` can write, checked before the work.

    Raises:
        OptionError: for another suffix, or a folder that isn't there.
        MissingExtraError: if the format needs a library that isn't installed.
    """
    if Path(path).suffix.lower() == DATASET_SUFFIX:
        return check_dataset(path)
    target = check_output_path(path, (*_SAVERS, DATASET_SUFFIX))
    if target.suffix.lower() in _ARROW_SUFFIXES:
        check_extra(f"writing {target.suffix.lower()}", "parquet", "pyarrow")
    return target


def save_embeddings(
    path: str | Path, embeddings: Embeddings | Mapping[str, Embeddings] | Sequence[Embeddings]
) -> Path:
    """Write what `encode` returned; the suffix names the format: `VectorFile`, `ActivationDataset`.

    Raises:
        OptionError: for another suffix, or a path that can't be written to.
    """
    kind = ActivationDataset if Path(path).suffix.lower() == DATASET_SUFFIX else VectorFile
    with kind(path) as file:
        for each in [embeddings] if isinstance(embeddings, Embeddings | Mapping) else embeddings:
            file.add(each)
    return file.target


class VectorFile:
    """Embeddings of any number of recordings, written as they come: a file that is whole, or none.

    Used in a `with`: `add` for every recording, and at its end the file is there, unless nothing
    was added or something went wrong. Vectors wait on disk, beside the target, not in memory.

    Every format has for each row its vector and the columns of `RowIndex`, and the embedding spec
    as JSON. One tap:

    - .npz: the arrays `vectors`, `source`, `window`, `start_seconds`, `end_seconds`, `span`, at
      unpooled taps in the language model `token`, and `spec`.
    - .safetensors: the same; text (`source`, `span`, `token`) as int64 indices into the lists of
      the same name in the metadata, which are JSON. `spec` is in the metadata.
    - .parquet, .arrow: a column each, `tap` and `vector`, with `spec` in the schema's metadata.

    Several taps: in .npz and .safetensors each name follows its tap's, as in `lm.4/vectors`; in the
    others the rows of one tap follow those of another, and `spec` is a JSON object by tap.

    Attributes:
        target: the file.
        sources: what was added, in order.

    Raises:
        OptionError: for a path that can't be written to; also in `add` and at the end.
    """

    def __init__(self, path: str | Path) -> None:
        self.target = check_output(path)
        self.sources: list[str] = []
        self._taps: dict[str, _TapRows] = {}
        self._is_single = True
        self._files = ExitStack()

    def __enter__(self) -> VectorFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._files:
            if kind is None and self._taps:
                save = _SAVERS[self.target.suffix.lower()]
                with write_errors(self.target):
                    for rows in self._taps.values():
                        rows.file.flush()
                atomic_write(self.target, lambda path: save(path, self))

    def add(
        self, embeddings: Embeddings | Mapping[str, Embeddings], source: str | None = None
    ) -> None:
        """What `encode` gave, for one tap or several; the same taps every time.

        Args:
            source: the recording's path, if it isn't what it is called in the embeddings.
        """
        self._is_single = isinstance(embeddings, Embeddings)
        by_tap = {"": embeddings} if isinstance(embeddings, Embeddings) else embeddings
        for name, rows in by_tap.items():
            index = rows.index
            if source is not None:
                index = replace(index, sources=(path_to_text(source),))
            if name not in self._taps:
                self._taps[name] = _TapRows(rows.spec, rows.shape[-1], self._waiting_file())
            self._taps[name].indices.append(index)
            with write_errors(self.target):
                self._taps[name].file.write(np.ascontiguousarray(rows, np.float32).data)
        self.sources += index.sources

    def _waiting_file(self) -> IO[bytes]:
        with write_errors(self.target):  # without a name: nothing can be left behind
            file = tempfile.TemporaryFile(dir=self.target.parent)  # noqa: SIM115
        self._files.callback(_close, file)
        return file

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """By tap, rows and width so far."""
        return {rows.spec.tap: (rows.count, rows.width) for rows in self._taps.values()}

    @property
    def specs(self) -> tuple[EmbeddingSpec, ...]:
        """Of each tap."""
        return tuple(rows.spec for rows in self._taps.values())

    @property
    def spec_json(self) -> str:
        """The spec, or, of several taps, an object from taps to theirs."""
        if self._is_single:
            return self.specs[0].to_json()
        return json.dumps({name: rows.spec.settings for name, rows in self._taps.items()})

    def by_prefix(self) -> Iterator[tuple[str, _TapRows]]:
        """The rows of each tap, and what the names of its arrays begin with."""
        for name, rows in self._taps.items():
            yield ("" if self._is_single else f"{name}/"), rows


def _close(file: IO[bytes]) -> None:
    with suppress(OSError):  # of rows that no longer matter
        file.close()


class _TapRows:
    """The rows of one tap: vectors on disk, their index in memory."""

    def __init__(self, spec: EmbeddingSpec, width: int, file: IO[bytes]) -> None:
        self.spec, self.width, self.file = spec, width, file
        self.indices: list[RowIndex] = []

    @property
    def count(self) -> int:
        return sum(map(len, self.indices))

    @property
    def index(self) -> RowIndex:
        self.indices = [RowIndex.concatenate(self.indices)]
        return self.indices[0]

    def vectors(self) -> np.ndarray:
        """Shape (rows, width), read from disk as it is used."""
        if not self.count:
            return np.zeros((0, self.width), np.float32)
        return np.memmap(self.file, np.float32, "r").reshape(-1, self.width)


def _save_npz(draft: Path, file: VectorFile) -> None:
    arrays: dict[str, np.ndarray] = {}
    for prefix, rows in file.by_prefix():
        arrays[f"{prefix}vectors"] = rows.vectors()
        arrays |= {f"{prefix}{name}": column for name, column in rows.index.columns().items()}
        arrays[f"{prefix}spec"] = np.array(rows.spec.to_json())
    save_arrays(draft, arrays)


def _save_safetensors(draft: Path, file: VectorFile) -> None:
    """Header, then the rows in the order in which they came: safetensors' own writer would want all
    of them in memory."""
    arrays: dict[str, np.ndarray] = {}
    metadata: dict[str, str] = {}
    for prefix, rows in file.by_prefix():
        arrays[f"{prefix}vectors"] = rows.vectors()
        for name, column in rows.index.columns().items():
            if column.dtype.kind == "U":
                texts, column = np.unique(column, return_inverse=True)
                metadata[f"{prefix}{name}"] = json.dumps(texts.tolist())
            arrays[f"{prefix}{name}"] = column
        metadata[f"{prefix}spec"] = rows.spec.to_json()
    header: dict[str, Any] = {"__metadata__": metadata}
    at = 0
    for name, array in arrays.items():
        data_type = {"f4": "F32", "f8": "F64", "i8": "I64"}[array.dtype.str[1:]]
        at, start = at + array.nbytes, at
        header[name] = {"dtype": data_type, "shape": array.shape, "data_offsets": [start, at]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that numbers lie at multiples of their size
    with draft.open("wb") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        for array in arrays.values():
            for part in _parts(array):
                opened.write(np.ascontiguousarray(array[part]).data)


def _parts(array: np.ndarray) -> Iterator[slice]:
    """Slices of its rows of about `_BYTES_AT_ONCE`."""
    rows = max(1, _BYTES_AT_ONCE * len(array) // max(array.nbytes, 1))
    return (slice(start, start + rows) for start in range(0, len(array), rows))


def _save_parquet(draft: Path, file: VectorFile) -> None:
    import pyarrow.parquet as pq

    schema = _arrow_schema(file)
    with pq.ParquetWriter(draft, schema) as writer:
        for batch in _record_batches(file, schema):
            writer.write_batch(batch)


def _save_arrow(draft: Path, file: VectorFile) -> None:
    import pyarrow as pa

    schema = _arrow_schema(file)
    with draft.open("wb") as opened, pa.ipc.new_file(opened, schema) as writer:
        for batch in _record_batches(file, schema):
            writer.write_batch(batch)


def _arrow_schema(file: VectorFile) -> pa.Schema:
    import pyarrow as pa

    parts = [rows for _, rows in file.by_prefix()]
    types = {"window": pa.int64(), "start_seconds": pa.float64(), "end_seconds": pa.float64()}
    names = dict.fromkeys(name for rows in parts for name in rows.index.columns())
    widths = {rows.width for rows in parts}
    vector = pa.list_(pa.float32(), *(widths if len(widths) == 1 else ()))
    return pa.schema(
        [
            *((name, types.get(name, pa.string())) for name in names),
            ("tap", pa.string()),
            ("vector", vector),
        ],
        {b"spec": file.spec_json.encode()},
    )


def _record_batches(file: VectorFile, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    for _, rows in file.by_prefix():
        index, vectors = rows.index, rows.vectors()
        for part in _parts(vectors):
            columns: dict[str, Any] = dict(index[part].columns())
            count = len(columns["window"])
            columns["tap"] = np.full(count, rows.spec.tap)
            flat = pa.array(vectors[part].ravel())
            columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, rows.width).cast(
                schema.field("vector").type
            )
            yield pa.record_batch(
                [_arrow_column(columns.get(field.name), field.type, count) for field in schema],
                schema=schema,
            )


def _arrow_column(column: Any, column_type: pa.DataType, count: int) -> pa.Array:
    import pyarrow as pa

    if column is None:  # the token at a tap before the language model
        return pa.nulls(count, column_type)
    if isinstance(column, pa.Array):
        return column
    # Not the array itself: without pandas, pyarrow takes no arrays of text.
    return pa.array(column.tolist() if column.dtype.kind == "U" else column, column_type)


_SAVERS = {
    ".npz": _save_npz,
    ".safetensors": _save_safetensors,
    ".parquet": _save_parquet,
    ".arrow": _save_arrow,
}
