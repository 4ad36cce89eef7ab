"""Rows that overflow or are NaN: an error that names the first tap and the dtype, never rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qwen_audio as qa
from checkpoints import changed_checkpoint
from qwen_audio.errors import NotFiniteError
from qwen_audio.inference.finite import hold_overflows
from qwen_audio.inference.memory_budget import MemoryBudget
from recordings import sound

DOWN = "language_model.model.layers.1.mlp.down_proj.weight"
FC2 = "audio_tower.layers.1.fc2.weight"
QUIET, LOUD = (
    qa.Waveform(np.zeros(16_000, np.float32), "quiet"),
    qa.Waveform(sound(1.0, 16_000, seed=4)[0], "loud"),
)
BOTH = qa.Waveform(np.concatenate([QUIET.samples, LOUD.samples]), "quiet, then loud")


@pytest.fixture(scope="module")
def overflowing(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> qa.AudioModel:
    """A model that overflows at lm.2 in float16, for every recording."""
    folder = tmp_path_factory.mktemp("overflow") / "lm"
    return qa.load(
        changed_checkpoint(checkpoint, folder, DOWN, lambda w: 60_000 * w), dtype="float16"
    )


@pytest.fixture(scope="module")
def loud_overflows(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> qa.AudioModel:
    """A model that overflows at encoder.2 in float16 for LOUD, and not for QUIET."""
    folder = tmp_path_factory.mktemp("overflow") / "encoder"
    return qa.load(
        changed_checkpoint(checkpoint, folder, FC2, lambda w: 26_200 * w), dtype="float16"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "compute",
    [
        lambda model: model.encode(LOUD, tap="lm.2"),
        lambda model: model.encode(LOUD, tap="lm.norm", pooling="max", span="last"),
        lambda model: next(model.encode_each([LOUD], tap="lm.3", pooling="none")),
        lambda model: model.activations(LOUD, taps=["mel", "lm.3"]),
        lambda model: model.activations(LOUD, taps=["lm.1"], generate=2),
        lambda model: model.describe(LOUD),
        lambda model: model.describe(BOTH, window_seconds=1.0),
        lambda model: model.describe(LOUD, stream=lambda _: None),
        lambda model: model.session(LOUD).ask("Why?"),
        lambda model: model.chat([{"role": "user", "content": [{"type": "audio", "audio": LOUD}]}]),
        lambda model: model.lens(LOUD),
        lambda model: model.view(LOUD, tap="lm.2"),
        lambda model: model.view(LOUD, depth=True),
        lambda model: model.layer_similarity([LOUD], taps=["mel", "lm.norm"]),
        lambda model: model.check_parity(LOUD),
    ],
)
def test_rows_of_the_language_model(
    overflowing: qa.AudioModel, compute: Callable[[qa.AudioModel], Any]
) -> None:
    with pytest.raises(qa.AudioError, match=r"float16 overflows at lm\.2: use bfloat16 or float32"):
        compute(overflowing)


@pytest.mark.slow
def test_taps_before_are_finite_and_several_recordings_mean_the_model(
    overflowing: qa.AudioModel,
) -> None:
    assert np.isfinite(overflowing.encode([QUIET, LOUD], tap="lm.1")).all()
    match = "^float16 overflows at lm.2 for each of 2 recordings, such as quiet: use"
    with pytest.raises(qa.OptionError, match=match):
        overflowing.encode([QUIET, LOUD], tap="lm.2")
    with pytest.raises(qa.AudioError, match=r"^quiet: float16 overflows at lm\.2"):
        overflowing.describe([QUIET, LOUD])
    wider = qa.load(overflowing.name, dtype="bfloat16")
    assert np.isfinite(wider.encode(LOUD, tap="lm.norm")).all()


@pytest.mark.parametrize(
    ("tensor", "tap"),
    [
        (FC2, "encoder.2"),  # transformers' layer replaces infinity by 64,504
        ("audio_tower.conv2.weight", "encoder.0"),
        ("multi_modal_projector.linear.weight", "projector"),
        ("language_model.lm_head.weight", "the language model's head"),
    ],
)
def test_the_first_place_is_named(checkpoint: Path, tmp_path: Path, tensor: str, tap: str) -> None:
    folder = changed_checkpoint(checkpoint, tmp_path / "m", tensor, lambda w: 60_000 * w)
    with pytest.raises(qa.AudioError, match=f"^loud: float16 overflows at {tap}: use bfloat16"):
        qa.load(folder, dtype="float16").describe(LOUD, max_new_tokens=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tensor", "tap", "value", "dtype"),
    [
        (DOWN, "lm.2", np.inf, torch.float32),
        (DOWN, "lm.2", np.nan, torch.bfloat16),
        ("audio_tower.layers.0.fc1.bias", "encoder.1", np.nan, torch.float32),
        ("audio_tower.layers.0.fc1.bias", "encoder.1", np.inf, torch.bfloat16),
        ("audio_tower.layer_norm.weight", "audio_tower", -np.inf, torch.float32),
        ("language_model.model.norm.weight", "lm.norm", np.nan, torch.bfloat16),
        ("language_model.lm_head.weight", "the language model's head", np.nan, torch.float32),
    ],
)
def test_stored_weights_that_are_not_finite(
    checkpoint: Path, tmp_path: Path, tensor: str, tap: str, value: float, dtype: torch.dtype
) -> None:
    def change(weights: torch.Tensor) -> torch.Tensor:
        weights.view(-1)[5] = value
        return weights

    folder = changed_checkpoint(checkpoint, tmp_path / "m", tensor, change, dtype)
    match = f"tensor {tensor} holds NaN or infinity, so that nothing is finite from {tap} on"
    with pytest.raises(qa.CheckpointError, match=match):
        qa.load(folder, dtype=str(dtype).removeprefix("torch.")).describe(QUIET, max_new_tokens=1)


@pytest.mark.parametrize(
    ("tensor", "tap"), [(DOWN, "lm.2"), ("language_model.model.embed_tokens.weight", "lm.0")]
)
def test_weights_beyond_the_dtype(checkpoint: Path, tmp_path: Path, tensor: str, tap: str) -> None:
    folder = changed_checkpoint(checkpoint, tmp_path / "m", tensor, lambda w: 1e6 * w)
    match = f"float16 overflows at {tap}: tensor {tensor} .* use bfloat16 or float32"
    with pytest.raises(qa.OptionError, match=match):
        qa.load(folder, dtype="float16").encode(QUIET, tap="lm.norm")


@pytest.mark.parametrize(("dtype", "advice"), [("bfloat16", "use float32"), ("float32", "check")])
def test_rows_whose_squares_overflow(
    checkpoint: Path, tmp_path: Path, dtype: str, advice: str
) -> None:
    """The norm after them would return zeros: finite, and wrong."""
    folder = changed_checkpoint(checkpoint, tmp_path / "m", DOWN, lambda w: 1e22 * w)
    with pytest.raises(NotFiniteError, match=f"quiet: {dtype} overflows at lm.2: {advice}"):
        qa.load(folder, dtype=dtype).encode(QUIET, tap="lm.norm")


@pytest.mark.slow
def test_a_recording_that_overflows_among_others(loud_overflows: qa.AudioModel) -> None:
    """In the same batch, and with a window in an earlier batch: the others are as alone."""
    alone = loud_overflows.encode(QUIET)
    inputs = [LOUD, b"no audio", QUIET, BOTH, QUIET]
    for window_seconds in (1.0, 30.0):
        results = list(
            loud_overflows.encode_each(inputs, errors="yield", window_seconds=window_seconds)
        )
        names = [str(error).split(":")[0] for error in results if isinstance(error, qa.AudioError)]
        assert names == ["loud", "bytes (8) can't be decoded", "quiet, then loud"]
        np.testing.assert_array_equal(results[2], alone)
        np.testing.assert_array_equal(results[4], alone)
    with pytest.raises(NotFiniteError, match=r"^loud: float16 overflows at encoder\.2"):
        loud_overflows.encode([QUIET, LOUD])
    with pytest.raises(NotFiniteError, match=r"^loud: float16 overflows at encoder\.2"):
        loud_overflows.describe([QUIET, LOUD], max_new_tokens=1)


def test_windows_in_different_batches(
    loud_overflows: qa.AudioModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryBudget, "max_frames", 100)
    three = qa.Waveform(np.concatenate([BOTH.samples, QUIET.samples]), "three")
    results = list(
        loud_overflows.encode_each([QUIET, three, QUIET], errors="yield", window_seconds=1.0)
    )
    assert isinstance(results[1], NotFiniteError)
    np.testing.assert_array_equal(results[0], results[2])
    assert len(results) == 3


def test_recordings_that_overflow_are_held_back() -> None:
    overflow, broken = NotFiniteError("lm.2", "float16", "use float32", "a"), qa.AudioError("b")

    def hold(*results: Any, **options: Any) -> list[Any]:
        return list(hold_overflows((result for result in results), **options))

    assert hold(broken, overflow, broken, 1, overflow) == [broken, overflow, broken, 1, overflow]
    assert hold(1, overflow) == [1, overflow]
    assert hold(overflow, overflow, is_proven=True) == [overflow, overflow]
    with pytest.raises(NotFiniteError, match=r"^a: float16"):
        hold(overflow)
    with pytest.raises(qa.OptionError, match="each of 2 recordings, such as a: use float32"):
        hold(overflow, broken, overflow)
    with pytest.raises(qa.OptionError, match="each of 8 recordings"):
        hold(broken, *[overflow] * 8, 1)
    endless = (overflow for _ in iter(int, 1))
    with pytest.raises(qa.OptionError, match="each of 8 recordings"):
        list(hold_overflows(endless))
