"""The encoder's convolutions: on a GPU they are products, which no setting rounds to TF32."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from qwen_audio.models.components import whisper_encoder
from qwen_audio.models.families.qwen2_audio import Qwen2Audio
from qwen_audio.weights.module_store import ModuleStore

TEXT = {"model_type": "qwen2", "hidden_size": 8, "num_hidden_layers": 1}
AUDIO = {"d_model": 32, "num_mel_bins": 16, "encoder_attention_heads": 4}


class _Operations(TorchDispatchMode):
    """Records the operators that are called, on tensors of any device."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


class _RandomModules(ModuleStore):
    """Random modules on a device, which need not exist within FakeTensorMode."""

    def __init__(self, device: str) -> None:
        self.device, self.dtype = torch.device(device), torch.float32

    def get(self, prefix: str, build: Callable[[], nn.Module]) -> Any:
        with self.device:
            return build().requires_grad_(False)


@pytest.mark.parametrize(("device", "convolves"), [("cpu", True), ("cuda", False)])
def test_nothing_on_a_gpu_is_left_to_cudnns_defaults(device: str, convolves: bool) -> None:
    features = torch.zeros(16, 51)
    family = Qwen2Audio({"audio_config": AUDIO, "text_config": TEXT}, "tiny")
    settings = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    with FakeTensorMode(allow_non_fake_inputs=True), _Operations() as operations:
        frames = family.stem(_RandomModules(device), features, 49)
    assert (frames.shape, frames.device.type) == ((25, 32), device)
    assert any("convolution" in name for name in operations.names) == convolves
    assert any("addmm" in name for name in operations.names) != convolves
    assert settings == (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision())


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("frames", [1, 2, 3, 50, 51])
def test_the_product_is_the_convolution(stride: int, frames: int) -> None:
    torch.manual_seed(frames)
    conv = nn.Conv1d(16, 32, kernel_size=3, stride=stride, padding=1).requires_grad_(False)
    features = torch.randn(16, frames)
    product = whisper_encoder._as_product(conv, features)
    torch.testing.assert_close(product, conv(features[None])[0], rtol=1e-5, atol=1e-6)
