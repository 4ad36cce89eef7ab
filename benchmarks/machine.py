"""What a number was measured on."""

from __future__ import annotations

import os
import platform
from importlib import metadata, util
from pathlib import Path

from .benchmark import Missing

__all__ = ["available_bytes", "machine", "need", "versions"]

_EXTENSIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd")


def machine(threads: int) -> dict[str, object]:
    """Processor, cores, threads used, memory; and the instructions that decide low precision."""
    facts = _processor()
    return {
        "processor": facts.get("model name") or platform.processor() or platform.machine(),
        "instructions": [name for name in _EXTENSIONS if name in facts.get("flags", "").split()],
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.system(),
    }


def versions(*packages: str) -> dict[str, str]:
    """Of Python, of what both sides stand on, and of the packages named."""
    named = ("torch", "transformers", "safetensors", "numpy", *packages)
    return {"python": platform.python_version()} | {
        name: metadata.version(name) for name in dict.fromkeys(named)
    }


def need(*packages: str) -> None:
    """Raises Missing where a peer isn't installed."""
    if absent := [name for name in packages if util.find_spec(name) is None]:
        raise Missing(f"{', '.join(absent)} not installed: install the dependency group 'bench'")


def available_bytes() -> int:
    """Memory that could be taken without swapping; 0 where the system doesn't say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if "MemAvailable" in line), 0)


def _processor() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n", 1)[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    return {key.strip().lower(): value.strip() for key, _, value in pairs}
