"""Embeddings as .npz, .safetensors or .parquet files that contain their embedding spec."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from qwen_audio.analysis.files import atomic_write, check_output_path, save_arrays, write_errors
from qwen_audio.errors import check_extra
from qwen_audio.paths import path_to_text

from .spec import EmbeddingSpec

__all__ = ["SUFFIXES", "VectorFile", "check_output"]

_ROWS_AT_ONCE = 16_384

SUFFIXES = (".npz", ".safetensors", ".parquet")


def check_output(path: str | Path) -> Path:
    """A path that `VectorFile` can write to, checked before the work and not after.

    Raises:
        OptionError: for another suffix, or a folder that isn't there.
        MissingExtraError: for Parquet without pyarrow.
    """
    target = check_output_path(path, SUFFIXES)
    if target.suffix.lower() == ".parquet":
        check_extra("writing .parquet", "parquet", "pyarrow")
    return target


class VectorFile:
    """Vectors of any number of recordings, written as they come: a file that is whole, or none.

    Used in a `with`: `add` for every recording, and at its end the file is there, unless nothing
    was added or something went wrong. Vectors wait on disk, beside the target, so that memory does
    not grow with their number.

    .npz: `sources`, `vectors` (inputs, width) and `spec` as JSON; unpooled, where lengths differ,
    `vectors_0`, `vectors_1`, … instead. .safetensors: tensors of the same names, with `sources` and
    `spec` in the metadata. .parquet: columns `source` and `vector` (one row an input, or, unpooled,
    one row a frame with its number in `row`), with `spec` in the schema's metadata.

    Raises:
        OptionError: for a path that can't be written to; also in `add` and at the end.
    """

    def __init__(self, path: str | Path, spec: EmbeddingSpec) -> None:
        self.target, self.spec = check_output(path), spec
        self.sources: list[str] = []
        self.shapes: list[tuple[int, ...]] = []
        with write_errors(self.target):  # without a name: nothing can be left behind
            self._rows = tempfile.TemporaryFile(dir=self.target.parent)  # noqa: SIM115

    def __enter__(self) -> VectorFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and self.sources:
                with write_errors(self.target):
                    self._rows.flush()
                save = _SAVERS[self.target.suffix.lower()]
                atomic_write(self.target, lambda path: save(path, self))
        finally:
            with suppress(OSError):  # of rows that no longer matter
                self._rows.close()

    def add(self, source: str, vectors: Float32[np.ndarray, "... width"]) -> None:
        """What `encode` gave for one recording."""
        with write_errors(self.target):
            self._rows.write(np.ascontiguousarray(vectors, np.float32).data)
        self.sources.append(path_to_text(source))
        self.shapes.append(vectors.shape)

    @property
    def pooled(self) -> bool:
        """Whether each recording has one vector."""
        return all(len(shape) == 1 for shape in self.shapes)

    def arrays(self) -> dict[str, np.ndarray]:
        """What was added, by the names it gets, read from disk as it is used."""
        width = self.shapes[0][-1]
        rows = np.memmap(self._rows, np.float32, "r").reshape(-1, width)
        if self.pooled:
            return {"vectors": rows}
        ends = np.cumsum([shape[0] if len(shape) > 1 else 1 for shape in self.shapes])
        return {f"vectors_{k}": part for k, part in enumerate(np.split(rows, ends[:-1]))}


def _save_npz(draft: Path, file: VectorFile) -> None:
    named = {"sources": np.array(file.sources), "spec": np.array(file.spec.to_json())}
    save_arrays(draft, named | file.arrays())


def _save_safetensors(draft: Path, file: VectorFile) -> None:
    """Header, then the rows in the order in which they came: safetensors' own writer would want all
    of them in memory."""
    metadata = {"sources": json.dumps(file.sources), "spec": file.spec.to_json()}
    header: dict[str, Any] = {"__metadata__": metadata}
    at = 0
    arrays = file.arrays()
    for name, array in arrays.items():
        span = [at, at + array.nbytes]
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": span}
        at = span[1]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that numbers lie at multiples of their size
    with draft.open("wb") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        for array in arrays.values():
            for start in range(0, len(array), _ROWS_AT_ONCE):
                opened.write(np.ascontiguousarray(array[start : start + _ROWS_AT_ONCE]).data)


def _save_parquet(draft: Path, file: VectorFile) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    width = file.shapes[0][-1]
    fields = [("source", pa.string()), ("vector", pa.list_(pa.float32(), width))]
    if not file.pooled:
        fields.insert(1, ("row", pa.int64()))
    schema = pa.schema(fields, {b"spec": file.spec.to_json().encode()})
    arrays = file.arrays()
    with pq.ParquetWriter(draft, schema) as writer:
        for array, source in _sourced(arrays, file):
            for start in range(0, len(array), _ROWS_AT_ONCE):
                part = array[start : start + _ROWS_AT_ONCE]
                sources = file.sources[start:] if file.pooled else [source] * len(part)
                columns = {
                    "source": pa.array(sources[: len(part)], pa.string()),
                    "row": pa.array(np.arange(start, start + len(part))),
                    "vector": pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), width),
                }
                table = [columns[name] for name in schema.names]
                writer.write_table(pa.Table.from_arrays(table, schema=schema))


def _sourced(arrays: dict[str, np.ndarray], file: VectorFile) -> Iterator[tuple[np.ndarray, str]]:
    """Each array and the recording it is of (the first, where one array holds all)."""
    return zip(arrays.values(), file.sources, strict=False)


_SAVERS = {".npz": _save_npz, ".safetensors": _save_safetensors, ".parquet": _save_parquet}
