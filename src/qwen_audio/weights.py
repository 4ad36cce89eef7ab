"""A checkpoint on disk or on a hub: checked whole, read in part."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from transformers import Qwen2AudioConfig

from .errors import CheckpointError
from .hub import HubFiles
from .layout import empty_module, needed_tensors
from .mel import MAX_FRAMES, check_extractor
from .shards import itemsize, open_shard, samples_of_tensors
from .tap import Geometry, Tap

if TYPE_CHECKING:
    from transformers import WhisperFeatureExtractor

__all__ = ["EMBEDDED", "Checkpoint", "Cost", "Parts"]

EMBEDDED = "embedded"
"""The name of the checkpoint that ships with the package."""

_FOLDER_OF_EMBEDDED = Path(__file__).parent / "embedded"
_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"


@dataclass(frozen=True)
class Cost:
    """What a tap needs of a checkpoint: everything left of it, nothing right of it."""

    tensors: int
    parameters: int
    bytes: int


@dataclass(frozen=True)
class _Entry:
    """Where a tensor lies."""

    file: Path
    shape: tuple[int, ...]
    bytes: int


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
        self.config = _config(folder, self.name)
        self.audio_config = cast(Any, self.config.audio_config)
        self.text_config = cast(Any, self.config.text_config)
        self.geometry = Geometry(
            mel_bins=self.audio_config.num_mel_bins,
            encoder_layers=self.audio_config.encoder_layers,
            encoder_width=self.audio_config.d_model,
            lm_layers=self.text_config.num_hidden_layers,
            lm_width=self.text_config.hidden_size,
        )
        self._needed = dict(needed_tensors(self.config))
        self._file_of = self._weight_map()
        self._check_names()
        self._entries: dict[str, _Entry] = {}
        if self._hub is None:
            for file in sorted(set(self._file_of.values())):
                self._read_header(folder / file)

    @cached_property
    def revision(self) -> str:
        """A commit of the hub; for a folder a digest of its config and samples of every tensor."""
        if self._hub is not None:
            return self._hub.commit
        digest = hashlib.sha256((self.folder / "config.json").read_bytes())
        for file in sorted(set(self._file_of.values())):
            for sample in samples_of_tensors(self.folder / file):
                digest.update(sample)
        return digest.hexdigest()[:40]

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
        check_extractor(extractor, self.geometry.mel_bins)
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

    def cost(self, tap: Tap | None) -> Cost:
        """What `tap` needs; None stands for text, the language model's head included."""
        names = [
            name
            for name, needed in self._needed.items()
            if tap is None or (needed.tap is not None and needed.tap <= tap)
        ]
        parameters = sum(math.prod(self._needed[name].shape) for name in names)
        width = getattr(self.config, "dtype", None) or torch.float32
        stored = sum(
            self._entries[name].bytes
            if name in self._entries
            else math.prod(self._needed[name].shape) * width.itemsize
            for name in names
        )
        return Cost(len(names), parameters, stored)

    def read(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors whose names start with `prefix`, and no others; names without the prefix."""
        names = [name for name in self._needed if name.startswith(prefix)]
        for file in sorted({self._file_of[name] for name in names}):
            if self._hub is not None and not (self.folder / file).is_file():
                self._hub.fetch(file)
            if any(name not in self._entries for name in names if self._file_of[name] == file):
                self._read_header(self.folder / file)
        tensors: dict[str, torch.Tensor] = {}
        for file in sorted({self._file_of[name] for name in names}):
            with open_shard(self.folder / file) as opened:
                for name in names:
                    if self._file_of[name] == file:
                        tensors[name.removeprefix(prefix)] = opened.get_tensor(name)
        return tensors

    def _weight_map(self) -> dict[str, str]:
        """Tensor name → file, from the index, or from the header of the only file."""
        if (index := self.file(_INDEX)) is not None:
            files = _parse_json(index).get("weight_map")
            if not isinstance(files, dict) or not all(_is_name(file) for file in files.values()):
                raise CheckpointError(
                    f"{self.name}: {_INDEX} has no weight_map of tensors and files beside it: "
                    "download it again"
                )
            return files
        if self._hub is not None:
            self._hub.fetch(_SINGLE, optional=True)
        if not (self.folder / _SINGLE).is_file():
            raise CheckpointError(
                f"{self.name} holds neither {_INDEX} nor {_SINGLE}: "
                "weights are read from safetensors only"
            )
        with open_shard(self.folder / _SINGLE) as opened:
            return dict.fromkeys(opened.keys(), _SINGLE)

    def _check_names(self) -> None:
        missing = sorted(self._needed.keys() - self._file_of.keys())
        extra = sorted(self._file_of.keys() - self._needed.keys())
        for names, what in ((missing, "lacks"), (extra, "holds, beyond what its config asks for,")):
            if names:
                raise CheckpointError(
                    f"{self.name} {what} {len(names)} tensor{'s' * (len(names) != 1)}, "
                    f"{', '.join(names[:3])}{' …' * (len(names) > 3)}: "
                    "it is not the checkpoint of this config.json; download it again"
                )

    def _read_header(self, file: Path) -> None:
        """Note where each tensor of a shard lies, and hold its shape against the configuration."""
        if not file.is_file():
            raise CheckpointError(f"{self.name} lacks its shard {file.name}: download it again")
        with open_shard(file) as opened:
            held = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
            promised = {name for name, at in self._file_of.items() if at == file.name}
            if held.keys() != promised:
                odd = sorted(held.keys() ^ promised)
                raise CheckpointError(
                    f"{self.name}: shard {file.name} and the index disagree on {odd[0]}"
                    f"{f' and {len(odd) - 1} more' if len(odd) > 1 else ''}: download it again"
                )
            for name, part in held.items():
                shape, wanted = tuple(part.get_shape()), self._needed[name].shape
                if shape != wanted:
                    raise CheckpointError(
                        f"{self.name}: tensor {name} has shape {shape}, but its config asks for "
                        f"{wanted}: config.json and weights don't belong together"
                    )
                size = itemsize(part.get_dtype(), f"{self.name}: tensor {name}")
                self._entries[name] = _Entry(file, shape, math.prod(shape) * size)

    def _json(self, name: str, *, optional: bool = False) -> dict[str, Any]:
        path = self.file(name)
        if path is None:
            if optional:
                return {}
            raise CheckpointError(f"{self.name} lacks {name}: download the whole checkpoint")
        return _parse_json(path)


class Parts:
    """A checkpoint's modules, each built and given its weights when it is first asked for."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        self._checkpoint, self.device, self.dtype = checkpoint, device, dtype
        self._built: dict[str, nn.Module] = {}

    def get(self, prefix: str, build: Callable[[], nn.Module]) -> Any:
        """The module whose tensors are named `prefix…`, in evaluation mode, without gradients.

        It is built without memory: the weights read are the only ones ever allocated.
        """
        if prefix not in self._built:
            module = empty_module(build)
            tensors = {
                name: tensor.to(device=self.device, dtype=self.dtype)
                for name, tensor in self._checkpoint.read(prefix).items()
            }
            module.load_state_dict(tensors, strict=True, assign=True)
            self._built[prefix] = module.eval().requires_grad_(False)
        return self._built[prefix]


def _config(folder: Path, name: str) -> Qwen2AudioConfig:
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{name} holds no config.json: it is not a checkpoint folder")
    settings = _parse_json(folder / "config.json")
    if settings.get("model_type") != "qwen2_audio":
        raise CheckpointError(
            f"{name} is of type {settings.get('model_type')!r}; only 'qwen2_audio' is supported"
        )
    try:
        config = Qwen2AudioConfig(**settings)
    except Exception as error:  # transformers' strict configs raise several types
        raise CheckpointError(f"{name}: config.json is not valid ({error})") from error
    text: Any = config.text_config
    if text.model_type != "qwen2" or set(text.layer_types) != {"full_attention"}:
        raise CheckpointError(
            f"{name} has a language model of type {text.model_type!r} with {set(text.layer_types)} "
            "layers; only 'qwen2' with full attention is supported"
        )
    positions = cast(Any, config.audio_config).max_source_positions
    if positions != MAX_FRAMES // 2:
        raise CheckpointError(
            f"{name} hears {positions} frames at once; only {MAX_FRAMES // 2}, 30 s, are supported"
        )
    return config


def _is_name(file: Any) -> bool:
    """Whether it is a file's name alone: an index must not lead out of its folder."""
    return isinstance(file, str) and file not in ("", ".", "..") and Path(file).name == file


def _parse_json(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(f"{path} can't be read as JSON ({error})") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path} holds no JSON object: download it again")
    return settings
