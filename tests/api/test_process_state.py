"""Loading and computing in threads leave the state of the process, and other threads', as it is."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.initialization import TORCH_MODULES_TO_PATCH

import qwen_audio as qa
from checkpoints import edit_json, random_checkpoint
from qwen_audio.weights.meta_device import empty_module
from qwen_audio.weights.tensor_store import TensorStore
from reference import sound

RATE: dict[str, Any] = {"sampling_rate": 16_000}


def process_state() -> dict[str, Any]:
    """What torch, transformers and Python keep for a whole process, or for this thread."""
    functions = {
        f"{name}.{function}": getattr(sys.modules[name], function)
        for name in TORCH_MODULES_TO_PATCH
        if name in sys.modules
        for function in dir(sys.modules[name])
        if function.endswith("_") and not function.startswith("_")
    }
    return {
        **functions,
        "init_weights": PreTrainedModel.init_weights,
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "device context": torch.utils._device.CURRENT_DEVICE,
        "modes": torch.overrides._get_current_function_mode_stack(),
        "threads": torch.get_num_threads(),
        "grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "random": torch.get_rng_state().tolist(),
        "warnings": list(warnings.filters),
        "showwarning": warnings.showwarning,
        "import": list(sys.meta_path),
        "levels": [logging.getLogger(name).level for name in ("", "transformers", "torch")],
    }


@pytest.fixture(autouse=True)
def unchanged_process() -> Iterator[None]:
    """No test leaves the process in another state."""
    before = process_state()
    yield
    assert process_state() == before


def standard_deviation() -> float:
    """Of a user's layer, as torch initialises it: 1 / sqrt(3 * 100) = 0.058."""
    with torch.random.fork_rng([]):
        return float(nn.Linear(100, 100).weight.std().detach())


def test_modules_built_in_overlapping_threads() -> None:
    """The first thread to begin is the first to end; meanwhile a user builds a layer."""
    begun, ended, looked = threading.Event(), threading.Event(), threading.Event()

    def first() -> nn.Module:
        assert begun.wait(5)
        return nn.Linear(2, 2)

    def second() -> nn.Module:
        begun.set()
        assert ended.wait(5)
        assert looked.wait(5)
        return nn.LayerNorm(2)

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(empty_module, first)
        other = pool.submit(empty_module, second)
        one_module = one.result(5)
        ended.set()
        assert standard_deviation() == pytest.approx(0.058, rel=0.05)
        assert torch.ones(1).device == torch.device("cpu")
        looked.set()
        modules = [one_module, other.result(5)]
    assert {p.device.type for module in modules for p in module.parameters()} == {"meta"}
    assert standard_deviation() == pytest.approx(0.058, rel=0.05)


def test_a_module_that_cannot_be_built() -> None:
    with pytest.raises(ZeroDivisionError):
        empty_module(lambda: nn.Linear(1 // 0, 1))


def test_models_loaded_in_four_threads(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All at once, one of them from a disk that fails; each gives what it gives alone."""
    expected = qa.load(checkpoint).encode(sound(0.5), tap="lm.norm", **RATE)
    barrier, read = threading.Barrier(4, timeout=20), TensorStore.read_weights
    failing = threading.local()

    def broken_read(self: Any, prefix: str, **options: Any) -> Any:
        if getattr(failing, "is_set", False):
            raise OSError("input/output error")
        return read(self, prefix, **options)

    monkeypatch.setattr(TensorStore, "read_weights", broken_read)

    def load(number: int) -> Any:
        failing.is_set = number == 0
        barrier.wait()
        try:
            return qa.load(checkpoint).encode(sound(0.5), tap="lm.norm", **RATE)
        except OSError as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        error, *vectors = pool.map(load, range(4))
    assert error == "input/output error"
    assert all((vector == expected).all() for vector in vectors)
    assert standard_deviation() == pytest.approx(0.058, rel=0.05)


def test_a_parity_check_of_a_16_bit_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers sets torch's default dtype to that of the configuration while it builds."""
    folder = random_checkpoint(tmp_path)
    edit_json(folder / "config.json", dtype="bfloat16", text_config__dtype="bfloat16")
    set_dtypes: list[torch.dtype] = []
    monkeypatch.setattr(torch, "set_default_dtype", set_dtypes.append)
    assert qa.load(folder, dtype="float32").check_parity([sound_waveform()]).holds
    assert not set_dtypes


def sound_waveform() -> qa.Waveform:
    return qa.Waveform(sound(0.5))
