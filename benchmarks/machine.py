"""Machine and package versions recorded with each result, and what a benchmark requires of them."""

from __future__ import annotations

import os
import platform
from importlib import metadata, util
from pathlib import Path

from .benchmark import SkipBenchmark

__all__ = ["available_bytes", "gpu", "machine", "require_linux", "require_packages", "versions"]

_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd")
"""Instruction sets that decide the speed of bfloat16 and int8."""


def machine(threads: int) -> dict[str, object]:
    """Processor, instruction sets, cores, threads used, memory and system."""
    cpu_info = _cpu_info()
    flags = cpu_info.get("flags", "").split()
    return {
        "processor": cpu_info.get("model name") or platform.processor() or platform.machine(),
        "instructions": [name for name in _INSTRUCTIONS if name in flags],
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.system(),
    }


def gpu(device: str) -> dict[str, object]:
    """Name, memory and CUDA of a GPU; nothing of a CPU."""
    if device == "cpu":
        return {}
    import torch

    properties = torch.cuda.get_device_properties(device)
    return {
        "gpu": properties.name,
        "gpu_memory_gb": round(properties.total_memory / 1e9, 1),
        "cuda": torch.version.cuda,
    }


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python, of the libraries that all workloads use, and of `packages`."""
    names = ("torch", "transformers", "safetensors", "numpy", *packages)
    return {"python": platform.python_version()} | {
        name: metadata.version(name) for name in dict.fromkeys(names)
    }


def require_packages(*packages: str) -> None:
    """Check that peers are installed.

    Raises:
        SkipBenchmark: naming those that aren't.
    """
    if missing := [name for name in packages if util.find_spec(name) is None]:
        names = ", ".join(missing)
        raise SkipBenchmark(f"{names} not installed: install the dependency group 'bench'")


def require_linux() -> None:
    """Check that this process's memory and disk reads can be measured.

    Raises:
        SkipBenchmark: on another system.
    """
    if not Path("/proc/self/io").exists():
        raise SkipBenchmark("disk reads and peak memory are read from Linux's /proc")


def available_bytes() -> int:
    """Memory available without swapping; 0 where the system doesn't report it."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if "MemAvailable" in line), 0)


def _cpu_info() -> dict[str, str]:
    """Fields of the first processor in /proc/cpuinfo; empty on other systems."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n", 1)[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    return {key.strip().lower(): value.strip() for key, _, value in pairs}
