"""Export of a collection to Parquet, NumPy or a Hugging Face dataset."""

from __future__ import annotations

import json
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qwen_audio.analysis.files import atomic_write, save_arrays, write_errors
from qwen_audio.audio.source import Source
from qwen_audio.errors import OptionError, check_extra, counted
from qwen_audio.inference.progress_bars import OnProgress
from qwen_audio.paths import exists, file_name, is_file, is_folder, is_uri

from .table import WindowTable
from .vectors import stored_vectors

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["export"]


def export(
    collection: WindowTable,
    target: str | Path,
    where: str | None = None,
    on_progress: OnProgress | None = None,
) -> int:
    """Write the rows to a file or folder. Returns their number.

    .parquet: all columns, the embedding spec in the schema's metadata. .npz: one array per column,
    and the spec as JSON in `spec`; see `_array`. A folder (a name without a suffix): a Hugging Face
    dataset (`datasets.load_from_disk`), with an Audio column if all sources are local files.

    Args:
        on_progress: called as rows are read, and before they are written; see `OnProgress`.

    Raises:
        OptionError: for another suffix, an existing target, or a condition that can't be used.
        MissingExtraError: for a dataset without the extra `datasets`.
    """
    if is_uri(str(target)):
        raise OptionError(f"{target}: an export is written to a local path: copy it from there")
    path = Path(target)
    suffix = path.suffix.lower()
    if suffix not in (".parquet", ".npz", ""):
        raise OptionError(f"{path}: use .parquet, .npz, or a folder's name for a dataset")
    if not suffix:
        check_extra("a dataset's folder", "datasets", "datasets")
    if exists(path):
        raise OptionError(f"{path} is there already: choose another name")
    if not is_folder(path.parent):
        raise OptionError(f"{path}: there is no folder {path.parent}: make it first")
    names = collection.table.schema.names
    for taken, format_suffix in (("spec", ".npz"), ("audio", "")):
        if suffix == format_suffix and taken in names:
            raise OptionError(
                f"{path} would hold two columns called {taken}: use .parquet, which has room for it"
            )
    rows = collection.rows(collection.condition(where), on_progress)
    if on_progress is not None:
        on_progress(f"writing {counted(len(rows), 'row')}", 0, None)
    with write_errors(path):
        if suffix == ".parquet":
            import pyarrow.parquet as pq

            rows = rows.replace_schema_metadata(collection.table.schema.metadata)
            atomic_write(path, lambda draft: pq.write_table(rows, draft))
        elif suffix == ".npz":
            arrays = {name: _array(rows[name]) for name in rows.schema.names}
            arrays["spec"] = np.array(collection.spec.to_json())
            atomic_write(path, lambda draft: save_arrays(draft, arrays))
        else:
            _save_dataset(collection, rows, path)
    return len(rows)


def _array(column: pa.ChunkedArray) -> np.ndarray:
    """A column as a NumPy array of the same type; times are datetime64 in UTC.

    Nulls become "" in text, NaT in times, and rows of NaN in vectors; integers and booleans with
    nulls become floats with NaN.
    """
    import pyarrow as pa

    column_type = column.type
    if pa.types.is_fixed_size_list(column_type):
        return stored_vectors(column)
    if pa.types.is_string(column_type):
        return np.array(column.fill_null("").to_pylist(), np.str_)
    if column.null_count and (pa.types.is_boolean(column_type) or pa.types.is_integer(column_type)):
        column = column.cast(pa.float64(), safe=False)
    return np.asarray(column.to_numpy())


def _save_dataset(collection: WindowTable, rows: Any, path: Path) -> None:
    import datasets

    draft = path.with_name(f".{secrets.token_hex(6)}")
    bars_were_disabled = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        dataset = datasets.Dataset(rows)
        dataset.info.description = json.dumps(collection.spec.settings)
        sources = [Source(uri) for uri in rows["source"].to_pylist()]
        if sources and all(source.is_local and is_file(source.path) for source in sources):
            dataset = dataset.add_column("audio", [_audio_value(source.path) for source in sources])
            dataset = dataset.cast_column("audio", datasets.Audio())
        try:
            dataset.save_to_disk(str(draft))
            draft.rename(path)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    finally:
        if not bars_were_disabled:
            datasets.enable_progress_bars()


def _audio_value(path: str) -> dict[str, Any]:
    """What a dataset's Audio column stores: a path; the bytes of a file whose path isn't UTF-8."""
    resolved = str(Path(path).resolve())
    try:
        resolved.encode()
    except UnicodeEncodeError:
        return {"bytes": Path(path).read_bytes(), "path": file_name(path)}
    return {"bytes": None, "path": resolved}
