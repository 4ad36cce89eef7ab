"""The layout of weights that torch's int4 kernel takes on this processor.

It depends on the instructions that torch uses, so it is never stored, and it isn't documented: what
torch packs is compared with what is packed here before that is relied on.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from .quantization import pack_nibbles, unpack_nibbles

__all__ = ["int4_block_rows", "pack_int4"]


def pack_int4(values: Tensor, block_rows: int) -> Tensor:
    """Pairs of columns in a byte → the layout of torch's int4 kernel on x86.

    Blocks of `block_rows` rows, column by column: a byte holds a row of the block's first half, and
    in its high bits the one as far into the second.
    """
    rows, half_columns = values.shape
    packed = values.new_empty(rows // block_rows, 2 * half_columns, block_rows // 2)
    for block, part in zip(packed, values.split(block_rows), strict=True):
        columns = unpack_nibbles(part).T
        torch.bitwise_or(
            columns[:, : block_rows // 2], columns[:, block_rows // 2 :] << 4, out=block
        )
    return packed.view(rows, half_columns)


@cache
def int4_block_rows() -> int:
    """Rows of a block in the layout of torch's int4 kernel here; 0 if there is no fast kernel, or
    its layout is another.

    Tried on a small matrix, once in a process.
    """
    if not hasattr(torch, "_convert_weight_to_int4pack_for_cpu"):
        return 0
    values = torch.randint(0, 16, (128, 64), generator=torch.Generator().manual_seed(0))
    for block_rows, capability in ((64, "AVX512"), (32, "AVX2")):
        if torch.backends.cpu.get_cpu_capability() != capability:
            continue
        expected = torch._convert_weight_to_int4pack_for_cpu(values.int(), 2)
        packed = pack_int4(pack_nibbles(values.to(torch.uint8)), block_rows)
        if torch.equal(packed.flatten(), expected.flatten()):
            return block_rows
    return 0
