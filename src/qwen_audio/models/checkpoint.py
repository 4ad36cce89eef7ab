"""A checkpoint in a folder or on a hub: fully checked when opened, read in part."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from qwen_audio.errors import CheckpointError, OptionError, number_option
from qwen_audio.paths import is_folder
from qwen_audio.weights.adapter import ADAPTER_CONFIG, Adapter
from qwen_audio.weights.adapter_config import MERGE_HINT
from qwen_audio.weights.download import ProgressCallback
from qwen_audio.weights.hub import HubFiles
from qwen_audio.weights.hub_errors import is_not_found
from qwen_audio.weights.json_file import parse_json
from qwen_audio.weights.quantization import LinearFormat
from qwen_audio.weights.quantized_store import QuantizedStore
from qwen_audio.weights.tensor_store import TensorStore

from .checkpoint_files import CheckpointFiles
from .components.config_fields import stated_dtype
from .components.prompt import PromptTokenizer
from .family import Family
from .processor_files import check_tokenizer, read_feature_extractor
from .quantization import QuantizationScheme, cache_folder
from .registry import open_family
from .stored_names import find_names
from .stored_quantization import read_stored_quantization
from .tap import Tap
from .tensors import EMBEDDINGS, LM_HEAD, TensorRequirement
from .unsupported import folder_error, hub_model_error

__all__ = ["EMBEDDED", "Checkpoint"]

EMBEDDED = "embedded"
"""The name of the checkpoint that ships with the package."""

_EMBEDDED_FOLDER = Path(__file__).parent / "embedded"


class Checkpoint:
    """One checkpoint; opening it reads the configuration and headers, no weights.

    Args:
        source: "embedded", a folder, or a hub model, "owner/name".
        revision: branch, tag or commit of a hub model.
        adapter: a LoRA adapter, merged into its tensors: see `Adapter`.
        quantize: how its linear layers are quantised: see `QuantizationScheme.named`.

    Raises:
        CheckpointError: if it doesn't exist, is of no family that is supported, has no processor,
            or its tensors are not exactly those of its configuration (missing, extra or of another
            shape), or the adapter is not for them.
    """

    def __init__(
        self,
        source: str | Path = EMBEDDED,
        revision: str | None = None,
        adapter: str | Path | None = None,
        quantize: str | None = None,
    ) -> None:
        if not isinstance(source, str | Path) or not str(source):
            raise CheckpointError(
                f"{source!r} is not a checkpoint: give 'embedded', a folder, or a hub model, "
                "'owner/name'"
            )
        self.name = str(source)
        self._hub: HubFiles | None = None
        folder = _EMBEDDED_FOLDER if self.name == EMBEDDED else Path(source).expanduser()
        if not is_folder(folder):
            self._hub = _resolve(self.name, revision)
            folder = self._hub.folder
        elif revision is not None:
            raise CheckpointError(
                f"revision={revision!r} was given with {self.name}, which is a folder: "
                "revisions belong to hub models, leave it out"
            )
        elif not (folder / "config.json").is_file():
            raise folder_error(folder)
        self.folder = folder
        self.family: Family = open_family(parse_json(folder / "config.json"), self.name)
        canonical_name = self.family.canonical_name
        self._stored = read_stored_quantization(folder, self.name, canonical_name)
        self.dimensions = self.family.dimensions
        self._files = CheckpointFiles(self.name, folder, self._hub)
        self.feature_extractor: Any = read_feature_extractor(
            self._files, self.family.feature_extractor
        )
        if self.family.prompt_format is not None:
            check_tokenizer(self._files)
        self._requirements = self.family.tensor_requirements()
        shapes = {name: requirement.shape for name, requirement in self._requirements.items()}
        self.adapter = self._open_adapter(adapter)
        self.tensors = TensorStore(
            self.name,
            folder,
            shapes,
            lambda required, stored: find_names(required, stored, self.family, self.name),
            self._hub,
            resizable=self._tables(),
            adapter=self.adapter,
            find_layouts=lambda stored: self._stored.layouts(shapes, stored),
            stacked_names=self.family.stacked_names,
        )
        self._stored.check_options(self.tensors.layouts, self.adapter, quantize)
        self._scheme = None if quantize is None else QuantizationScheme.named(quantize)
        self.quantized = None if self._scheme is None else self._quantized_store(self._scheme)
        is_tied = len(self.tensors.without_duplicates(self._tables())) == 1
        if self.adapter and is_tied and {EMBEDDINGS, LM_HEAD} & self.adapter.changed:
            raise CheckpointError(
                f"{self.adapter.name} changes the embeddings of {self.name}, which are its head, "
                "too: " + MERGE_HINT
            )

    @property
    def commit(self) -> str | None:
        """Of a hub model; None for a folder."""
        return None if self._hub is None else self._hub.commit

    @cached_property
    def revision(self) -> str:
        """Commit of a hub model; for a folder, hash of its config and a sample of every tensor."""
        if self._hub is not None:
            return self._hub.commit
        digest = hashlib.sha256((self.folder / "config.json").read_bytes())
        for sample in self.tensors.byte_samples():
            digest.update(sample)
        return digest.hexdigest()[:40]

    @property
    def adapter_hash(self) -> str | None:
        """The adapter's identity, a hash of what it changes; None without one."""
        return None if self.adapter is None else self.adapter.content_hash

    @property
    def quantization(self) -> str | None:
        """How its weights are quantised, such as "int4-g32+head-int8"; None where they aren't."""
        scheme = self._scheme
        return self._stored.spec(self.tensors.layouts) if scheme is None else scheme.spec

    @property
    def formats(self) -> dict[str, LinearFormat]:
        """By name, the matrices that are quantised in memory."""
        return self.tensors.formats if self.quantized is None else self.quantized.formats

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the stored weights: as config.json states it, else as their files do."""
        family = self.family
        stated = stated_dtype(family.config, family.text_config or family.audio_config)
        return stated or self.tensors.common_dtype() or torch.float32

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens that the LM head has a logit for."""
        return self.tensors.shape(LM_HEAD)[0]

    @property
    def generation_config(self) -> dict[str, Any]:
        """generation_config.json; empty if the checkpoint has none."""
        return self._files.generation_config

    @property
    def repetition_penalty(self) -> float:
        """Of generation_config.json; 1 where it has none."""
        penalty = self.generation_config.get("repetition_penalty")
        try:
            value = 1.0 if penalty is None else number_option("repetition_penalty", penalty)
        except OptionError as error:
            raise CheckpointError(f"{self.name}: generation_config.json: {error}") from error
        if not 0 < value < math.inf:
            raise CheckpointError(
                f"{self.name}: generation_config.json: repetition_penalty={value}: use a number "
                "greater than 0"
            )
        return value

    def file(self, name: str) -> Path | None:
        """Path of a file other than weights, downloaded if need be; None if there is none."""
        return self._files.file(name)

    def required_tensors(self, tap: Tap | None) -> dict[str, TensorRequirement]:
        """The tensors that computing `tap` needs, by name.

        None stands for text: every tensor, the LM head included.
        """
        return {
            name: requirement._replace(shape=self.tensors.shapes[name])
            for name, requirement in self._requirements.items()
            if tap is None or (requirement.tap is not None and requirement.tap <= tap)
        }

    def stored_bytes(self, name: str) -> int:
        """Size of a tensor on disk; if its header can't be read alone, by the configured dtype.

        Of a quantised one, of its quantised form, even before that is on the disk.
        """
        if self.quantized is not None and name in self.quantized.formats:
            return self.weight_bytes(name, self.dtype)
        return self.tensors.stored_bytes(name, self.dtype)

    def weight_bytes(self, name: str, dtype: torch.dtype) -> int:
        """Size of a tensor in memory: quantised, or in the dtype to compute in."""
        if name.startswith(self.family.float32_names):
            dtype = torch.float32
        shape = self.tensors.shapes[name]
        form = self.formats.get(name)
        return math.prod(shape) * dtype.itemsize if form is None else form.matrix_bytes(shape)

    def missing_bytes(self, tap: Tap | None) -> int:
        """Bytes that `fetch` would download from a hub."""
        return self.tensors.missing_bytes(self._unquantized(self._whole_tensors(tap)))

    def fetch(
        self,
        tap: Tap | None,
        on_progress: ProgressCallback | None = None,
        on_quantized: ProgressCallback | None = None,
    ) -> None:
        """Download what `tap` needs (None: text), several requests at a time, and quantise it.

        A tap needs only rows of the embedding table, which `embedding_rows` fetches; text needs the
        whole table.

        Args:
            on_progress: called with bytes downloaded and bytes to download in total.
            on_quantized: called with bytes of weights quantised, and to be quantised in total.

        Raises:
            CheckpointError: if the hub can't deliver it, or delivers other tensors, or the disk
                can't hold it.
        """
        names = self._unquantized(self._whole_tensors(tap))
        self.tensors.fetch(names, on_progress)
        if self.quantized is not None:
            self.quantized.prepare(names, on_quantized)

    def embedding_rows(self, token_ids: Sequence[int]) -> list[torch.Tensor]:
        """Input embeddings of single tokens, each of shape (lm width,), without the whole table.

        Raises:
            CheckpointError: for an id beyond the embedding table.
        """
        return self.tensors.read_rows(EMBEDDINGS, token_ids)

    def tokenizer(self, chat: bool | None = None) -> PromptTokenizer:
        """The tokenizer and prompt format: see `Family.tokenizer`."""
        return self.family.tokenizer(self._files, chat)

    def _tables(self) -> tuple[str, ...]:
        """The tensors that have a row for each token."""
        return tuple(name for name in (EMBEDDINGS, LM_HEAD) if name in self._requirements)

    def _whole_tensors(self, tap: Tap | None) -> list[str]:
        """Names of the tensors that a tap needs in full, not only rows of."""
        return [name for name in self.required_tensors(tap) if tap is None or name != EMBEDDINGS]

    def _unquantized(self, names: Sequence[str]) -> Sequence[str]:
        """Without those that have been quantised, which aren't needed again."""
        store = self.quantized
        return names if store is None else [name for name in names if not store.holds(name)]

    def _quantized_store(self, scheme: QuantizationScheme) -> QuantizedStore:
        quantized = {
            name: requirement
            for name, requirement in self._requirements.items()
            if not name.endswith(self.family.unquantized_names)
        }
        return QuantizedStore(
            self.tensors,
            scheme.formats(quantized),
            lambda: cache_folder(self.revision, self.adapter_hash, scheme),
        )

    def _open_adapter(self, source: str | Path | None) -> Adapter | None:
        if source is not None:
            return Adapter(source, self.family.canonical_name)
        with suppress(CheckpointError):  # a hub that can't be reached
            if self.file(ADAPTER_CONFIG) is not None:
                raise OptionError(
                    f"{self.name} holds a whole model and an adapter: give adapter={self.name!r} "
                    f"to use both, or move {ADAPTER_CONFIG} away to use the model alone"
                )
        return None


def _resolve(repo: str, revision: str | None) -> HubFiles:
    try:
        return HubFiles.resolve(repo, revision)
    except CheckpointError as error:
        explained = hub_model_error(repo, revision) if is_not_found(error) else None
        raise explained or error from error
