"""Matrices that a checkpoint stores quantised, and checks of the tensors that it consists of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from qwen_audio.errors import CheckpointError

from .matrix_layout import MatrixLayout, StoredTensor
from .quantization import QuantizedMatrix
from .safetensors_file import TensorInfo, tensor_dtype

__all__ = ["StoredMatrices", "check_stored"]

_ADVICE = "give the checkpoint that it was made from"


class StoredMatrices:
    """The matrices of one checkpoint that are stored quantised, as several tensors each.

    Args:
        checkpoint: its name, for error messages.
        layouts: of the matrices, by their names, which end in "weight".

    Attributes:
        formats: of those that are held in memory as they are stored; others are dequantised.
    """

    def __init__(self, checkpoint: str, layouts: Mapping[str, MatrixLayout]) -> None:
        self._checkpoint, self.layouts = checkpoint, dict(layouts)
        forms = {name: layout.form for name, layout in self.layouts.items()}
        self.formats = {name: form for name, form in forms.items() if form is not None}

    def __contains__(self, name: str) -> bool:
        return name in self.layouts

    def part_names(self, name: str) -> list[str]:
        """The tensors that a tensor is stored as: itself, unless it is one of these matrices."""
        if (layout := self.layouts.get(name)) is None:
            return [name]
        return [name.removesuffix("weight") + part for part in layout.parts()]

    def expected(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, StoredTensor]:
        """What is expected of the tensors in the files, from the shapes of all tensors."""
        expected: dict[str, StoredTensor] = {}
        for name, shape in shapes.items():
            layout = self.layouts.get(name)
            parts = [StoredTensor(shape)] if layout is None else layout.parts().values()
            expected |= zip(self.part_names(name), parts, strict=True)
        return expected

    def value_bits(self, name: str, default: int) -> int:
        """Bits of a stored value of a tensor; the default unless it is one of these matrices."""
        layout = self.layouts.get(name)
        return default if layout is None else layout.bits

    def join(self, name: str, parts: Iterable[Tensor]) -> Tensor | QuantizedMatrix:
        """A matrix, from the tensors that `part_names` lists.

        Raises:
            CheckpointError: for content that can't be read.
        """
        layout = self.layouts[name]
        try:
            return layout.join(dict(zip(layout.parts(), parts, strict=True)))
        except ValueError as error:
            raise CheckpointError(
                f"{self._checkpoint}: {name} is quantised in a way that can't be read, as {error}: "
                + _ADVICE
            ) from error


def check_stored(
    info: TensorInfo, expected: StoredTensor, tensor: str, *, is_resizable: bool = False
) -> None:
    """Check a tensor of a file against what is expected.

    Args:
        tensor: checkpoint and name, for error messages.
        is_resizable: it may have another number of rows.

    Raises:
        CheckpointError: for another shape, or a dtype that isn't supported there.
    """
    shape, dtypes = expected
    if shape is not None and info.shape != shape:
        resized = is_resizable and info.shape and info.shape[0] and info.shape[1:] == shape[1:]
        if not resized:
            reason = "config.json and weights don't belong together"
            if 0 in info.shape:
                reason = "DeepSpeed's ZeRO-3 leaves it empty; use its zero_to_fp32.py"
            raise CheckpointError(
                f"{tensor} has shape {info.shape}, but its config requires {shape}: {reason}"
            )
    if not dtypes:
        tensor_dtype(info, tensor)
    elif info.dtype not in dtypes:
        raise CheckpointError(
            f"{tensor} is stored as {info.dtype}, but its quantisation has {' or '.join(dtypes)} "
            f"there: {_ADVICE}"
        )
