"""`qwen-audio quantize`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commands import run


def test_a_folder_that_model_takes(checkpoint: Path, tmp_path: Path) -> None:
    done = run("quantize", checkpoint, tmp_path / "out", "--quantize", "int8")
    assert (done.returncode, done.stderr) == (0, "")
    size = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert done.stdout == f"{tmp_path / 'out'}: {size / 1e6:.0f} MB, int8; load it with --model\n"
    again = run("quantize", checkpoint, tmp_path / "out")
    assert again.returncode == 1
    assert again.stderr.endswith("exists: name another folder, or replace it with --force\n")
    done = run("quantize", checkpoint, tmp_path / "out", "--force", "--json")
    quantization = "int4-g32+head-int8"
    assert json.loads(done.stdout)["quantization"] == quantization
    taps = run("taps", "--model", tmp_path / "out", "--json")
    assert json.loads(taps.stdout.splitlines()[0])["quantization"] == f"ct-{quantization}"
    assert run("quantize", checkpoint, tmp_path / "b", "--quantize", "int2").stderr.startswith(
        "qwen-audio: --quantize int2: use one of int8, int4, int4-g128"
    )
    assert (
        "--quantize int4 out, or give"
        in run("taps", "--model", tmp_path / "out", "--quantize", "int4").stderr
    )


@pytest.mark.slow
def test_recordings_to_calibrate_with(checkpoint: Path, clips: list[Path], tmp_path: Path) -> None:
    done = run("quantize", checkpoint, tmp_path / "out", "--calibrate", clips[0].parent)
    assert (done.returncode, done.stderr) == (0, "")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["quantized_from"]["calibration_positions"] > 0
    options = ("--calibrate", clips[0], "--quantize", "int8")
    refused = run("quantize", checkpoint, tmp_path / "b", *options)
    assert refused.stderr.startswith("qwen-audio: --calibrate changes how weights are rounded")
    assert refused.stderr.endswith("int8 has none: leave it out, or use --quantize int4\n")
    missing = run("quantize", checkpoint, tmp_path / "b", "--calibrate", tmp_path / "no")
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)
