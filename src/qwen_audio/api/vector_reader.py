"""Files of embeddings read back: what `VectorFile` wrote, recording by recording."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qwen_audio.errors import OptionError
from qwen_audio.inference.embedding_spec import EmbeddingSpec
from qwen_audio.inference.row_index import RowIndex

from .embeddings import Embeddings

__all__ = ["read_vectors"]

_Columns = dict[str, np.ndarray]


def read_vectors(path: Path) -> Iterator[tuple[str, dict[str, Embeddings]]]:
    """Each recording of a file of embeddings, with its rows at each tap; "" where there is one tap.

    Raises:
        OptionError: for anything that `VectorFile` hasn't written.
    """
    read = {".npz": _read_npz, ".safetensors": _read_safetensors}.get(
        path.suffix.lower(), _read_arrow
    )
    try:
        parts = {
            name: (EmbeddingSpec.from_json(spec), columns)
            for name, (spec, columns) in read(path).items()
        }
        sources = dict.fromkeys(
            str(source) for _, columns in parts.values() for source in columns["source"]
        )
        rows_of = {name: _rows_by_source(columns) for name, (_, columns) in parts.items()}
    except (OSError, ValueError, KeyError, OptionError) as error:
        raise OptionError(
            f"{path} holds no embeddings that can be read ({error}): delete it to begin anew"
        ) from error
    for source in sources:
        yield (
            source,
            {
                name: _embeddings(source, spec, columns, rows_of[name].get(source, []))
                for name, (spec, columns) in parts.items()
            },
        )


def _rows_by_source(columns: _Columns) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, source in enumerate(columns["source"]):
        rows.setdefault(str(source), []).append(row)
    return rows


def _embeddings(source: str, spec: EmbeddingSpec, columns: _Columns, rows: list[int]) -> Embeddings:
    token = columns.get("token")
    index = RowIndex.of_recording(
        source,
        columns["window"][rows],
        columns["start_seconds"][rows],
        columns["end_seconds"][rows],
        columns["span"][rows],
        None if token is None else token[rows],
    )
    return Embeddings(columns["vectors"][rows], index, spec)


def _read_npz(path: Path) -> dict[str, tuple[str, _Columns]]:
    with np.load(path) as file:
        return _by_tap({name: file[name] for name in file})


def _read_safetensors(path: Path) -> dict[str, tuple[str, _Columns]]:
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        start = file.tell()
    metadata = header.pop("__metadata__")
    arrays: _Columns = {}
    for name, entry in header.items():
        dtype = {"F32": np.float32, "F64": np.float64, "I64": np.int64}[entry["dtype"]]
        shape, (first, end) = entry["shape"], entry["data_offsets"]
        array = np.zeros(shape, dtype)
        if first < end:
            array = np.memmap(path, dtype, "r", start + first, tuple(shape))
        arrays[name] = np.array(json.loads(metadata[name]))[array] if name in metadata else array
    specs = {name: np.array(text) for name, text in metadata.items() if name.endswith("spec")}
    return _by_tap({**arrays, **specs})


def _by_tap(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[str, _Columns]]:
    """Arrays with names such as `lm.4/vectors`, by what comes before the slash."""
    taps: dict[str, _Columns] = {}
    for name, array in arrays.items():
        tap, _, column = name.rpartition("/")
        taps.setdefault(tap, {})[column] = array
    return {tap: (str(columns.pop("spec")), columns) for tap, columns in taps.items()}


def _read_arrow(path: Path) -> dict[str, tuple[str, _Columns]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = (
        pq.read_table(path)
        if path.suffix.lower() == ".parquet"
        else pa.ipc.open_file(path).read_all()
    )
    spec: dict[str, Any] = json.loads((table.schema.metadata or {})[b"spec"])
    specs = {"": spec} if "tap" in spec else spec
    taps = np.array(table["tap"].to_pylist(), np.str_)
    found: dict[str, tuple[str, _Columns]] = {}
    for name, settings in specs.items():
        rows = table.filter(pa.array(taps == settings["tap"]))
        columns = {
            column: np.array(rows[column].to_pylist())
            for column in ("source", "window", "start_seconds", "end_seconds", "span", "token")
            if column in rows.column_names and not rows[column].null_count
        }
        columns["vectors"] = np.array(rows["vector"].to_pylist(), np.float32)
        found[name] = (json.dumps(settings), columns)
    return found
