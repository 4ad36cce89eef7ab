"""Benchmarks of peers in environments of their own: skipped without one, with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks import ggml
from benchmarks.benchmark import Settings, SkipBenchmark


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="skipped for another reason there")
def test_skipped_without_an_environment(tmp_path: Path) -> None:
    with pytest.raises(SkipBenchmark, match="--llama-cpp names its environment"):
        ggml.ggml(Settings(tmp_path, threads=1))
    with pytest.raises(SkipBenchmark, match="no virtual environment"):
        ggml.ggml(Settings(tmp_path, threads=1, llama_cpp=tmp_path / "missing"))
    assert not list(tmp_path.iterdir())
