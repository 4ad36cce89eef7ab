"""Quantised weights of a checkpoint on disk: made once, module by module, then read alone."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path

import torch

from qwen_audio.errors import CheckpointError

from .compressed_tensors import Weights, join_matrices, split_matrices
from .download import ProgressCallback
from .gptq import InputMoments, quantize_for_inputs
from .quantization import LinearFormat, QuantizedMatrix, quantize_matrix
from .safetensors_file import TensorInfo, TensorLocation, read_header, read_tensors
from .tensor_store import LAYER, TensorStore

__all__ = ["QuantizedStore", "module_prefix", "quantize_module", "write_safetensors"]

_MODULE = re.compile(rf"{LAYER.pattern}|.+\.")

_STALE_SECONDS = 3_600
"""After which an unfinished file is of a process that was killed."""


def module_prefix(name: str) -> str:
    """Of a tensor's name the part that names its module, a whole layer or a single matrix."""
    match = _MODULE.match(name)
    return match[0] if match else ""


class QuantizedStore:
    """The quantised modules of one checkpoint, in one safetensors file each.

    A file is written under another name and renamed when it is complete: a process that is killed
    leaves none that is half written, and two processes may do the same work, not harm each other.

    Args:
        tensors: of the checkpoint that is quantised.
        formats: of those that are, by name.
        folder: of the files: one for each revision and quantisation, made when first needed.
    """

    def __init__(
        self,
        tensors: TensorStore,
        formats: Mapping[str, LinearFormat],
        folder: Callable[[], Path],
    ) -> None:
        self.formats = dict(formats)
        self._tensors, self._find_folder = tensors, folder
        self._folder: Path | None = None
        self._headers: dict[Path, dict[str, TensorInfo]] = {}
        self._prefixes = {module_prefix(name) for name in formats}

    def __contains__(self, prefix: str) -> bool:
        return module_prefix(prefix) in self._prefixes

    @property
    def folder(self) -> Path:
        """Where the files are."""
        if self._folder is None:
            self._folder = self._find_folder()
        return self._folder

    def holds(self, name: str) -> bool:
        """Whether a tensor is in the file of a module that has been quantised."""
        prefix = module_prefix(name)
        return prefix in self and self._path(prefix).is_file()

    def prepare(self, names: Collection[str], report: ProgressCallback | None = None) -> None:
        """Quantise the modules of these tensors that have not been yet.

        One module is in memory at a time.

        Args:
            report: called with the bytes read of the weights, and those to read.

        Raises:
            CheckpointError: if the disk can't hold them.
        """
        prefixes = dict.fromkeys(module_prefix(name) for name in names)
        missing = [each for each in prefixes if each in self and not self._path(each).is_file()]
        if not missing:
            return
        self._check_disk_space(missing)
        self._remove_unfinished()
        sizes = {prefix: self._source_bytes(prefix) for prefix in missing}
        done, total = 0, sum(sizes.values())
        for prefix in missing:
            if report is not None:
                report(done, total)
            weights = quantize_module(self._tensors.read(prefix), prefix, self.formats)
            write_safetensors(self._path(prefix), split_matrices(weights))
            done += sizes[prefix]
        if report is not None:
            report(total, total)

    def read(
        self, prefix: str, device: torch.device, dtype: torch.dtype, without: str = ""
    ) -> Weights:
        """The weights of a module, or a part of it: matrices quantised, the others in a dtype.

        Args:
            without: weights are left out whose names continue so.

        Raises:
            CheckpointError: for a file that is missing or damaged.
        """
        module = module_prefix(prefix)
        path, part = self._path(module), prefix.removeprefix(module)
        try:
            if path not in self._headers:
                self._headers[path] = read_header(path)
            locations = {
                name.removeprefix(part): TensorLocation(path, info)
                for name, info in self._headers[path].items()
                if name.startswith(part) and not (without and name.startswith(part + without))
            }
            tensors = read_tensors(locations)
        except CheckpointError as error:
            raise CheckpointError(f"{error}, or delete the file: it is made again") from error
        return {
            name: weight.to(device=device, dtype=dtype)
            if isinstance(weight, torch.Tensor)
            else weight.to(device)
            for name, weight in join_matrices(tensors).items()
        }

    def _path(self, prefix: str) -> Path:
        return self.folder / f"{prefix}safetensors"

    def _names(self, prefix: str) -> list[str]:
        return [name for name in self._tensors.shapes if name.startswith(prefix)]

    def _source_bytes(self, prefix: str) -> int:
        return sum(self._tensors.stored_bytes(name, torch.bfloat16) for name in self._names(prefix))

    def _check_disk_space(self, prefixes: Collection[str]) -> None:
        needed = sum(
            self.formats[name].matrix_bytes(self._tensors.shapes[name])
            for prefix in prefixes
            for name in self._names(prefix)
            if name in self.formats
        )
        if needed > (free := shutil.disk_usage(self.folder).free):
            raise CheckpointError(
                f"{self._tensors.name}: the quantised weights take {needed} bytes, but "
                f"{self.folder} has {free} bytes free: free disk space, or set HF_HOME to a folder "
                "on a larger disk"
            )

    def _remove_unfinished(self) -> None:
        for path in self.folder.glob("*.unfinished"):
            with suppress(OSError):  # another process removes or renames it
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()


def quantize_module(
    tensors: dict[str, torch.Tensor],
    prefix: str,
    formats: Mapping[str, LinearFormat],
    inputs: Mapping[str, InputMoments] | None = None,
) -> Weights:
    """A module's tensors, of which those with a format are quantised; takes them from `tensors`,
    and moments from `inputs`, so that memory never holds both forms of all.

    Args:
        inputs: by tensor, of the matrices that are rounded for their inputs: see `gptq`.
    """
    moments = dict(inputs or {})
    weights: dict[str, torch.Tensor | QuantizedMatrix] = {}
    for name in list(tensors):
        tensor = tensors.pop(name)
        form = formats.get(prefix + name)
        if form is None:
            weights[name] = tensor
        elif name in moments:
            weights[name] = quantize_for_inputs(tensor, form, moments.pop(name))
        else:
            weights[name] = quantize_matrix(tensor, form)
    return weights


def write_safetensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a file so that it is there whole or not at all.

    Raises:
        CheckpointError: if the disk can't hold it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    try:
        save_file(dict(tensors), unfinished, metadata={"format": "pt"})
        unfinished.replace(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} can't be written ({error}): free disk space, or choose another folder "
            "(HF_HOME for the cache)"
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
