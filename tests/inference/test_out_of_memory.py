"""A device that is out of memory: one error that says what was needed, and a model that goes on."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, Qwen2RMSNorm
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoderLayer

import qwen_audio as qa
from reference import sound

RATE: dict[str, Any] = {"sampling_rate": 16_000}
CLIP = sound(0.3)


def cuda_error() -> None:
    raise torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 1.95 GiB. GPU 0 has a total capacity of 7.79 GiB of "
        "which 1.02 GiB is free.\nIncluding non-PyTorch memory, this process has 6.67 GiB in use."
    )


def apple_error() -> None:
    raise RuntimeError(
        "MPS backend out of memory (MPS allocated: 17.65 GiB, max allowed: 18.13 GiB). Tried to "
        "allocate 563.62 MiB on private pool."
    )


def cpu_error() -> None:
    torch.empty(10**15)


def library_error() -> None:
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)")


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> qa.AudioModel:
    return qa.load(checkpoint, max_memory="8GB")


@pytest.fixture
def fail_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[type, Callable[[], None]], list[Any]]:
    """Have the next call of a layer fail; returns references to the rows that it was given."""

    def install(layer: type[Any], fail: Callable[[], None]) -> list[Any]:
        forward, rows = layer.forward, list[Any]()

        def failing(module: Any, *args: Any, **options: Any) -> Any:
            if not rows:
                rows.append(weakref.ref(args[0]))
                fail()
            return forward(module, *args, **options)

        monkeypatch.setattr(layer, "forward", failing)
        return rows

    return install


@pytest.mark.parametrize(
    ("fail", "needed"),
    [
        (cuda_error, ", and needed 2.1 GB more at once"),
        (apple_error, ", and needed 0.6 GB more at once"),
        (cpu_error, ", and needed 4000000.0 GB more at once"),
        (library_error, ""),
    ],
)
def test_the_error_says_what_was_needed_and_what_to_do(
    model: qa.AudioModel, fail_in: Any, fail: Callable[[], None], needed: str
) -> None:
    expected = model.encode(CLIP, **RATE)
    rows = fail_in(Qwen2AudioEncoderLayer, fail)
    with pytest.raises(qa.OutOfMemoryError) as raised:
        model.encode(CLIP, **RATE)
    message = str(raised.value)
    assert message.startswith("cpu is out of memory (this process holds ")
    assert f"B{needed}): free what other programs take" in message
    assert message.endswith(
        "use max_memory='6400MB', dtype='bfloat16', quantize='int4', shorter windows "
        "(window_seconds=10), or a shallower tap"
    )
    assert isinstance(raised.value, MemoryError)
    assert rows[0]() is None  # freed, although the error is still there
    np.testing.assert_array_equal(model.encode(CLIP, **RATE), expected)


@pytest.mark.parametrize(
    ("layer", "compute"),
    [
        (Qwen2DecoderLayer, lambda model: model.encode(CLIP, tap="lm.2", **RATE)),
        (Qwen2DecoderLayer, lambda model: model.describe(CLIP, max_new_tokens=2, **RATE)),
        (Qwen2AudioEncoderLayer, lambda model: model.describe(CLIP, max_new_tokens=2, **RATE)),
        (Qwen2AudioEncoderLayer, lambda model: model.session(CLIP, **RATE).ask(max_new_tokens=2)),
        (Qwen2DecoderLayer, lambda model: model.session(CLIP, **RATE).ask(max_new_tokens=2)),
        (Qwen2DecoderLayer, lambda model: model.activations(CLIP, taps=["lm.1"], **RATE)),
        (Qwen2RMSNorm, lambda model: model.lens(CLIP, **RATE)),
    ],
)
def test_wherever_it_happens(model: qa.AudioModel, fail_in: Any, layer: type, compute: Any) -> None:
    fail_in(layer, cuda_error)
    with pytest.raises(qa.OutOfMemoryError, match=r"2\.1 GB more"):
        compute(model)
    compute(model)


def test_other_errors_stay_what_they_are(model: qa.AudioModel, fail_in: Any) -> None:
    def fail() -> None:
        raise RuntimeError("shapes")

    fail_in(Qwen2AudioEncoderLayer, fail)
    with pytest.raises(RuntimeError, match=r"^shapes$"):
        model.encode(CLIP, **RATE)


def test_no_limit_is_advised_that_is_too_little(checkpoint: Path, fail_in: Any) -> None:
    least = qa.load(checkpoint, dtype="bfloat16").cost("text").min_memory_bytes
    model = qa.load(checkpoint, dtype="bfloat16", max_memory=least)
    fail_in(Qwen2AudioEncoderLayer, cuda_error)
    with pytest.raises(qa.OutOfMemoryError, match=r"take, or use quantize='int4', shorter win"):
        model.encode(CLIP, **RATE)
