"""A LoRA adapter in PEFT's format, merged into tensors as they are read.

PEFT adds (alpha / rank) · B(A(x)) to the output of a linear layer, which is then the layer with the
weight W + (alpha / rank) · B·A. Other parameters that were trained with it (biases, whole modules)
are in its file under their own names, and replace the base model's.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from qwen_audio.errors import CheckpointError, counted
from qwen_audio.paths import is_folder

from .adapter_config import MERGE_HINT, check_adapter_config, lora_scale
from .download import check_adapter_name
from .hub import HubFiles
from .json_file import parse_json
from .other_formats import explain_files
from .safetensors_file import TensorInfo, TensorLocation, read_header, read_tensors, tensor_dtype

__all__ = ["ADAPTER_CONFIG", "Adapter"]

ADAPTER_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_FACTOR = re.compile(
    r"(?P<module>.+)\.lora_"
    r"(?:(?P<linear>[AB])(\.[^.]+)?\.weight|embedding_(?P<embedding>[AB])(\.[^.]+)?)"
)
"""The name of a factor; the name of the adapter may be in it."""
_WRAPPED = re.compile(r"\.base_layer\b|\.modules_to_save(\.default)?\b")
_VALUES_PER_BLOCK = 1 << 22
"""Merged at once, in float32: the memory beside the tensor itself stays below 40 MB."""


@dataclass(frozen=True)
class _LowRankTerm:
    """scale · left·right is added to a tensor: B and A of a layer; Aᵀ and Bᵀ of an embedding."""

    a: TensorLocation
    b: TensorLocation
    scale: float
    is_embedding: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Rows of left, and columns of right."""
        a, b = self.a.info.shape, self.b.info.shape
        return (a[1], b[0]) if self.is_embedding else (b[0], math.prod(a[1:]))

    def factors(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Left and right, read from disk onto the device of `like`, in its dtype."""
        read = read_tensors({"a": self.a, "b": self.b})
        a, b = (read[name].to(like.device, like.dtype) for name in ("a", "b"))
        left, right = (a.T, b.T) if self.is_embedding else (b.flatten(1), a.flatten(1))
        return left, right


class Adapter:
    """The changes that one adapter makes to a model's tensors; opening it reads no weights.

    Args:
        source: a folder, or a hub model, "owner/name", which is downloaded.
        canonical_name: from a tensor's name in PEFT's model to that in the `TensorStore`.

    Raises:
        CheckpointError: if it doesn't exist, is damaged, or isn't LoRA as described above.
    """

    def __init__(self, source: str | Path, canonical_name: Callable[[str], str]) -> None:
        if not isinstance(source, str | Path):
            raise CheckpointError(
                f"{source!r} is not an adapter: give one folder, or one hub model, 'owner/name'"
            )
        self.name = str(source)
        self.folder = Path(source).expanduser()
        if not self.name or not is_folder(self.folder):
            check_adapter_name(self.name)
            hub = HubFiles.resolve(self.name, None, ADAPTER_CONFIG)
            hub.fetch_file(_WEIGHTS, optional=True)
            self.folder = hub.folder
        names = [path.name for path in self.folder.iterdir()]
        if ADAPTER_CONFIG not in names:
            whole = "config.json" in names
            raise CheckpointError(
                f"{self.name} has no {ADAPTER_CONFIG}: "
                + ("it is a whole checkpoint, load it as one" if whole else "it is no PEFT adapter")
            )
        self._settings = parse_json(self.folder / ADAPTER_CONFIG)
        check_adapter_config(self._settings, self.name)
        if _WEIGHTS not in names:
            reason = explain_files(names) or "save it with PEFT's save_pretrained"
            raise CheckpointError(f"{self.name} has no {_WEIGHTS}: {reason}")
        self._terms: dict[str, _LowRankTerm] = {}
        self._replaced: dict[str, TensorLocation] = {}
        self._read_names(read_header(self.folder / _WEIGHTS), canonical_name)

    @property
    def changed(self) -> set[str]:
        """Names of the tensors that it changes."""
        return self._terms.keys() | self._replaced.keys()

    @cached_property
    def content_hash(self) -> str:
        """Equal for adapters that make the same changes, whatever their files are called."""
        digest = hashlib.sha256()
        for name in sorted(self.changed):
            parts = {"whole": self._replaced[name]} if name in self._replaced else {}
            scale = None
            if (term := self._terms.get(name)) is not None:
                parts |= {"A": term.a, "B": term.b}
                scale = term.scale
            tensors = read_tensors(parts)
            for part, location in parts.items():
                info = location.info
                digest.update(json.dumps([name, scale, part, info.dtype, info.shape]).encode())
                digest.update(tensors[part].flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()[:40]

    def check(self, shape: Callable[[str], tuple[int, ...]], known: Iterable[str]) -> None:
        """Check that it changes tensors of a model, as they are.

        Args:
            shape: of one of these tensors.
            known: their names.

        Raises:
            CheckpointError: if it was trained on another model.
        """
        base = self._settings.get("base_model_name_or_path") or "another model"
        unknown = sorted(self.changed - set(known))
        if unknown:
            raise CheckpointError(
                f"{self.name} changes {counted(len(unknown), 'tensor')} that this "
                f"model lacks, {', '.join(unknown[:3])}{' …' * (len(unknown) > 3)}: it was trained "
                f"on {base}"
            )
        for name in sorted(self.changed):
            expected = shape(name)
            given: set[tuple[int, ...]] = set()
            if name in self._replaced:
                given.add(self._replaced[name].info.shape)
            if name in self._terms and self._terms[name].shape != _as_matrix(expected):
                given.add(self._terms[name].shape)
            if given - {expected}:
                raise CheckpointError(
                    f"{self.name} changes {name} in the shape {min(given)}, but this model has "
                    f"{expected}: it was trained on {base}, or with another vocabulary; if so, "
                    + MERGE_HINT
                )

    def adds_to(self, name: str) -> bool:
        """Whether it has a low-rank term for a tensor."""
        return name in self._terms

    def replacement(self, name: str) -> TensorLocation | None:
        """The tensor that it has instead of one of the model's."""
        return self._replaced.get(name)

    def stored_bytes(self, name: str) -> int:
        """Bytes of its term for a tensor; 0 if it has none."""
        term = self._terms.get(name)
        return 0 if term is None else term.a.info.bytes + term.b.info.bytes

    def merge(self, name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        """The sum of a tensor and its term, in `dtype`, computed in float32 (or better) on its
        device; in place if that is the tensor's own dtype."""
        accumulated = torch.promote_types(tensor.dtype, torch.float32)
        left, right = self._terms[name].factors(torch.empty(0, dtype=accumulated).to(tensor.device))
        scale = self._terms[name].scale
        merged = tensor if tensor.dtype is dtype else torch.empty_like(tensor, dtype=dtype)
        source, target = tensor.flatten(1), merged.flatten(1)
        step = max(1, _VALUES_PER_BLOCK // source.shape[1])
        for start in range(0, len(source), step):
            rows = slice(start, start + step)
            term = torch.mm(left[rows], right).mul_(scale)
            target[rows] = term.add_(source[rows])
        return merged

    def merge_rows(self, name: str, rows: Sequence[int], values: Sequence[Tensor]) -> list[Tensor]:
        """Some rows of a matrix, each with its part of the term, in float32 (or better)."""
        if not values:
            return []
        stacked = torch.stack(list(values))
        stacked = stacked.to(torch.promote_types(stacked.dtype, torch.float32))
        left, right = self._terms[name].factors(stacked)
        return list(stacked + self._terms[name].scale * (left[list(rows)] @ right))

    def _read_names(
        self, header: Mapping[str, TensorInfo], canonical_name: Callable[[str], str]
    ) -> None:
        """Sort the tensors of its file into pairs of factors, and others."""
        pairs: dict[str, dict[str, tuple[str, TensorLocation, bool]]] = {}
        for stored, info in header.items():
            tensor_dtype(info, f"{self.name}: tensor {stored}")
            location = TensorLocation(self.folder / _WEIGHTS, info)
            plain = _WRAPPED.sub("", stored.removeprefix("base_model.model."))
            match = _FACTOR.fullmatch(plain)
            name = canonical_name(f"{match['module']}.weight" if match else plain)
            if match is None and "lora_" in plain:
                raise CheckpointError(
                    f"{self.name} is a variant of LoRA: it has {stored}; {MERGE_HINT}"
                )
            factors = pairs.setdefault(name, {})
            key = (match["linear"] or match["embedding"]) if match else "whole"
            if key in factors:
                raise CheckpointError(
                    f"{self.name} has two tensors for {name}, one of them {stored}: it holds "
                    "several adapters; save one"
                )
            module = match["module"] if match else plain
            factors[key] = (module, location, bool(match and match["embedding"]))
        for name, factors in pairs.items():
            if "whole" in factors:  # also beside factors: of resized embeddings
                self._replaced[name] = factors["whole"][1]
            if {"A", "B"} <= factors.keys():
                self._terms[name] = self._term(name, factors)
            elif {"A", "B"} & factors.keys():
                raise CheckpointError(
                    f"{self.name} has only one of the factors A and B for {name}: save the adapter "
                    "again"
                )
        if not pairs:
            raise CheckpointError(f"{self.name} has no tensors: save the adapter again")

    def _term(
        self, name: str, factors: Mapping[str, tuple[str, TensorLocation, bool]]
    ) -> _LowRankTerm:
        (module, a, is_embedding), (_, b, _) = factors["A"], factors["B"]
        ranks = a.info.shape[0], b.info.shape[1] if len(b.info.shape) > 1 else 0
        point = is_embedding or math.prod(b.info.shape[2:]) == 1  # of a convolution's B
        if len(a.info.shape) < 2 or ranks[0] != ranks[1] or 0 in ranks or not point:
            raise CheckpointError(
                f"{self.name}: the factors for {name} have shapes {a.info.shape} and "
                f"{b.info.shape}, which don't belong together: save the adapter again"
            )
        scale = lora_scale(self._settings, module, ranks[0], self.name)
        return _LowRankTerm(a, b, scale, is_embedding)


def _as_matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    return (shape[0], math.prod(shape[1:]))
