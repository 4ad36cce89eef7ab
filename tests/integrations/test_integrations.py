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


def test_mtebs_zero_shot_task() -> None:
    """Labels as the embedded checkpoint says them: their probabilities are those of `classify`."""
    mteb = pytest.importorskip("mteb", reason="needs mteb")
    import datasets
    import soundfile
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.abstasks.zeroshot_classification import AbsTaskZeroShotClassification

    from qwen_audio.integrations.mteb import QwenAudioClassifier

    labels = ["Drums play", "A solo acoustic guitar plays", "Someone is speaking"]

    class Leads(AbsTaskZeroShotClassification):  # type: ignore[misc]
        metadata = TaskMetadata(
            name="Leads",
            description="Who leads.",
            dataset={"path": "local/leads", "revision": "1"},
            type="AudioZeroshotClassification",
            category="a2t",
            eval_splits=["test"],
            eval_langs=["zxx-Zxxx"],
            main_score="accuracy",
            modalities=["audio", "text"],
        )
        input_column_name = "audio"

        def get_candidate_labels(self) -> list[str]:
            return labels

        def load_data(self, **_: Any) -> None:
            rows = []
            for number, name in enumerate(("djembe", "guitar", "speech")):
                array, rate = soundfile.read(f"examples/{name}.flac", dtype="float32")
                rows.append({"audio": {"array": array, "sampling_rate": rate}, "label": number})
            self.dataset = datasets.DatasetDict(test=datasets.Dataset.from_list(rows))
            self.data_loaded = True

    done = mteb.evaluate(QwenAudioClassifier(), Leads(), cache=None)
    assert done.task_results[0].get_score() == 1.0


def test_lm_eval_without_lm_eval_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "qwen_audio.integrations.lm_eval", raising=False)
    with pytest.raises(qa.MissingExtraError, match=r"\[lm-eval\]"):
        importlib.import_module("qwen_audio.integrations.lm_eval")


@pytest.mark.filterwarnings("ignore::qwen_audio.errors.ScoreWarning")
def test_lm_evals_own_runner() -> None:
    """Likelihoods of multiple choice, and answers, of a task with audio."""
    lm_eval = pytest.importorskip(
        "lm_eval", reason="needs lm-eval: pip install 'qwen-audio-playground[lm-eval]'"
    )
    import datasets
    import soundfile
    from lm_eval.api.task import ConfigurableTask

    from qwen_audio.integrations.lm_eval import QwenAudioLM

    names = ("djembe", "guitar", "speech")
    texts = [" Drums", " A solo acoustic guitar", " Someone is speaking", " A solo"]

    def audio(document: Any) -> list[Any]:
        array, rate = soundfile.read(f"examples/{document['name']}.flac", dtype="float32")
        return [{"array": array, "sampling_rate": rate}]

    def documents(**_: Any) -> Any:
        rows = [{"name": name, "label": number} for number, name in enumerate(names)]
        return datasets.DatasetDict(test=datasets.Dataset.from_list(rows))

    common = {
        "custom_dataset": documents,
        "test_split": "test",
        "doc_to_audio": audio,
        "doc_to_text": "<audio>Describe the music:",
        "target_delimiter": "",
    }
    choices = {
        **common,
        "task": "leads",
        "output_type": "multiple_choice",
        "doc_to_choice": texts[:3],
        "doc_to_target": "label",
    }
    answers = {
        **common,
        "task": "captions",
        "output_type": "generate_until",
        "doc_to_target": "name",
        "generation_kwargs": {"until": ["."], "max_gen_toks": 16},
        "metric_list": [{"metric": "exact_match"}],
    }
    model = QwenAudioLM(dtype="float32")
    tasks = [ConfigurableTask(config=config) for config in (choices, answers)]
    done = lm_eval.simple_evaluate(model, tasks=tasks, log_samples=True, bootstrap_iters=0)
    assert done["results"]["leads"]["acc,none"] == 1.0
    reference = qa.load(dtype="float32")
    for sample, name in zip(done["samples"]["leads"], names, strict=True):
        scores = reference.score(f"examples/{name}.flac", choices=[t[1:] for t in texts[:3]])
        found = [response[0] for response in sample["filtered_resps"]]
        np.testing.assert_allclose(found, scores.log_probability[0], rtol=1e-4)
    for sample, name in zip(done["samples"]["captions"], names, strict=True):
        caption = reference.describe(f"examples/{name}.flac", max_new_tokens=16)
        assert sample["resps"] == [[caption.split(".")[0]]]
    prompt_text, rows = model._input(
        ("<audio>Describe the music:", "", {"audio": [audio({"name": "guitar"})[0]]})
    )
    ids = [model._pipeline.tokenizer.encode_text(text) for text in (*texts, texts[1])]
    pairs = model._scores(prompt_text, rows, ids)  # one begins another, one is there twice
    assert pairs[1] == pytest.approx(pairs[4])
    assert [is_greedy for _, is_greedy in pairs] == [False, True, False, True, True]
    with pytest.raises(NotImplementedError, match=r"is of texts alone.*: use tasks of") as caught:
        model.loglikelihood_rolling([])
    assert "\n" not in str(caught.value)
