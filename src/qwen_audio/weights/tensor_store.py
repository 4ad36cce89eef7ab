"""Tensors of a checkpoint by name, from a folder of safetensors files or from a hub."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TypeAlias

import torch

from qwen_audio.errors import CheckpointError

from .adapter import Adapter
from .compressed_tensors import Weights
from .direct_io import ReadBuffer
from .download import ProgressCallback
from .gpu_copies import StagingBuffer
from .hub import HubFiles
from .matrix_layout import MatrixLayout
from .quantization import LinearFormat, QuantizedMatrix
from .safetensors_file import TensorInfo, TensorLocation, read_rows, read_tensors, tensor_dtype
from .stacked_tensors import StackedNames
from .stored_matrices import StoredMatrices, check_stored
from .weight_files import WeightFiles

__all__ = ["LAYER", "LayoutLookup", "NameLookup", "TensorStore"]

LAYER = re.compile(r".+?\.layers\.\d+\.")
"""What names of a layer's tensors begin with."""

NameLookup: TypeAlias = Callable[[Collection[str], Collection[str]], Mapping[str, str]]
"""From the tensors that are asked for, and the names in a checkpoint's files, to the name in them
of each that is asked for."""

LayoutLookup: TypeAlias = Callable[[Collection[str]], Mapping[str, MatrixLayout]]
"""From the names in a checkpoint's files to the layouts of the matrices that are quantised."""


class TensorStore:
    """Named tensors in one or several safetensors files, checked when opened and read in part.

    Opening reads the index and, of local files, the headers; no tensor data. The header of a file
    on a hub is fetched and checked when one of its tensors is first needed.

    Args:
        name: of the checkpoint, for error messages.
        folder: of its files, or to download them to.
        shapes: name and shape of every tensor that is asked for.
        find_names: finds them among the names in the files; raises CheckpointError for missing and
            extra ones. Two may be found under one name: they share a tensor.
        hub: where to download from; None for a local folder.
        resizable: those that may have another number of rows, such as a resized embedding table;
            `shape` tells it.
        adapter: merged into the tensors as they are read.
        find_layouts: finds the matrices that are stored quantised, as several tensors each, which
            are joined when they are read.
        stacked_names: of tensors in the files that are several stacked ones.

    Raises:
        CheckpointError: if files are missing or damaged, or tensors missing, extra or of another
            shape.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        shapes: Mapping[str, tuple[int, ...]],
        find_names: NameLookup,
        hub: HubFiles | None = None,
        resizable: Collection[str] = (),
        adapter: Adapter | None = None,
        find_layouts: LayoutLookup = lambda _: {},
        stacked_names: StackedNames = lambda name: (name,),
    ) -> None:
        self.name, self.folder, self.shapes = name, folder, dict(shapes)
        self.adapter = adapter
        self._files = WeightFiles(name, folder, hub, stacked_names)
        self._matrices = StoredMatrices(name, find_layouts(self._files.names))
        self._resizable = {name for name in resizable if name not in self._matrices}
        self._expected = self._matrices.expected(self.shapes)
        self._stored_names = dict(find_names(self._expected.keys(), self._files.names))
        self._files.check_headers(self._check_header)
        if adapter is not None:
            adapter.check(self.shape, self.shapes.keys())

    @property
    def layouts(self) -> dict[str, MatrixLayout]:
        """Of the matrices that are stored quantised."""
        return self._matrices.layouts

    @property
    def formats(self) -> dict[str, LinearFormat]:
        """Of those that are held in memory so; the others are dequantised when they are read."""
        return self._matrices.formats

    def byte_samples(self) -> Iterator[bytes]:
        """Header entries and some bytes of every tensor, in a fixed order; of local files only."""
        return self._files.byte_samples()

    def stored_bytes(self, name: str, default_dtype: torch.dtype) -> int:
        """Size of a tensor on disk, from the header of its file, with what an adapter adds to it.

        Args:
            default_dtype: assumed if the server sends whole files only.
        """
        added = 0 if self.adapter is None else self.adapter.stored_bytes(name)
        if (replacement := self._replacement(name)) is not None:
            return replacement.info.bytes + added
        infos = [self._files.info(stored) for stored in self._stored([name])]
        known = [info.bytes for info in infos if info is not None]
        if len(known) < len(infos):
            bits = self._matrices.value_bits(name, 8 * default_dtype.itemsize)
            return math.prod(self.shapes[name]) * bits // 8 + added
        return sum(known) + added

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, with the number of rows that it has in its file."""
        if name in self._resizable:
            self._files.info(self._stored_names[name])
        return self.shapes[name]

    def without_duplicates(self, names: Iterable[str]) -> list[str]:
        """The names, without those that share a tensor with an earlier one."""
        firsts: dict[str, str] = {}
        for name in names:
            firsts.setdefault(self._stored_names.get(name, name), name)
        return list(firsts.values())

    def common_dtype(self) -> torch.dtype | None:
        """The dtype of most bytes in the files whose headers have been read, without those of
        quantised values; None for no such."""
        sizes: Counter[torch.dtype] = Counter()
        infos = self._files.known_infos()
        for name, stored in self._stored_names.items():
            if stored in infos and not self._expected[name].dtypes:
                sizes[tensor_dtype(infos[stored], name)] += infos[stored].bytes
        return max(sizes, key=sizes.__getitem__, default=None)

    def missing_bytes(self, names: Iterable[str]) -> int:
        """Bytes that `fetch` would download."""
        return self._files.missing_bytes(self._stored(names))

    def fetch(self, names: Iterable[str], report: ProgressCallback | None = None) -> None:
        """Download those of these tensors that aren't on this machine, concurrently.

        Raises:
            CheckpointError: if the hub can't deliver them, or delivers other tensors.
        """
        self._files.fetch(self._stored(names), report)

    def read(
        self,
        prefix: str,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        buffer: ReadBuffer | StagingBuffer | None = None,
    ) -> dict[str, torch.Tensor]:
        """The tensors whose names start with `prefix`, keyed by the rest of their names; quantised
        ones are dequantised.

        Args:
            device, dtype: to convert to; None: the CPU, and the dtype on disk.
            buffer: see `read_tensors`.
        """
        weights = self.read_weights(prefix, device=device, dtype=dtype, buffer=buffer)
        return {
            name: weight.dequantize(dtype or torch.float32)
            if isinstance(weight, QuantizedMatrix)
            else weight
            for name, weight in weights.items()
        }

    def read_weights(
        self,
        prefix: str,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        buffer: ReadBuffer | StagingBuffer | None = None,
        without: str = "",
    ) -> Weights:
        """As `read`, but matrices with a format in `formats` stay quantised.

        Args:
            without: tensors are left out whose names continue so.
        """
        names = self._names(prefix)
        if without:
            names = [name for name in names if not name.startswith(prefix + without)]
        matrices = {
            name: self._matrices.part_names(name)
            for name in names
            if name in self._matrices and self._replacement(name) is None
        }
        parts = set(chain.from_iterable(matrices.values()))

        def convert(name: str, tensor: torch.Tensor) -> torch.Tensor:
            return tensor if name in parts else self._converted(name, tensor, device, dtype)

        # Matrices are new tensors, made of parts: a buffer would only hold the parts.
        buffer = None if matrices else buffer
        tensors = read_tensors(self._locate(names), buffer=buffer, convert=convert)
        weights: dict[str, torch.Tensor | QuantizedMatrix] = {}
        for name in names:
            if name not in matrices:
                weights[name] = tensors[name]
                continue
            matrix = self._matrices.join(name, [tensors.pop(part) for part in matrices[name]])
            if isinstance(matrix, torch.Tensor):
                weights[name] = self._converted(name, matrix, device, dtype)
            else:
                weights[name] = matrix if device is None else matrix.to(device)
        return {name.removeprefix(prefix): weight for name, weight in weights.items()}

    def read_rows(self, name: str, rows: Sequence[int]) -> list[torch.Tensor]:
        """Single rows of a matrix, each of shape (columns,), without reading the rest of it.

        Raises:
            CheckpointError: for a row that the matrix doesn't have.
        """
        row_count = self.shape(name)[0]
        if out_of_range := [row for row in rows if not 0 <= row < row_count]:
            raise CheckpointError(
                f"{self.name}: row {out_of_range[0]} of {name} is needed, but it has {row_count} "
                "rows: tokenizer and weights don't belong together"
            )
        if (replacement := self._replacement(name)) is not None:
            values = read_rows(replacement, rows, name)
        else:
            values = self._files.read_rows(self._stored_names[name], rows)
        if self.adapter is None or not self.adapter.adds_to(name):
            return values
        return self.adapter.merge_rows(name, rows, values)

    def _names(self, prefix: str) -> list[str]:
        """The names that start with a prefix; looked up in its layer, as there are thousands of
        experts."""
        layer = LAYER.match(prefix)
        names = self.shapes if layer is None else self._layer_names.get(layer[0], ())
        return [name for name in names if name.startswith(prefix)]

    @cached_property
    def _layer_names(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        for name in self.shapes:
            if layer := LAYER.match(name):
                names.setdefault(layer[0], []).append(name)
        return names

    def _stored(self, names: Iterable[str]) -> list[str]:
        """The names in the files of tensors, but for those that an adapter replaces."""
        own = [name for name in names if self._replacement(name) is None]
        parts = chain.from_iterable(map(self._matrices.part_names, own))
        return [self._stored_names[part] for part in parts]

    def _replacement(self, name: str) -> TensorLocation | None:
        return None if self.adapter is None else self.adapter.replacement(name)

    def _locate(self, names: Iterable[str]) -> dict[str, TensorLocation]:
        """Locations of tensors, or their parts, on this machine; see `WeightFiles.locate`."""
        names, found = list(names), dict[str, TensorLocation]()
        locations = self._files.locate(self._stored(names))
        for name in names:
            if (replacement := self._replacement(name)) is not None:
                found[name] = replacement
                continue
            for part in self._matrices.part_names(name):
                found[part] = locations[self._stored_names[part]]
        return found

    def _converted(
        self,
        name: str,
        tensor: torch.Tensor,
        device: torch.device | None,
        dtype: torch.dtype | None,
    ) -> torch.Tensor:
        """A tensor as it is asked for, with what an adapter adds."""
        if self.adapter is None or not self.adapter.adds_to(name):
            return tensor.to(device=device, dtype=dtype)
        return self.adapter.merge(name, tensor.to(device=device), dtype or tensor.dtype)

    def _check_header(self, header: Mapping[str, TensorInfo]) -> None:
        """Raises CheckpointError for tensors of another shape or dtype."""
        for name, stored in self._stored_names.items():
            if (info := header.get(stored)) is None:
                continue
            is_resizable = name in self._resizable
            place = f"{self.name}: tensor {stored}"
            check_stored(info, self._expected[name], place, is_resizable=is_resizable)
            if is_resizable:
                self.shapes[name] = info.shape
