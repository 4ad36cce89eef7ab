"""Vectors and frames → one file: .npz, .safetensors or .parquet, with the Spec inside."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from .errors import MissingExtraError, OptionError
from .spec import Spec

__all__ = ["SUFFIXES", "check_output", "save"]

SUFFIXES = (".npz", ".safetensors", ".parquet")

Vectors = Float32[np.ndarray, "... width"]


def check_output(path: str | Path) -> Path:
    """A path that `save` can write to, checked before the work and not after.

    Raises:
        OptionError: for another suffix, or a folder that isn't there.
        MissingExtraError: for Parquet without pyarrow.
    """
    target = Path(path)
    if target.suffix not in SUFFIXES:
        raise OptionError(f"{target}: the suffix says the format: use {', '.join(SUFFIXES)}")
    if target.is_dir():
        raise OptionError(f"{target} is a folder: name a file to write")
    if not target.parent.is_dir():
        raise OptionError(f"{target}: there is no folder {target.parent}: make it first")
    if target.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError("writing .parquet", "parquet")
    return target


def save(
    path: str | Path,
    sources: Sequence[str],
    vectors: Sequence[Float32[np.ndarray, "... width"]],
    spec: Spec,
) -> None:
    """Write what `encode` gave for each source.

    .npz: `sources`, `vectors` (inputs, width) and `spec` as JSON; unpooled, where lengths differ,
    `vectors_0`, `vectors_1`, … instead. .safetensors: tensors of the same names, with `sources` and
    `spec` in the metadata. .parquet: columns `source` and `vector` (one row an input, or, unpooled,
    one row a frame with its number in `row`), with `spec` in the schema's metadata.
    """
    target = check_output(path)
    # Written beside the target and moved there whole: a file that is there is complete.
    draft = target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
    try:
        _SAVERS[target.suffix](draft, sources, vectors, spec)
        draft.replace(target)
    except OSError as error:
        raise OptionError(
            f"{target} can't be written ({error.strerror or error}): check the folder's "
            "permissions and the space that is left"
        ) from error
    finally:
        draft.unlink(missing_ok=True)


def _arrays(vectors: Sequence[Vectors]) -> dict[str, np.ndarray]:
    if vectors and all(vector.ndim == 1 for vector in vectors):
        return {"vectors": np.stack(vectors)}
    return {f"vectors_{number}": vector for number, vector in enumerate(vectors)}


def _save_npz(target: Path, sources: Sequence[str], vectors: Sequence[Vectors], spec: Spec) -> None:
    named: Any = {"sources": np.array(sources), "spec": np.array(spec.to_json())}
    named.update(_arrays(vectors))
    np.savez(target, **named)


def _save_safetensors(
    target: Path, sources: Sequence[str], vectors: Sequence[Vectors], spec: Spec
) -> None:
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(array) for name, array in _arrays(vectors).items()}
    metadata = {"sources": json.dumps(list(sources)), "spec": spec.to_json()}
    target.write_bytes(save(arrays, metadata))


def _save_parquet(
    target: Path,
    sources: Sequence[str],
    vectors: Sequence[Float32[np.ndarray, "... width"]],
    spec: Spec,
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [np.atleast_2d(vector) for vector in vectors]
    table = {
        "source": [source for source, of in zip(sources, rows, strict=True) for _ in of],
        "row": [number for of in rows for number in range(len(of))],
    }
    if all(vector.ndim == 1 for vector in vectors):
        del table["row"]
    width = rows[0].shape[1] if rows else 0
    flat = pa.array(np.concatenate(rows).ravel() if rows else [], pa.float32())
    table["vector"] = pa.FixedSizeListArray.from_arrays(flat, width)
    schema = {b"spec": spec.to_json().encode()}
    pq.write_table(pa.table(table).replace_schema_metadata(schema), target)


_SAVERS = {".npz": _save_npz, ".safetensors": _save_safetensors, ".parquet": _save_parquet}
