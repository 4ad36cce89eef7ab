"""Vectors kept on disk by what they are of and what made them: labels change, they do not.

A folder of safetensors files, each complete when it appears. A file holds for some recordings (by
their content) the vectors of some Specs (by fingerprint). Any number of processes may add to it;
one that is stopped leaves what it had written, and nothing half.
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
from qwen_audio.api.spec import EmbeddingSpec
from qwen_audio.errors import OptionError

__all__ = ["VectorCache"]

_SUFFIX = ".vectors.safetensors"
_SECONDS, _BYTES = 20.0, 64 << 20
"""After so long, or with so much waiting, what waits is written."""


class VectorCache:
    """The cache in a folder, which is made if need be.

    Raises:
        OptionError: if the folder can't be made or read, or holds a damaged file.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._places: dict[str, dict[str, tuple[Path, int]]] = {}
        self._waiting: dict[str, dict[str, Float32[np.ndarray, "_"]]] = {}
        self._specs: dict[str, EmbeddingSpec] = {}
        self._since = time.monotonic()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            files = sorted(self.folder.glob(f"*{_SUFFIX}"))
        except OSError as error:
            raise OptionError(f"{folder} can't hold vectors ({error}): name a folder") from error
        for file in files:
            self._add_file(file)

    def has(self, spec: EmbeddingSpec, recording: str) -> bool:
        """Whether the vector of a recording is there (and written)."""
        return recording in self._places.get(spec.fingerprint, {})

    def add(
        self, recording: str, vectors: Mapping[EmbeddingSpec, Float32[np.ndarray, "_"]]
    ) -> None:
        """Keep a recording's vectors: soon, and after `commit`. Of the same Specs every time."""
        self._specs |= {spec.fingerprint: spec for spec in vectors}
        self._waiting[recording] = {spec.fingerprint: of for spec, of in vectors.items()}
        each = sum(vector.nbytes for vector in vectors.values())
        late = time.monotonic() - self._since > _SECONDS
        if late or each * len(self._waiting) > _BYTES:
            self.commit()

    def commit(self) -> None:
        """Write what waits."""
        from safetensors.numpy import save_file

        recordings = list(self._waiting)
        if recordings:
            columns = {
                name: np.stack([self._waiting[recording][name] for recording in recordings])
                for name in self._specs
            }
            file = self.folder / f"{uuid.uuid4().hex}{_SUFFIX}"
            about = {
                "recordings": json.dumps(recordings),
                "specs": json.dumps({name: spec.to_json() for name, spec in self._specs.items()}),
            }
            atomic_write(file, lambda path: save_file(columns, path, about))
            self._add_file(file)
        self._waiting, self._since = {}, time.monotonic()

    def vectors(
        self, spec: EmbeddingSpec, recordings: Sequence[str]
    ) -> Float32[np.ndarray, "n width"]:
        """Those of some recordings, all of which must be there, in their order."""
        from safetensors import safe_open

        places = self._places[spec.fingerprint]
        rows: dict[Path, list[tuple[int, int]]] = {}
        for number, recording in enumerate(recordings):
            file, row = places[recording]
            rows.setdefault(file, []).append((number, row))
        found: Float32[np.ndarray, "n width"] | None = None
        for file, pairs in rows.items():
            with safe_open(file, "np") as opened:
                column = opened.get_tensor(spec.fingerprint)
            if found is None:
                found = np.empty((len(recordings), column.shape[1]), np.float32)
            numbers, theirs = zip(*pairs, strict=True)
            found[list(numbers)] = column[list(theirs)]
        if found is None:
            raise ValueError("no recordings")
        return found

    def _add_file(self, file: Path) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, "np") as opened:
                about = opened.metadata() or {}
                names = list(opened.keys())
            recordings = json.loads(about["recordings"])
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise OptionError(f"{file} is damaged ({error}): delete it") from error
        for name in names:
            places = self._places.setdefault(name, {})
            places.update({recording: (file, row) for row, recording in enumerate(recordings)})
