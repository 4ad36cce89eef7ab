"""Packed linear layers: equal results, on processors with and without the instructions."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qwen_audio.weights.prepack import PackedLinear, prepack_linears


@pytest.mark.parametrize("bias", [True, False])
def test_packed_bfloat16_results_are_equal_on_any_processor(bias: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(96, 64, bias=bias), nn.GELU(), nn.Linear(64, 32)).bfloat16()
    rows = torch.randn(3, 40, 96, dtype=torch.bfloat16)
    with torch.inference_mode():
        expected = plain(rows)
        packed = prepack_linears(plain)
        assert torch.equal(packed(rows), expected)
    supported = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert isinstance(plain[0], PackedLinear) is supported


def test_float32_layers_stay_unchanged() -> None:
    linear = nn.Linear(8, 8)
    assert prepack_linears(linear) is linear
