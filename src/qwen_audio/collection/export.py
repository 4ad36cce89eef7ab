"""Export of a collection to Parquet, NumPy or a Hugging Face dataset."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from qwen_audio.analysis.files import atomic_write, save_arrays
from qwen_audio.audio.source import Source
from qwen_audio.errors import MissingExtraError, OptionError

from .table import WindowTable

__all__ = ["export"]


def export(collection: WindowTable, target: str | Path, where: str | None = None) -> int:
    """Write it elsewhere; returns the number of rows.

    .parquet: all columns, the Spec in the schema's metadata. .npz: one array a column, and the Spec
    as JSON in `spec`; see `_array`. A folder (a name without a suffix): a Hugging Face dataset
    (`datasets.load_from_disk`), with an Audio column where the sources are files of this machine.

    Raises:
        OptionError: for another suffix, what is there already, or a condition that can't be read.
    """
    place = Path(target)
    suffix = place.suffix.lower()
    if suffix not in (".parquet", ".npz", ""):
        raise OptionError(f"{place}: use .parquet, .npz, or a folder's name for a dataset")
    if place.exists():
        raise OptionError(f"{place} is there already: name what isn't")
    if not place.parent.is_dir():
        raise OptionError(f"{place}: there is no folder {place.parent}: make it first")
    rows = collection.columns(collection.table.schema.names, where)
    try:
        if suffix == ".parquet":
            import pyarrow.parquet as pq

            rows = rows.replace_schema_metadata(collection.table.schema.metadata)
            atomic_write(place, lambda draft: pq.write_table(rows, draft))
        elif suffix == ".npz":
            if "spec" in rows.schema.names:
                raise OptionError(f"{place} would hold two arrays called spec: use .parquet")
            arrays = {name: _array(rows[name]) for name in rows.schema.names}
            arrays["spec"] = np.array(collection.spec.to_json())
            atomic_write(place, lambda draft: save_arrays(draft, arrays))
        else:
            _save_dataset(collection, rows, place)
    except OSError as error:
        raise OptionError(f"{place} can't be written ({error.strerror or error})") from error
    return len(rows)


def _array(column: pa.ChunkedArray) -> np.ndarray:
    """A column as NumPy has it, in the type that it has: times are UTC (datetime64).

    Where nothing stands, texts are empty, times NaT; numbers and truths are then floats, and NaN.
    """
    import pyarrow as pa

    kind = column.type
    if pa.types.is_fixed_size_list(kind):
        flat = column.combine_chunks().flatten()
        return np.asarray(flat.to_numpy(zero_copy_only=False).reshape(-1, kind.list_size))
    if pa.types.is_string(kind):
        return np.array(column.fill_null("").to_pylist(), np.str_)
    if column.null_count and not pa.types.is_temporal(kind):
        whole = pa.types.is_boolean(kind) or pa.types.is_integer(kind)
        column = column.cast(pa.float64(), safe=False) if whole else column
    return np.asarray(column.to_numpy())


def _save_dataset(collection: WindowTable, rows: Any, place: Path) -> None:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("a dataset's folder", "datasets") from error
    barred = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        dataset = datasets.Dataset(rows)
        dataset.info.description = json.dumps(dataclasses.asdict(collection.spec))
        sources = rows["source"].to_pylist()
        if all(Source(source).is_local and Path(source).is_file() for source in sources):
            dataset = dataset.add_column("audio", [str(Path(s).resolve()) for s in sources])
            dataset = dataset.cast_column("audio", datasets.Audio())
        dataset.save_to_disk(str(place))
    finally:
        if not barred:
            datasets.enable_progress_bars()
