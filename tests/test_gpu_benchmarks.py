"""The benchmarks of a GPU: skipped without one, and a row of figures for each way to load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks import gpu
from benchmarks.benchmark import Settings, SkipBenchmark
from benchmarks.rounds import Rounds

STEPS = {"transformers": 6.0, "ours": 3.0, "int4": 2.0}


@pytest.mark.parametrize("name", gpu.GPU_BENCHMARKS)
def test_skipped_without_a_gpu(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SkipBenchmark, match="no NVIDIA GPU"):
        gpu.GPU_BENCHMARKS[name](Settings(tmp_path, threads=1))
    assert not list(tmp_path.iterdir())


def test_a_way_to_load_is_a_row_of_figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: dict[str, Any] = {}

    def run(settings: Settings, jobs: dict[str, tuple[str, dict[str, Any]]]) -> Rounds:
        assert settings.quick
        rounds = Rounds(jobs)
        for name, job in jobs.items():
            given[name] = job[1]
            times = {
                key: [1.0, STEPS[name], 1.0] for key in ("first_token_seconds", "step_seconds")
            }
            for _turn in range(3):
                rounds.add(name, {**times, "seconds": 1.0, "peak_gb": 2.0})
        return rounds

    monkeypatch.setattr(gpu, "run_interleaved", run)
    monkeypatch.setattr(gpu, "random_checkpoint", lambda work, shape: work / shape.name)
    monkeypatch.setattr(gpu, "VARIANTS", gpu.VARIANTS | {"int4": {"quantize": "int4"}})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = gpu.gpu_decode(Settings(tmp_path, threads=1, quick=True))
    assert {name: options.get("quantize") for name, options in given.items()} == {
        "transformers": None,
        "ours": None,
        "int4": "int4",
    }
    assert result.ratio == result.figures["ours_8x5s_ratio"] == 2
    assert result.figures["int4_8x5s_ratio"] == 3
    assert result.figures["int4_8x5s_seconds"] == 2
