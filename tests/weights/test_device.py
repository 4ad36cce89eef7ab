"""Device, dtype and memory limits: what is given, and what is resolved."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from torch._subclasses.fake_tensor import FakeTensorMode

import qwen_audio as qa
from checkpoints import edit_json, random_checkpoint
from commands import run
from qwen_audio.errors import OptionError
from qwen_audio.inference import pooling as pooling_module
from qwen_audio.inference.pooling import Pooling
from qwen_audio.weights import device as device_module
from qwen_audio.weights.device import (
    available_bytes,
    float64_device,
    resolve_device,
    resolve_dtype,
)
from qwen_audio.weights.option_values import resolve_bytes
from reference import sound

CPU = torch.device("cpu")
RATE: dict[str, Any] = {"sampling_rate": 16_000}


@pytest.mark.parametrize(
    ("memory", "byte_count"),
    [
        ("4GB", 4 * 10**9),
        ("3.5 GiB", 7 * 2**29),
        (10**9, 10**9),
        ("1000", 1000),
        (" 12 mb ", 12 * 10**6),
        ("0.5kB", 500),
        ("2KiB", 2048),
        ("1.5TB", 1_500_000_000_000),
        ("1 TiB", 2**40),
        ("7B", 7),
        (2.5e9, 2_500_000_000),
        (0, 0),
        (None, None),
    ],
)
def test_memory_limits_as_text_and_numbers(memory: Any, byte_count: int | None) -> None:
    assert resolve_bytes(memory) == byte_count


@pytest.mark.parametrize(
    "memory",
    [
        *(True, float("nan"), float("inf")),
        "",
        "GB",
        "4 gigabytes",
        "-1GB",
        -1,
        "4GBs",
        "4 G B",
        "1,5GB",
        "iB",
        "4i",
        "1e3MB",
        "4EB",
    ],
)
def test_invalid_memory_limits(memory: Any) -> None:
    with pytest.raises(OptionError, match=r"max_memory=.*'4GB'") as raised:
        resolve_bytes(memory)
    assert "\n" not in str(raised.value)


CPU_CAPABILITIES: dict[str, tuple[dict[str, bool], bool]] = {
    "none": ({"avx2": True, "avx512_f": True}, False),
    "AVX-512 without bfloat16": ({"avx512_bf16": False, "amx_bf16": False}, False),
    "AVX-512 with bfloat16": ({"avx512_bf16": True}, True),
    "AMX": ({"amx_bf16": True}, True),
    "ARM": ({"bf16": True}, True),
}


@pytest.mark.parametrize("name", CPU_CAPABILITIES)
def test_default_dtype_by_processor_instructions(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    capabilities, fast = CPU_CAPABILITIES[name]
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    expected = torch.bfloat16 if fast else torch.float32
    assert resolve_dtype(None, torch.bfloat16, CPU) is expected
    for stored in (torch.float32, torch.float16, torch.float64):
        assert resolve_dtype(None, stored, CPU) is torch.float32
    assert resolve_dtype("float32", torch.bfloat16, CPU) is torch.float32
    assert resolve_dtype("bfloat16", torch.float32, CPU) is torch.bfloat16
    assert resolve_dtype("torch.float16", torch.float32, CPU) is torch.float16


@pytest.mark.parametrize(
    ("capability", "fast"),
    [((7, 0), False), ((7, 5), False), ((8, 0), True), ((8, 9), True), ((12, 0), True)],
)
def test_bfloat16_is_not_chosen_where_a_gpu_emulates_it(
    capability: tuple[int, int], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is float16 in its place, which ends where the Qwen2 models' activations go on."""
    gpus = {torch.device("cuda:1"): capability, torch.device("cuda:0"): (8, 6)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", gpus.__getitem__)
    gpu = torch.device("cuda:1")
    assert resolve_dtype(None, torch.bfloat16, gpu) is (torch.bfloat16 if fast else torch.float32)
    for stored in (torch.float16, torch.float32):
        assert resolve_dtype(None, stored, gpu) is stored
    assert resolve_dtype(None, torch.float64, gpu) is torch.float32
    for name in ("float16", "bfloat16"):
        assert resolve_dtype(name, torch.bfloat16, gpu) is getattr(torch, name)


@pytest.mark.parametrize(("device", "number"), [("cuda", 1), ("cuda:3", 3), (None, 1)])
def test_a_gpu_is_the_same_in_every_thread(
    device: str | None, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a current one of its own, and weights are read in another thread."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    with FakeTensorMode():  # in which there are as many GPUs as one likes
        assert resolve_device(device) == torch.device("cuda", number)


def test_memory_that_torch_keeps_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a GPU: a second model would else be streamed, or refused."""
    gpu, held = torch.device("cuda:1"), {"reserved": 5, "allocated": 2}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3, 8) if device == gpu else 0)
    for name, count in held.items():
        monkeypatch.setattr(
            torch.cuda, f"memory_{name}", lambda device, n=count: n if device == gpu else 0
        )
    assert available_bytes(gpu) == 6


@pytest.mark.parametrize("macos", [13, 14])
def test_dtypes_of_an_apple_gpu(macos: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before macOS 14 it has no bfloat16; it never has float64."""
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, _: macos >= major)
    gpu = torch.device("mps")  # need not exist
    in_bfloat16 = resolve_dtype(None, torch.bfloat16, gpu)
    assert in_bfloat16 is (torch.bfloat16 if macos >= 14 else torch.float32)
    assert resolve_dtype(None, torch.float16, gpu) is torch.float16
    assert resolve_dtype(None, torch.float64, gpu) is torch.float32
    assert float64_device(gpu) == CPU
    assert float64_device(torch.device("cuda:1")) == torch.device("cuda:1")


def test_an_apple_gpu_is_offered_and_not_taken(
    monkeypatch: pytest.MonkeyPatch, bfloat16_checkpoint: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    clip = tmp_path / "a.wav"
    soundfile.write(clip, sound(0.2), 16_000)
    arguments = ("encode", clip, "--model", bfloat16_checkpoint, "-o", tmp_path / "a.npz")
    for is_there in (True, False):
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda there=is_there: there)
        assert resolve_device(None) == CPU
        assert ("--device mps uses it (untested" in run(*arguments).stderr) == is_there
        assert "mps" not in run(*arguments, "--device", "cpu").stderr


def test_means_are_taken_where_float64_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a device without it go to the CPU first; here it is torch's "meta" that stands for
    the place."""
    monkeypatch.setattr(pooling_module, "float64_device", lambda _: torch.device("meta"))
    for name in ("mean", "mean+std"):
        pooled = Pooling(name, device=CPU).pool_window(torch.ones(4, 3), (("audio", 4),))
        assert (pooled.values.device.type, pooled.values.dtype) == ("meta", torch.float64)


@pytest.mark.parametrize("limited", [True, False])
def test_memory_of_any_system(limited: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What psutil says, an Apple GPU's too, as it shares it; less in a container with a limit."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=8 * 10**9))
    limit = 10**9 if limited else 2**63
    monkeypatch.setattr(device_module, "_cgroup_available_bytes", lambda: limit)
    for name in ("cpu", "mps"):
        assert available_bytes(torch.device(name)) == (10**9 if limited else 8 * 10**9)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"memory.max": "3000\n", "memory.current": "1000\n"}, 2000),
        ({"memory.max": "max\n", "memory.current": "1000\n"}, 2**63),
        ({}, 2**63),  # no cgroups, as on macOS and Windows
    ],
)
def test_limits_of_containers(
    files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(device_module, "_CGROUP", tmp_path)
    assert device_module._cgroup_available_bytes() == expected


@pytest.fixture(scope="module")
def bfloat16_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as released: stored in bfloat16, with that dtype in its config."""
    folder = random_checkpoint(tmp_path_factory.mktemp("bfloat16"), encoder_layers=1, lm_layers=1)
    for file in folder.glob("*.safetensors"):
        save_file({name: t.bfloat16() for name, t in load_file(file).items()}, file)
    edit_json(folder / "config.json", dtype="bfloat16")
    return folder


@pytest.mark.parametrize("fast", [True, False])
def test_every_result_states_its_dtype(
    fast: bool, bfloat16_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": fast})
    model = qa.load(bfloat16_checkpoint, device="cpu")
    expected = "bfloat16" if fast else "float32"
    assert model.dtype == model.spec().dtype == expected
    activations = model.activations(sound(0.3), taps=["mel", "encoder.1", "lm.norm"], **RATE)
    for hidden_states in activations.values():
        assert hidden_states.dtype == expected
        assert hidden_states.data.dtype.name == "float32"
        assert expected in repr(hidden_states)
    assert expected in repr(model)
    rows = torch.from_numpy(activations["lm.norm"].data)
    assert torch.equal(rows.bfloat16().float(), rows) == fast
    assert qa.load(bfloat16_checkpoint, dtype="float32").dtype == "float32"


def test_another_dtype_is_another_spec(bfloat16_checkpoint: Path) -> None:
    specs = [qa.load(bfloat16_checkpoint, dtype=name).spec() for name in ("float32", "bfloat16")]
    assert specs[0].fingerprint != specs[1].fingerprint


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="needs Linux' /proc/meminfo")
def test_available_memory_is_the_kernels_figure() -> None:
    lines = Path("/proc/meminfo").read_text().splitlines()
    fields = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    available = available_bytes(CPU)
    assert 0 < available < fields["MemTotal"]
    assert available == pytest.approx(fields["MemAvailable"], rel=0.2, abs=1e9)


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "", "cpu:x"])
def test_unavailable_devices(device: str) -> None:
    with pytest.raises(OptionError, match="try 'cpu'") as raised:
        resolve_device(device)
    assert "\n" not in str(raised.value)


def test_a_memory_limit_of_zero_is_not_unlimited(bfloat16_checkpoint: Path) -> None:
    """0 is a limit; only None means that none was given."""
    model = qa.load(bfloat16_checkpoint, max_memory=0)
    with pytest.raises(OptionError, match="max_memory"):
        model.encode(sound(0.3), **RATE)
