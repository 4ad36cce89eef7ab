"""Audio ablation: each sound alone, the rule of the verdict, and the command."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from qwen_audio.api.audio_ablation import first_window
from qwen_audio.audio.load_options import LoadOptions
from qwen_audio.audio.window import WindowConfig
from qwen_audio.errors import AudioError, OptionError
from qwen_audio.inference.options import Sampling
from qwen_audio.inference.scored_clips import encode_mels
from recordings import write_wav
from reference import sound

RATE: dict[str, Any] = {"sampling_rate": 16_000}


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> qa.AudioModel:
    return qa.load(checkpoint, dtype="float32")


def test_scores_are_those_of_each_sound_alone(model: qa.AudioModel) -> None:
    clip, other = sound(0.6), sound(0.25, 3)
    found = model.audio_ablation(clip, "What?", others=[other], max_new_tokens=3, **RATE)
    assert found.conditions[:4] == ("heard", "shuffled", "silence", "noise")
    assert len(found.conditions) == 5
    prompt_text, pipeline = model.pipeline.tokenizer.render("What?"), model.pipeline
    rows = encode_mels(pipeline, [pipeline.log_mel(clip)])
    (text,) = pipeline.generate(prompt_text, rows, Sampling(3))
    ids = text.token_ids[:-1] if text.ended_by == "stop token" else text.token_ids
    assert found.answers == (text.text,)
    assert found.tokens == (len(ids),)
    for condition, samples in ((0, clip), (2, np.zeros_like(clip)), (4, np.resize(other, 9_600))):
        (scores,) = pipeline.score(
            prompt_text, encode_mels(pipeline, [pipeline.log_mel(samples)]), [ids]
        )
        assert found.log_probability[0, condition] == pytest.approx(
            scores.log_probability[0], abs=1e-5
        )
    again = model.audio_ablation(clip, "What?", others=[other], max_new_tokens=3, **RATE)
    np.testing.assert_array_equal(again.log_probability, found.log_probability)
    seeded = model.audio_ablation(clip, "What?", others=[other], max_new_tokens=3, seed=1, **RATE)
    same = seeded.log_probability == found.log_probability
    assert same[0].tolist() == [True, False, True, False, True]


def test_given_answers_are_relative_to_each_other(model: qa.AudioModel) -> None:
    clip, others = sound(0.6), [sound(0.6, 3)]
    found = model.audio_ablation(clip, "What?", answers=["a", "b"], others=others, **RATE)
    one, two = (
        model.audio_ablation(clip, "What?", answers=[text], others=others, **RATE).log_probability
        for text in ("a", "b")
    )
    best, rest = (one, two) if found.answers == ("a",) else (two, one)
    assert best[0, 0] >= rest[0, 0]
    expected = best - np.logaddexp(best, rest)
    np.testing.assert_allclose(found.log_probability, expected, atol=1e-5)


def test_recordings_of_several_windows(model: qa.AudioModel) -> None:
    found = model.audio_ablation(
        [sound(0.9), sound(0.4, 2)], max_new_tokens=2, window_seconds=0.5, **RATE
    )
    assert [len(each.windows) for each in found] == [2, 1]
    assert found[0].log_probability.shape == (2, 4 + 4)  # one of the list, and the examples
    assert found[0].drop[0] == 0
    rows = found[0].to_pandas()
    assert len(rows) == 16
    assert "<table" in found[0]._repr_html_()


def test_of_other_clips_the_first_window_is_decoded(model: qa.AudioModel, tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    path.write_bytes(write_wav(sound(60.0), 16_000))
    tracemalloc.start()
    beginning = first_window(path, LoadOptions(), WindowConfig(0.5))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert beginning.samples.size == 8_000
    assert peak < 60 * 16_000 * 4 / 4  # bytes of all samples
    options: dict[str, Any] = {"answers": ["a"], "window_seconds": 0.5}
    clip = qa.Waveform(sound(0.8, 2))
    found = model.audio_ablation(clip, others=[path], **options)
    again = model.audio_ablation(clip, others=[beginning], **options)
    np.testing.assert_allclose(found.log_probability, again.log_probability, atol=1e-5)
    assert found.conditions[4] == str(path)


@pytest.mark.slow
def test_streams_of_a_list_are_read_once(model: qa.AudioModel) -> None:
    files = [write_wav(sound(0.5, seed), 16_000) for seed in (1, 2)]
    options: dict[str, Any] = {"answers": ["a"]}
    expected = model.audio_ablation(files, **options)
    found = model.audio_ablation([io.BytesIO(file) for file in files], **options)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.log_probability, other.log_probability, atol=1e-5)


def test_the_likeliest_answer_is_scored(model: qa.AudioModel) -> None:
    options: dict[str, Any] = {"others": [sound(0.3, 3)], **RATE}
    one, two = (
        model.audio_ablation(sound(0.3), "What?", answers=answers, **options)
        for answers in (["a", "b"], ["b", "a"])
    )
    assert one.answers == two.answers
    np.testing.assert_allclose(one.log_probability, two.log_probability, atol=1e-5)
    assert one.log_probability[0, 0] > np.log(0.5)


def test_an_answer_is_scored_without_its_end(
    model: qa.AudioModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"others": [sound(0.3, 3)], "max_new_tokens": 2, **RATE}
    whole = model.audio_ablation(sound(0.3), "What?", **options)
    answer = model.describe(sound(0.3), prompt="What?", max_new_tokens=2, **RATE).answers[0]
    first, second = answer.token_ids
    assert first != second
    tokenizer = model.pipeline.tokenizer
    monkeypatch.setattr(tokenizer, "stop_token_ids", lambda *_: frozenset({second}))
    ended = model.audio_ablation(sound(0.3), "What?", **options)
    assert (whole.tokens, ended.tokens) == ((2,), (1,))
    assert ended.log_probability[0, 0] > whole.log_probability[0, 0]
    monkeypatch.setattr(tokenizer, "stop_token_ids", lambda *_: frozenset({first}))
    with pytest.raises(AudioError, match="the model's answer is empty: give answers to score"):
        model.audio_ablation(sound(0.3), "What?", **options)


def test_there_are_eight_others_at_most_and_noise_even_for_silence(model: qa.AudioModel) -> None:
    others = [sound(0.2, seed) for seed in range(12)]
    options: dict[str, Any] = {"others": others, "answers": ["a"], **RATE}
    (values,) = model.audio_ablation(np.zeros(4800, np.float32), **options).log_probability
    assert len(values) == 4 + 8
    assert values[2] == pytest.approx(values[0], abs=1e-5)
    assert abs(values[3] - values[0]) > 1e-4


def test_a_recording_that_overflows_is_named(model: qa.AudioModel) -> None:
    clip, other = qa.Waveform(sound(0.3), "a.wav"), qa.Waveform(sound(0.3, 3), "b.wav")
    with model.edit("projector", qa.edits.scale(1e20)):
        with pytest.raises(AudioError, match=r"^a\.wav: float32 overflows"):
            model.audio_ablation(clip, answers=["a"], others=[other])
        with pytest.raises(AudioError, match=r"^a\.wav: float32 overflows"):
            model.occlusion(clip, window_seconds=0.2, hop_seconds=0.2)


def test_tables_and_facts(tmp_path: Path) -> None:
    values = -np.array([[0.1, 0.2, 0.3, 0.4, 0.5, 0.7], [1.0, 1.1, 2.0, 1.3, 1.9, 0.8]])
    windows = (qa.Window(0.0, 1.0), qa.Window(1.0, 2.0))
    names = ("heard", "shuffled", "silence", "noise", "x", "y")
    found = qa.AudioAblation("a", "p", ("Yes", "No"), (), windows, names, values, (1, 2))
    np.testing.assert_allclose(found.drop, [0, 0.1, 0.6, 0.3, 0.65, 0.2])
    facts = found.facts()
    assert facts["others"] == ("x", "y")
    drops = {name: facts[f"drop_{name}"] for name in ("shuffled", "silence", "noise", "others")}
    expected = {"shuffled": 0.1, "silence": 0.6, "noise": 0.3, "others": 0.425}
    assert drops == pytest.approx(expected)
    rows = found.table()
    assert [row["answer"] for row in rows] == ["Yes"] * 6 + ["No"] * 6
    assert rows[8] == {
        "window": 1,
        "start_seconds": 1.0,
        "end_seconds": 2.0,
        "answer": "No",
        "condition": "silence",
        "log_probability": -2.0,
        "drop": 1.0,
    }
    with np.load(found.save(tmp_path / "a.npz")) as saved:
        np.testing.assert_array_equal(saved["log_probability"], values)
        assert saved["conditions"].tolist() == list(names)
    assert found.to_pandas().attrs["verdict"] == found.verdict


def ablation(drops: list[float], silence: float = 0.0, noise: float = 0.0) -> qa.AudioAblation:
    """With these drops under other clips."""
    values = -np.array([[0.0, 0.0, silence, noise, *drops]])
    names = ("heard", "shuffled", "silence", "noise", *(f"{k}" for k in range(len(drops))))
    window = qa.Window(0.0, 1.0)
    return qa.AudioAblation("a", "", ("Yes",), (), (window,), names, values, (1,))


def test_the_rule_of_the_verdict() -> None:
    assert ablation([0.6] * 3).verdict == "ignores the sound"
    assert ablation([0.6, 0.7, 0.0]).verdict == "depends on the sound"
    assert ablation([0.6] * 3, silence=2.0).verdict == "unclear"
    assert ablation([0.6] * 3, noise=2.0).verdict == "unclear"
    assert "-0.00" not in ablation([-0.001] * 3).summary
    assert ablation([0.6] * 2).verdict == "unclear"
    # Wilson's interval of 0 and of 1 in 8, as statsmodels gives them.
    assert ablation([0.0] * 8).interval == pytest.approx((0.0, 0.3244), abs=1e-3)
    assert ablation([0.0] * 7 + [1.0]).interval == pytest.approx((0.0224, 0.4709), abs=1e-3)
    assert "0 of 8 other clips change the answer" in ablation([0.0] * 8).summary


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"answers": "Yes"}, "answers='Yes': give texts in a list"),
        ({"answers": []}, "answers=.*: give texts in a list"),
        ({"answers": ["Yes", "Yes"]}, "choice 'Yes' is given twice"),
        ({"others": []}, "others=.*: give clips in a list"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_invalid_options(model: qa.AudioModel, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        model.audio_ablation(sound(0.3), "What?", **RATE, **options)


def test_a_clip_is_no_other_of_itself(model: qa.AudioModel) -> None:
    clip = sound(0.3)
    with pytest.raises(OptionError, match="has no other clip: give at least one"):
        model.audio_ablation(clip, others=[clip], **RATE)
