"""Parity reports hold if and only if the numbers equal transformers'."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AttentionInterface

import qwen_audio as qa
from qwen_audio.api import parity as parity_module
from qwen_audio.api.parity import synthetic_clips
from qwen_audio.api.transformers_model import TransformersModel
from qwen_audio.inference.cost import estimate_cost
from qwen_audio.inference.decoder import LanguageModel
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.families.qwen2_audio import Qwen2Audio
from qwen_audio.models.packed_attention import ATTENTION, packed_attention
from qwen_audio.models.tensors import EMBEDDINGS
from reference import Reference, sound

SHORT = qa.load_waveform(sound(1.3), sampling_rate=16_000)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_parity_holds_at_every_tap(dtype: str, checkpoint: Path) -> None:
    model = qa.load(checkpoint, dtype=dtype)
    report = model.check_parity()
    assert report.holds
    assert [tap.tap for tap in report.taps] == [str(tap) for tap in model.taps]
    assert report.skipped_taps == ()
    assert (report.dtype, report.device) == (dtype, "cpu")
    assert (report.model, report.torch) == (str(checkpoint), torch.__version__)
    assert len(report.clips) == len(synthetic_clips()) == 3
    rows = {tap.tap: tap.rows for tap in report.taps}
    traces = model.inspect([clip.samples for clip in synthetic_clips()], sampling_rate=16_000)
    for tap in (tap for trace in traces for tap in trace.taps):
        rows[tap.tap] -= tap.rows
    assert set(rows.values()) == {0}
    if dtype == "float32":
        assert max(tap.relative_error for tap in report.taps) < 1e-5
    else:
        assert min(tap.cosine for tap in report.taps) > 0.99
        assert report.taps[-1].relative_error > 1e-4  # 16 bits were compared
    assert model.encode(SHORT).shape == (64,)  # the model is still usable


def test_the_reference_is_transformers_own_model(checkpoint: Path) -> None:
    """Its hidden states equal those of `from_pretrained`, at every tap."""
    pipeline = qa.load(checkpoint, dtype="float32").pipeline
    prompt_text = pipeline.tokenizer.render(None)
    composite = TransformersModel(pipeline, 3)
    actual = composite.taps(SHORT, prompt_text)
    expected = Reference(checkpoint).taps(SHORT.samples)
    assert actual.keys() == expected.keys()
    for tap, rows in expected.items():
        np.testing.assert_allclose(actual[tap], rows, atol=1e-5)


def attention_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, scaling: float, **options: Any) -> Any:
        return packed_attention(*args, scaling=1.02 * scaling, **options)

    AttentionInterface.register(ATTENTION, broken)


def positions_shifted(monkeypatch: pytest.MonkeyPatch) -> None:
    stem = Qwen2Audio.stem
    monkeypatch.setattr(Qwen2Audio, "stem", lambda *arguments: stem(*arguments).roll(1, 0))


def norm_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Qwen2Audio, "final_norm", lambda *_: torch.nn.Identity())


def audio_reversed(monkeypatch: pytest.MonkeyPatch) -> None:
    embed = LanguageModel._embed

    def broken(lm: LanguageModel, clip: Any) -> Any:
        return embed(lm, dataclasses.replace(clip, audio_rows=clip.audio_rows.flip(0)))

    monkeypatch.setattr(LanguageModel, "_embed", broken)


BROKEN = {
    "encoder.1": attention_scaled,
    "encoder.0": positions_shifted,
    "lm.norm": norm_removed,
    "lm.0": audio_reversed,
}


@pytest.fixture
def attention_restored() -> Iterator[None]:
    yield
    AttentionInterface.register(ATTENTION, packed_attention)


@pytest.mark.slow
@pytest.mark.parametrize("first_failing", BROKEN)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_parity_fails_at_the_first_wrong_tap(
    first_failing: str,
    dtype: str,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    attention_restored: None,
) -> None:
    """The first tap outside its bounds is where the fault is; earlier taps pass."""
    BROKEN[first_failing](monkeypatch)
    report = qa.load(checkpoint, dtype=dtype).check_parity([SHORT])
    if dtype == "bfloat16" and first_failing == "encoder.1":
        assert report.holds  # two hundredths of a score are less than bfloat16's own rounding
        return
    assert not report.holds
    limit = report.max_error or np.inf
    failed = [
        tap.tap
        for tap in report.taps
        if tap.cosine < report.min_cosine or tap.relative_error > limit
    ]
    assert failed[0] == first_failing


def test_nan_fails(checkpoint: Path) -> None:
    """NaN on either side never passes."""
    report = qa.load(checkpoint, dtype="float32").check_parity([SHORT])
    for field in ("cosine", "relative_error"):
        wrong = dataclasses.replace(report.taps[0], **{field: float("nan")})  # type: ignore[arg-type]
        assert not dataclasses.replace(report, taps=(wrong, *report.taps[1:])).holds


@pytest.mark.slow
def test_taps_beyond_memory_are_skipped_and_named(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Checkpoint(checkpoint)
    table = 4 * math.prod(opened.tensors.shape(EMBEDDINGS))
    for depth, left_out in ((1, ("lm.2", "lm.3", "lm.norm")), (2, ("lm.3", "lm.norm")), (3, ())):
        cost = estimate_cost(opened, qa.Tap.parse(f"lm.{depth}"), torch.float32, base_bytes=0)
        free = int((cost.peak_memory_bytes + table) / 0.8) + 10
        monkeypatch.setattr(parity_module, "available_bytes", lambda _: free)
        report = qa.load(checkpoint, dtype="float32", max_memory="8GB").check_parity([SHORT])
        assert report.holds
        assert report.skipped_taps == left_out
        compared = tuple(tap.tap for tap in report.taps)
        assert compared + left_out == tuple(str(tap) for tap in opened.dimensions.taps())
    monkeypatch.setattr(parity_module, "available_bytes", lambda _: 10**8)
    with pytest.raises(qa.OptionError, match="do not hold the audio encoder and one decoder layer"):
        qa.load(checkpoint, max_memory="8GB").check_parity([SHORT])


def test_clips_that_transformers_would_truncate_are_errors(checkpoint: Path) -> None:
    model = qa.load(checkpoint)
    long = qa.load_waveform(sound(30.1), sampling_rate=16_000)
    with pytest.raises(qa.AudioError, match=r"lasts 30\.1 s, but transformers takes 30 s"):
        model.check_parity([SHORT, long])
    with pytest.raises(qa.AudioError, match="no such file"):
        model.check_parity("/no/such/file.wav")


def test_synthetic_clips_differ_and_are_reproducible() -> None:
    clips = synthetic_clips()
    assert [clip.duration_seconds for clip in clips] == [5.0, 1.23, 12.5]
    for clip, again in zip(clips, synthetic_clips(), strict=True):
        np.testing.assert_array_equal(clip.samples, again.samples)
        assert 0.2 < np.abs(clip.samples).max() < 1
