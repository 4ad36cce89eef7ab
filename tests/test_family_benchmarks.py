"""The benchmark of families: sizes of a released model for each, and a dry run of a few."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks import family_plans
from benchmarks.benchmark import Settings
from benchmarks.family_checkpoints import write_family
from benchmarks.released_models import RELEASED
from safetensors import safe_open
from transformers.utils import logging

from families import CASES
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.registry import FAMILIES


@pytest.fixture(autouse=True)
def verbosity() -> Iterator[None]:
    """Benchmarks have processes of their own, and silence transformers."""
    level = logging.get_verbosity()
    yield
    logging.set_verbosity(level)
    logging.enable_progress_bar()


def test_every_family_has_the_sizes_of_a_released_model() -> None:
    assert RELEASED.keys() == CASES.keys()
    released = {name for entry in FAMILIES for name in entry.hub_models}
    assert {model.name for model in RELEASED.values()} <= released


@pytest.mark.slow
def test_a_whole_model_takes_no_space(tmp_path: Path) -> None:
    """Its files have the headers of all tensors, 3 GB; of two layers the encoder has values."""
    narrow = {"audio_config": {"num_mel_bins": 80}}  # fast to write
    released = dataclasses.replace(RELEASED["qwen3_asr"], encoder=narrow)
    written = write_family(tmp_path, "qwen3_asr", released)
    dimensions = Checkpoint(written.whole.folder).dimensions
    assert (dimensions.encoder_layers, dimensions.lm_layers) == (24, 28)
    assert (dimensions.encoder_width, dimensions.lm_width) == (32, 2048)
    for each, size in ((written.whole, 3e9), (written.two_layers, 8e8)):
        stat = (each.folder / "model.safetensors").stat()
        assert stat.st_size > size
        assert 512 * stat.st_blocks < 1e6
    with safe_open(written.two_layers.folder / "model.safetensors", "pt") as file:
        norms = [name for name in file.keys() if "norm" in name]  # noqa: SIM118 (no dictionary)
        written_norms = {name for name in norms if file.get_tensor(name).any()}
    assert written_norms == {name for name in norms if "audio_tower." in name} != set()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="skipped there")
def test_dry_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left behind; plans and vectors are those of transformers' models."""
    few = {name: RELEASED[name] for name in ("qwen3_asr", "whisper")}
    monkeypatch.setattr(family_plans, "RELEASED", few)
    result = family_plans.family_plans(Settings(tmp_path, threads=1, quick=True, rounds=1))
    assert result.rows.keys() == few.keys()
    assert result.figures["largest_planned_error"] < 0.01
    assert result.figures["least_cosine"] > 0.999
    assert all(row["two_layers_speed_ratio"] > 0 for row in result.rows.values())
    assert not list(tmp_path.iterdir())
