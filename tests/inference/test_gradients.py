"""Gradients of hidden states, against transformers' autograd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import qwen_audio as qa
from edit_hooks import PROMPT, edited, rows_of
from qwen_audio.weights.prepack import prepack_linears
from reference import Reference, relative_error, sound

RATE: dict[str, Any] = {"sampling_rate": 16_000}
CLIP = sound(1.0)


def leaf_gradient(reference: Reference, tap: str) -> np.ndarray:
    """transformers' gradient of a sum of logits by the rows of a tap."""
    inputs = reference.inputs([CLIP], [PROMPT])
    span = "all" if tap.startswith("lm") else "audio"
    rows, leaf = rows_of(reference, inputs, tap, span), list[Tensor]()

    def record(values: Tensor) -> Tensor:
        leaf.append(values.detach().requires_grad_())
        return leaf[0]

    if tap == "mel":
        leaf.append(inputs["input_features"][0, :, rows].T.clone().requires_grad_())
        rest = inputs["input_features"][0, :, rows.stop :]
        inputs["input_features"] = torch.cat([leaf[0].T, rest], dim=1)[None]
        logits = reference.model(**inputs).logits
    else:
        with edited(reference, tap, rows, record):
            logits = reference.model(**inputs).logits
    logits[0, -1, :50].square().sum().backward()
    assert leaf[0].grad is not None
    return leaf[0].grad.numpy()


@pytest.mark.slow
@pytest.mark.parametrize("tap", ["mel", "encoder.1", "projector", "lm.1", "lm.2.mlp"])
def test_gradients_equal_those_of_transformers(checkpoint: Path, tap: str) -> None:
    model, reference = qa.load(checkpoint, dtype="float32"), Reference(checkpoint)
    expected = leaf_gradient(reference, tap)
    clips = [sound(1.4, seed=3), CLIP]
    states = model.activations(
        clips, taps=[tap, "lm.norm"], return_tensors="pt", requires_grad=True, **RATE
    )[1]
    head = model.pipeline.checkpoint.family.lm_head(model.pipeline.modules)
    head(states["lm.norm"].data[-1])[:50].square().sum().backward()
    leaf = states[tap].data
    assert leaf.is_leaf
    assert leaf.grad is not None
    assert relative_error(leaf.grad.numpy(), expected) <= 1e-5
    assert not any(weight.requires_grad for weight in head.parameters())


def test_packed_products_have_gradients() -> None:
    linear = nn.Linear(40, 24).bfloat16()
    module = prepack_linears(nn.Sequential(linear))
    rows = torch.randn(7, 40, dtype=torch.bfloat16, requires_grad=True)
    module(rows).float().square().sum().backward()
    other = rows.detach().clone().requires_grad_()
    linear(other).float().square().sum().backward()
    torch.testing.assert_close(rows.grad, other.grad, rtol=2e-2, atol=2e-2)


def test_what_has_no_gradient_is_one_line(checkpoint: Path) -> None:
    model = qa.load(checkpoint, dtype="float32")
    options: dict[str, Any] = {"taps": ["lm.1"], "requires_grad": True, **RATE}
    with pytest.raises(qa.OptionError, match="needs return_tensors='pt'"):
        model.activations(CLIP, **options)
    options["return_tensors"] = "pt"
    with pytest.raises(qa.OptionError, match="generated tokens have no gradient"):
        model.activations(CLIP, generate=2, **options)
    with pytest.raises(qa.OptionError, match="is 3 windows, computed apart"):
        model.activations(CLIP, window_seconds=0.4, **options)
    small = qa.load(
        checkpoint, dtype="float32", max_memory=model.cost("lm.3").min_memory_bytes + 400_000
    )
    with pytest.raises(qa.OptionError, match="don't fit in memory"):
        small.activations(CLIP, **{**options, "taps": ["lm.3"]})


@pytest.mark.slow
def test_quantised_weights_have_no_gradient(checkpoint: Path) -> None:
    model = qa.load(checkpoint, dtype="float32", quantize="int8")
    with pytest.raises(qa.OptionError, match="is quantised"):
        model.activations(CLIP, taps=["lm.1"], return_tensors="pt", requires_grad=True, **RATE)
