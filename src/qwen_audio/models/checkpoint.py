"""A checkpoint on disk or on a hub: checked whole, read in part."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from qwen_audio.errors import CheckpointError
from qwen_audio.models.qwen2_audio.config import check_extractor, read_config
from qwen_audio.models.qwen2_audio.tensors import EMBEDDINGS, TensorRequirement, tensor_requirements
from qwen_audio.weights.download import Report
from qwen_audio.weights.hub import HubFiles
from qwen_audio.weights.tensor_store import TensorStore, parse_json

from .tap import ModelDimensions, Tap

if TYPE_CHECKING:
    from transformers import WhisperFeatureExtractor

__all__ = ["EMBEDDED", "Checkpoint"]

EMBEDDED = "embedded"
"""The name of the checkpoint that ships with the package."""

_FOLDER_OF_EMBEDDED = Path(__file__).parent / "embedded"


class Checkpoint:
    """One Qwen2-Audio checkpoint; opening it reads configuration and headers, no weights.

    Args:
        source: "embedded", a folder, or a hub's "owner/name".
        revision: branch, tag or commit of a hub model.

    Raises:
        CheckpointError: if it isn't there, isn't Qwen2-Audio, or its tensors are not exactly those
            that its configuration asks for (missing, left over or of the wrong shape).
    """

    def __init__(self, source: str | Path = EMBEDDED, revision: str | None = None) -> None:
        if not isinstance(source, str | Path) or not str(source):
            raise CheckpointError(
                f"{source!r} is no checkpoint: give 'embedded', a folder, or a hub's 'owner/name'"
            )
        self.name = str(source)
        self._hub: HubFiles | None = None
        folder = _FOLDER_OF_EMBEDDED if self.name == EMBEDDED else Path(source).expanduser()
        if not folder.is_dir():
            self._hub = HubFiles.of(self.name, revision)
            folder = self._hub.folder
        elif revision is not None:
            raise CheckpointError(
                f"revision={revision!r} was given with {self.name}, which is a folder: "
                "revisions belong to hub models, leave it out"
            )
        self.folder = folder
        self.config = read_config(folder, self.name)
        self.audio_config = cast(Any, self.config.audio_config)
        self.text_config = cast(Any, self.config.text_config)
        self.dimensions = ModelDimensions.of(self.config)
        self._needed = dict(tensor_requirements(self.config))
        shapes = {name: needed.shape for name, needed in self._needed.items()}
        self.tensors = TensorStore(self.name, folder, shapes, self._hub)

    @cached_property
    def revision(self) -> str:
        """A commit of the hub; for a folder a digest of its config and samples of every tensor."""
        if self._hub is not None:
            return self._hub.commit
        digest = hashlib.sha256((self.folder / "config.json").read_bytes())
        for sample in self.tensors.samples():
            digest.update(sample)
        return digest.hexdigest()[:40]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of its weights, as config.json states it."""
        return getattr(self.config, "dtype", None) or torch.float32

    @cached_property
    def extractor(self) -> WhisperFeatureExtractor:
        """transformers' feature extractor, as preprocessor_config.json sets it."""
        from transformers import WhisperFeatureExtractor

        settings = self._json("preprocessor_config.json")
        try:
            extractor = WhisperFeatureExtractor(**settings)
        except Exception as error:  # whatever its arithmetic makes of them
            raise CheckpointError(
                f"{self.name}: preprocessor_config.json is not valid ({error}): download it again"
            ) from error
        check_extractor(extractor, self.dimensions.mel_bins)
        return extractor

    @cached_property
    def generation_config(self) -> dict[str, Any]:
        """generation_config.json; empty where the checkpoint has none."""
        return self._json("generation_config.json", optional=True)

    def file(self, name: str) -> Path | None:
        """A file of the checkpoint that isn't weights (fetched if it is on a hub), or None."""
        if self._hub is not None:
            self._hub.fetch(name, optional=True)
        path = self.folder / name
        return path if path.is_file() else None

    def required_tensors(self, tap: Tap | None) -> dict[str, TensorRequirement]:
        """The tensors that `tap` needs, by name: everything left of it, nothing right of it.

        None stands for text: all of them, the language model's head included.
        """
        return {
            name: needed
            for name, needed in self._needed.items()
            if tap is None or (needed.tap is not None and needed.tap <= tap)
        }

    def stored_bytes(self, name: str) -> int:
        """Size of a tensor on disk; by the configuration's dtype where no header can be read."""
        return self.tensors.stored_bytes(name, self.dtype)

    def missing_bytes(self, tap: Tap | None) -> int:
        """Bytes that `fetch` would download from a hub."""
        return self.tensors.missing_bytes(self._read_whole(tap))

    def fetch(self, tap: Tap | None, report: Report | None = None) -> None:
        """Download what `tap` needs (None: text), all at once.

        Of the embedding table taps need only rows, which `embedding_rows` fetches; text needs all.

        Raises:
            CheckpointError: if the hub can't deliver it, or delivers other tensors.
        """
        self.tensors.fetch(self._read_whole(tap), report)

    def embedding_rows(self, ids: Sequence[int]) -> list[torch.Tensor]:
        """The embeddings of single tokens, each of shape (lm width,), read one by one.

        Raises:
            CheckpointError: for a token that the embedding table has no row for.
        """
        return self.tensors.read_rows(EMBEDDINGS, ids)

    def _read_whole(self, tap: Tap | None) -> list[str]:
        """Tensors that a tap needs in full, not only rows of."""
        return [name for name in self.required_tensors(tap) if tap is None or name != EMBEDDINGS]

    def _json(self, name: str, *, optional: bool = False) -> dict[str, Any]:
        path = self.file(name)
        if path is None:
            if optional:
                return {}
            raise CheckpointError(f"{self.name} lacks {name}: download the whole checkpoint")
        return parse_json(path)
