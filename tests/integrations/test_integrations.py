"""Adapters for HEAR, X-ARES and mteb, with these packages' own checks if they are installed."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np
import pytest
import torch

import qwen_audio as qa
from qwen_audio.integrations import hear, xares

RATE = 16_000


def clips(count: int, seconds: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.rand(count, round(seconds * RATE), generator=generator) - 1


def assert_alike(one: torch.Tensor, other: torch.Tensor, dtype: str) -> None:
    """Within what the arithmetic rounds away: some processors multiply bfloat16, and those with
    tiles for it sum a batch in another order than a clip alone."""
    rounding = torch.finfo(getattr(torch, dtype)).eps * float(other.abs().max())
    torch.testing.assert_close(one, other, rtol=0, atol=max(1e-4, 2 * rounding))


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [1.07, 1.98, 4.0])
def test_hear_gets_rows_and_the_milliseconds_of_their_middles(seconds: float) -> None:
    model = hear.load_model()
    assert isinstance(model, torch.nn.Module)
    batch = clips(2, seconds)
    rows, times = hear.get_timestamp_embeddings(batch, model)
    count = ((round(seconds * 100) - 1) // 2 + 1) // 2
    assert rows.shape == (2, count, model.timestamp_embedding_size)
    expected = 20 + 40 * torch.arange(count, dtype=torch.float32)
    torch.testing.assert_close(times, expected.repeat(2, 1))
    assert times.max() < 1000 * seconds
    scenes = hear.get_scene_embeddings(batch, model)
    assert scenes.shape == (2, model.scene_embedding_size)
    assert rows.dtype == scenes.dtype == torch.float32
    torch.testing.assert_close(rows.mean(1), scenes, rtol=1e-4, atol=1e-4)
    alone = hear.get_timestamp_embeddings(batch[1:], model)[0]
    assert_alike(alone, rows[1:], model.audio_model.dtype)


def test_hear_at_another_tap() -> None:
    model = hear.load_model(tap="lm.1")
    rows, times = hear.get_timestamp_embeddings(clips(1, 1.0), model)
    assert rows.shape == (1, 25, qa.load().dimensions.lm_width)  # of audio, not of the prompt
    assert torch.isfinite(times).all()


def test_xares_gets_rows() -> None:
    encoder = xares.QwenAudioEncoder()
    batch = torch.randn(2, 50_000, generator=torch.Generator().manual_seed(1))
    rows = encoder(batch)
    assert rows.shape == (2, 78, encoder.output_dim)
    assert (encoder.sampling_rate, encoder.hop_size_in_ms) == (RATE, 40)
    assert_alike(encoder(batch[1]), rows[1:], qa.load().dtype)


def test_xares_own_check() -> None:
    checker = pytest.importorskip(
        "xares.audio_encoder_checker", reason="needs X-ARES: pip install xares"
    )
    assert checker.check_audio_encoder(xares.QwenAudioEncoder())


def test_hears_own_check() -> None:
    validate = pytest.importorskip(
        "hearvalidator.validate", reason="needs HEAR's validator: pip install hearvalidator"
    )
    validate.ValidateModel("qwen_audio.integrations.hear", "")()


def test_mteb_without_mteb_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mteb", None)
    monkeypatch.delitem(sys.modules, "qwen_audio.integrations.mteb", raising=False)
    with pytest.raises(qa.MissingExtraError, match=r"\[mteb\]"):
        importlib.import_module("qwen_audio.integrations.mteb")


def test_mtebs_own_runner() -> None:
    reason = "needs mteb: pip install 'qwen-audio-playground[mteb]'"
    mteb = pytest.importorskip("mteb", reason=reason)
    import datasets
    from mteb.abstasks.classification import AbsTaskClassification
    from mteb.abstasks.task_metadata import TaskMetadata

    from qwen_audio.integrations.mteb import QwenAudioEncoder

    def tones(count: int) -> Any:
        random = np.random.default_rng(count)
        rows = []
        for number in range(count):
            time = np.arange(int(random.uniform(0.4, 0.9) * 22_050)) / 22_050
            hertz = (150, 500, 1700)[number % 3] * 2 ** random.uniform(-0.2, 0.2)
            array = (0.3 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)
            rows.append({"audio": {"array": array, "sampling_rate": 22_050}, "label": number % 3})
        return datasets.Dataset.from_list(rows)

    class Tones(AbsTaskClassification):  # type: ignore[misc]
        metadata = TaskMetadata(
            name="Tones",
            description="Three pitches.",
            dataset={"path": "local/tones", "revision": "1"},
            type="AudioClassification",
            category="a2c",
            eval_splits=["test"],
            eval_langs=["zxx-Zxxx"],
            main_score="accuracy",
            modalities=["audio"],
        )
        input_column_name = "audio"
        samples_per_label = 4
        n_experiments = 2

        def load_data(self, **_: Any) -> None:
            self.dataset = datasets.DatasetDict(train=tones(18), test=tones(12))
            self.data_loaded = True

    done = mteb.evaluate(QwenAudioEncoder(), Tones(), cache=None, encode_kwargs={"batch_size": 5})
    (result,) = done.task_results
    assert result.get_score() > 0.9
