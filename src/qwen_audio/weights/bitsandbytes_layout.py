"""Matrices in the layouts of bitsandbytes: 8 bits with a scale a row, nf4 and fp4.

For a layer of `rows` output and `columns` input features, in 8 bits:

| tensor | dtype, shape | content |
| --- | --- | --- |
| `weight` | int8 (rows, columns) | |
| `SCB` | float32 (rows) | largest absolute weight of each row, which 127 stands for |
| `weight_format` | uint8 () | 0: by rows; may be left out |

In 4 bits:

| tensor | dtype, shape | content |
| --- | --- | --- |
| `weight` | uint8 (rows × columns / 2, 1) | two values, the first in the high bits |
| `weight.quant_map` | float32 (16) | what each value stands for |
| `weight.absmax` | float32 (blocks) | largest absolute weight of each block; nested: uint8 |
| `weight.nested_absmax`, `.nested_quant_map` | float32 | nested: scales of the scales, their map |
| `weight.quant_state.bitsandbytes__nf4` | uint8 | JSON: sizes of blocks, dtype, shape, offset |

The 16 values of nf4 aren't equally spaced, so that no product of whole numbers gives them: such a
matrix is dequantised when it is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .matrix_layout import MatrixLayout, StoredTensor
from .quantization import LinearFormat, QuantizedMatrix

__all__ = ["BitsAndBytes4Layout", "BitsAndBytes8Layout"]

_MAP, _ABSMAX, _STATE = "weight.quant_map", "weight.absmax", "weight.quant_state.bitsandbytes__"
_NESTED_MAP, _NESTED_ABSMAX = "weight.nested_quant_map", "weight.nested_absmax"
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_CHUNK_VALUES = 1 << 22
"""That are dequantised at a time: 16 MB in float32."""


@dataclass(frozen=True)
class BitsAndBytes8Layout(MatrixLayout):
    """8 bits with a scale a row.

    Attributes:
        states_format: `weight_format` is stored.
    """

    states_format: bool

    bits = 8

    @property
    def form(self) -> LinearFormat:
        """See `MatrixLayout.form`."""
        return LinearFormat(8)

    def parts(self) -> Mapping[str, StoredTensor]:
        """See `MatrixLayout.parts`."""
        parts = {
            "weight": StoredTensor((self.rows, self.columns), ("I8",)),
            "SCB": StoredTensor((self.rows,)),
        }
        if self.states_format:
            parts["weight_format"] = StoredTensor(None, ("U8",))
        return parts

    def join(self, parts: Mapping[str, Tensor]) -> QuantizedMatrix:
        """See `MatrixLayout.join`."""
        if self.states_format and parts["weight_format"].any():
            raise ValueError("its weights are in the layout of a GPU, not by rows")
        return QuantizedMatrix(8, parts["weight"], parts["SCB"].float().unsqueeze(1) / 127)


@dataclass(frozen=True)
class BitsAndBytes4Layout(MatrixLayout):
    """nf4 and fp4.

    Attributes:
        code: "nf4" or "fp4".
        is_nested: scales are quantised, too ("double quantisation").
    """

    code: str
    is_nested: bool

    @property
    def form(self) -> None:
        """See `MatrixLayout.form`."""
        return

    @property
    def kind(self) -> str:
        """See `MatrixLayout.kind`."""
        return self.code

    def parts(self) -> Mapping[str, StoredTensor]:
        """See `MatrixLayout.parts`."""
        parts = {
            "weight": StoredTensor((self.rows * self.columns // 2, 1), ("U8",)),
            _MAP: StoredTensor((16,)),
            _ABSMAX: StoredTensor(None, ("U8",) if self.is_nested else ()),
            _STATE + self.code: StoredTensor(None, ("U8",)),
        }
        if self.is_nested:
            parts |= {_NESTED_MAP: StoredTensor((256,)), _NESTED_ABSMAX: StoredTensor(None)}
        return parts

    def join(self, parts: Mapping[str, Tensor]) -> Tensor:
        """The matrix in the dtype that bitsandbytes dequantises it to."""
        state = _parse_state(parts[_STATE + self.code])
        if tuple(state.get("shape") or ()) != (self.rows, self.columns):
            raise ValueError(f"it is of shape {state.get('shape')}")
        if (dtype := _DTYPES.get(str(state.get("dtype")))) is None:
            raise ValueError(f"it is of dtype {state.get('dtype')!r:.40}")
        scales = parts[_ABSMAX]
        if self.is_nested:
            scales = _scaled(
                parts[_NESTED_MAP][scales.long()],
                parts[_NESTED_ABSMAX],
                _whole_number(state, "nested_blocksize"),
            )
            scales = scales + float(state.get("nested_offset", 0))
        block_size = _whole_number(state, "blocksize")
        packed = parts["weight"].flatten()
        code = parts[_MAP].float()
        byte_values = torch.stack(torch.meshgrid(code, code, indexing="ij"), -1).view(256, 2)
        matrix = torch.empty(self.rows * self.columns, dtype=dtype)
        step = block_size * max(1, _CHUNK_VALUES // block_size)
        for first in range(0, len(matrix), step):
            pairs = packed[first // 2 : (first + step) // 2]
            block_scales = scales[first // block_size : (first + step) // block_size]
            values = nn.functional.embedding(pairs.int(), byte_values).flatten()
            matrix[first : first + step] = _scaled(values, block_scales, block_size)
        return matrix.view(self.rows, self.columns)


def _scaled(values: Tensor, scales: Tensor, block_size: int) -> Tensor:
    """Values in blocks, the last of which may be shorter, each times its scale, in float32."""
    whole = len(values) // block_size
    if len(scales) * block_size < len(values):
        raise ValueError("it has fewer scales than blocks")
    scaled = values.float()
    scaled[: whole * block_size].view(whole, block_size).mul_(scales[:whole, None].float())
    scaled[whole * block_size :].mul_(scales[whole : whole + 1].float())
    return scaled


def _parse_state(data: Tensor) -> dict[str, Any]:
    try:
        state = json.loads(bytes(data.numpy()))
    except ValueError as error:
        raise ValueError(f"its quant_state is not JSON ({error})") from error
    if not isinstance(state, dict):
        raise ValueError("its quant_state is not a JSON object")
    return state


def _whole_number(state: Mapping[str, Any], name: str) -> int:
    size = state.get(name)
    if not isinstance(size, int) or size < 2 or size % 2:
        raise ValueError(f"its {name} is {size!r:.40}")
    return size
