"""Embedding cache keyed by content hash and spec.

A folder of safetensors files, each written whole. A file holds a matrix for each embedding spec, by
fingerprint, and the content hashes of its rows. Any number of processes may add to the folder; one
that is killed leaves complete files only.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from qwen_audio.analysis.files import atomic_write
from qwen_audio.errors import OptionError
from qwen_audio.inference.embedding_spec import EmbeddingSpec

__all__ = ["EmbeddingCache"]

_SUFFIX = ".vectors.safetensors"
_COMMIT_SECONDS, _COMMIT_BYTES = 20.0, 64 << 20
"""Pending vectors are written after this time, or at this size."""


class EmbeddingCache:
    """The cache in a folder, which is created if needed.

    Raises:
        OptionError: if the folder can't be created or read, or has a damaged file.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._locations: dict[str, dict[str, tuple[Path, int]]] = {}
        """By fingerprint and content: the file and the row in it."""
        self._pending: dict[str, dict[str, Float32[np.ndarray, "_"]]] = {}
        self._specs: dict[str, EmbeddingSpec] = {}
        self._last_commit = time.monotonic()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            files = sorted(self.folder.glob(f"*{_SUFFIX}"))
        except OSError as error:
            raise OptionError(
                f"{folder} can't be used as cache ({error.strerror}): name a folder"
            ) from error
        for file in files:
            self._index_file(file)

    def has(self, spec: EmbeddingSpec, content: str) -> bool:
        """Whether the vector of a content is in the cache, and written."""
        return content in self._locations.get(spec.fingerprint, {})

    def add(self, content: str, vectors: Mapping[EmbeddingSpec, Float32[np.ndarray, "_"]]) -> None:
        """Add the vectors of one content, of the same specs in every call.

        They are written with a later call, and at the latest by `commit`.
        """
        self._specs |= {spec.fingerprint: spec for spec in vectors}
        self._pending[content] = {spec.fingerprint: vector for spec, vector in vectors.items()}
        pending_bytes = len(self._pending) * sum(vector.nbytes for vector in vectors.values())
        elapsed = time.monotonic() - self._last_commit
        if elapsed > _COMMIT_SECONDS or pending_bytes > _COMMIT_BYTES:
            self.commit()

    def commit(self) -> None:
        """Write pending vectors to a new file.

        Raises:
            OptionError: if the folder can't be written to.
        """
        from safetensors.numpy import save

        contents = list(self._pending)
        if contents:
            matrices = {
                fingerprint: np.stack([self._pending[content][fingerprint] for content in contents])
                for fingerprint in self._specs
            }
            file = self.folder / f"{uuid.uuid4().hex}{_SUFFIX}"
            metadata = {
                "recordings": json.dumps(contents),
                "specs": json.dumps({name: spec.to_json() for name, spec in self._specs.items()}),
            }
            # Not save_file, which raises SafetensorError instead of OSError for a full disk.
            atomic_write(file, lambda path: path.write_bytes(save(matrices, metadata)))
            self._index_file(file)
        self._pending, self._last_commit = {}, time.monotonic()

    def vectors(
        self, spec: EmbeddingSpec, contents: Sequence[str]
    ) -> Float32[np.ndarray, "n width"]:
        """The vectors of some contents, in their order.

        Raises:
            KeyError: if one of them isn't in the cache.
            ValueError: for no contents.
        """
        from safetensors import safe_open

        if not contents:
            raise ValueError("no recordings")
        locations = self._locations[spec.fingerprint]
        by_file: dict[Path, list[tuple[int, int]]] = {}
        for number, content in enumerate(contents):
            file, row = locations[content]
            by_file.setdefault(file, []).append((number, row))
        order: list[int] = []
        vectors: list[Float32[np.ndarray, "_ width"]] = []
        for file, pairs in by_file.items():
            with safe_open(file, "np") as tensors:
                matrix = tensors.get_tensor(spec.fingerprint)
            numbers, rows = zip(*pairs, strict=True)
            order += numbers
            vectors.append(matrix[list(rows)])
        result = np.empty((len(contents), vectors[0].shape[1]), np.float32)
        result[order] = np.concatenate(vectors)
        return result

    def _index_file(self, file: Path) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, "np") as tensors:
                metadata = tensors.metadata() or {}
                fingerprints = list(tensors.keys())
            contents = json.loads(metadata["recordings"])
        except OSError as error:
            raise OptionError(
                f"{file} can't be read ({error.strerror or error}): check its permissions"
            ) from error
        except (SafetensorError, KeyError, ValueError) as error:
            raise OptionError(
                f"{file} is damaged, or of another version ({error}): delete it, and its vectors "
                "are computed again"
            ) from error
        for fingerprint in fingerprints:
            locations = self._locations.setdefault(fingerprint, {})
            locations.update({content: (file, row) for row, content in enumerate(contents)})
