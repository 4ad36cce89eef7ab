"""Logit lens: equal to transformers' own norm and head; spans, segments, tracked tokens, files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qwen_audio as qa
from checkpoints import random_checkpoint
from forked import run_forked
from qwen_audio.analysis.logit_lens import track_tokens
from reference import Reference, sound

RATE: dict[str, Any] = {"sampling_rate": 16_000}


@torch.inference_mode()
def reference_distributions(
    reference: Reference, clip: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray]:
    """Probabilities at every level by transformers' own norm and head, and the model's own."""
    taps = reference.taps(clip)
    lm = reference.model.model.language_model
    levels = [
        reference.model.lm_head(lm.norm(torch.from_numpy(taps[f"lm.{k}"]))).softmax(-1).numpy()
        for k in range(len(lm.layers) + 1)
    ]
    inputs = reference.inputs([clip], ["<|audio_bos|><|AUDIO|><|audio_eos|>Describe the music:"])
    return levels, reference.model(**inputs).logits[0].softmax(-1).numpy()


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.04, 3.3])
def test_lens_equals_transformers_norm_and_head(
    pair: tuple[qa.AudioModel, Reference], seconds: float
) -> None:
    model, reference = pair
    clip = sound(seconds, seed=3)
    levels, own = reference_distributions(reference, clip)
    np.testing.assert_allclose(levels[-1], own, atol=1e-5)
    lens = model.lens(clip, top=7, tokens=["piano", "drums"], **RATE)
    assert [str(tap) for tap in lens.taps] == [f"lm.{k}" for k in range(len(levels))]
    assert lens.top_ids.shape == (len(levels), len(own), 7)
    for level, expected in enumerate([*levels[:-1], own]):  # the deepest: the model's own
        order = -np.sort(-expected, axis=1)[:, :7]
        np.testing.assert_allclose(lens.top_probabilities[level], order, atol=2e-5)
        probabilities = np.take_along_axis(expected, lens.top_ids[level].astype(np.int64), axis=1)
        np.testing.assert_allclose(lens.top_probabilities[level], probabilities, atol=2e-5)
        bits = -(expected * np.log2(np.maximum(expected, 1e-30))).sum(1)
        np.testing.assert_allclose(lens.entropy_bits[level], bits, atol=1e-3)
        for number, word in enumerate(lens.followed):
            tracked = lens.followed_probabilities[level, :, number]
            np.testing.assert_allclose(tracked, expected[:, list(word.ids)].sum(1), atol=2e-5)
            best = expected[:, list(word.ids)].max(1)
            low = (expected > best[:, None] * 1.001).sum(1) + 1
            high = (expected > best[:, None] * 0.999).sum(1) + 1
            ranks = lens.followed_ranks[level, :, number]
            assert ((low <= ranks) & (ranks <= high)).all()


def test_last_position_predicts_the_generated_token(embedded: qa.AudioModel) -> None:
    clip = "examples/djembe.flac" if Path("examples").is_dir() else sound(2.0)
    description = embedded.describe(
        clip, max_new_tokens=1, **({} if isinstance(clip, str) else RATE)
    )
    lens = embedded.lens(clip, span="last", **({} if isinstance(clip, str) else RATE))
    assert lens.top_ids[-1, -1, 0] == description.answers[0].token_ids[0]
    assert len(lens.read) == 1


@pytest.mark.slow
def test_nearest_tokens_equal_a_search_of_all_embeddings(
    pair: tuple[qa.AudioModel, Reference],
) -> None:
    model, reference = pair
    clip = sound(1.0)
    lens = model.lens(clip, taps=["lm.1"], nearest=True, top=3, **RATE)
    table = reference.model.model.language_model.embed_tokens.weight.detach().numpy()
    rows = reference.taps(clip)["projector"]
    units = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    cosines = (rows / np.linalg.norm(rows, axis=1, keepdims=True)) @ units.T
    assert lens.nearest_ids is not None
    assert lens.nearest_cosines is not None
    np.testing.assert_allclose(lens.nearest_cosines, -np.sort(-cosines, axis=1)[:, :3], atol=1e-5)
    cosines_of_ids = np.take_along_axis(cosines, lens.nearest_ids.astype(np.int64), axis=1)
    np.testing.assert_allclose(cosines_of_ids, lens.nearest_cosines, atol=1e-5)


def test_streamed_weights_give_the_same_lens(checkpoint: Path) -> None:
    clip = sound(2.0)
    plan = qa.load(checkpoint, dtype="float32").cost("lm.3")
    limited = qa.load(checkpoint, dtype="float32", max_memory=plan.min_memory_bytes + 100_000)
    whole = qa.load(checkpoint, dtype="float32").lens([clip, clip], tokens=["piano"], **RATE)[1]
    streamed = limited.lens(clip, tokens=["piano"], **RATE)
    np.testing.assert_array_equal(streamed.top_ids, whole.top_ids)
    np.testing.assert_allclose(streamed.followed_probabilities, whole.followed_probabilities)


_PEAK_MEMORY_SCRIPT = """
import sys
import numpy as np
import qwen_audio as qa

def peak():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024

model = qa.load(sys.argv[1], dtype="float32", device="cpu")
noise = 0.1 * np.random.default_rng(0).standard_normal(15 * 16_000).astype(np.float32)
model.lens(noise[:8000], sampling_rate=16_000)
before = peak()
lens = model.lens(noise, taps=["lm.0", "lm.1"], tokens=["piano"], sampling_rate=16_000)
print(peak() - before, lens.top_ids.max())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_logits_of_all_positions_are_never_in_memory_at_once(tmp_path: Path) -> None:
    vocabulary = 152_000
    folder = random_checkpoint(tmp_path, lm_layers=1, vocabulary=vocabulary)
    growth_mib, highest = run_forked(_PEAK_MEMORY_SCRIPT, folder).split()
    assert int(highest) > 10_000  # the tokenizer has fewer: such ids have no text, and no error
    logits_mib = 375 * vocabulary * 4 / 2**20  # of one level's positions; several such are needed
    assert float(growth_mib) < 2 * logits_mib


def test_a_lens_loads_only_the_layers_needed_the_norm_and_the_head(checkpoint: Path) -> None:
    model = qa.load(checkpoint, dtype="float32")
    model.lens(sound(1.0), taps=["lm.1"], **RATE)
    resident = {
        name for name in model.pipeline.modules._resident if name.startswith("language_model.")
    }
    assert resident == {
        "language_model.model.layers.0.",
        "language_model.model.norm.",
        "language_model.lm_head.",
    }


def test_spans_and_windows(embedded: qa.AudioModel) -> None:
    clip = sound(5.0)
    options: dict[str, Any] = {**RATE, "window_seconds": 2.0}
    whole = embedded.lens(clip, **options)
    assert len(whole.windows) == 3
    assert [span.window for span in whole.spans] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len(whole.indices("audio")) == 50 + 50 + 25
    np.testing.assert_allclose(whole.start_seconds[whole.indices("audio")][[0, 50, 100]], [0, 2, 4])
    assert np.isnan(whole.start_seconds[whole.indices("prompt")]).all()
    assert {whole.read[row] for row in whole.indices("audio")} == {""}
    assert "".join(whole.read[row] for row in whole.indices("prompt")[:6]).endswith("music:")
    spans: tuple[Any, ...] = ("audio", "prompt", "last")
    for span in spans:
        lens = embedded.lens(clip, span=span, **options)
        rows = whole.indices(span) if span != "last" else np.array([55, 111, 142])
        assert len(lens.read) == len(rows)
        np.testing.assert_allclose(lens.entropy_bits, whole.entropy_bits[:, rows], atol=1e-5)
        np.testing.assert_array_equal(lens.top_ids, whole.top_ids[:, rows])
        np.testing.assert_array_equal(lens.start_seconds, whole.start_seconds[rows])
    assert embedded.lens([], **options) == []


def test_segments_have_the_token_of_highest_mean_probability(embedded: qa.AudioModel) -> None:
    lens = embedded.lens(sound(4.0), **RATE)
    steps = lens.steps(4)
    assert [step.start_seconds for step in steps] == pytest.approx([0, 1, 2, 3])
    audio = lens.indices("audio")[25:50]
    for level, (word, probability_mean) in enumerate(
        zip(steps[1].words, steps[1].probabilities, strict=True)
    ):
        means: dict[str, float] = {}
        for row in audio:
            for text, probability in lens.words(level, int(row)):
                means[text] = means.get(text, 0) + probability / len(audio)
        assert means[word] == pytest.approx(max(means.values()), rel=1e-4)
        assert probability_mean == pytest.approx(means[word], rel=1e-4)
    assert len(lens.steps(1000)) == 100
    assert embedded.lens(sound(1.0), span="last", **RATE).steps() == []


def test_a_lens_is_saved(embedded: qa.AudioModel, tmp_path: Path) -> None:
    lens = embedded.lens(sound(1.0), tokens=["piano"], nearest=True, top=2, **RATE)
    with np.load(lens.save(tmp_path / "lens.npz")) as archive:
        np.testing.assert_array_equal(archive["top_ids"], lens.top_ids)
        np.testing.assert_array_equal(archive["followed_ranks"], lens.followed_ranks)
        facts = json.loads(str(archive["facts"]))
    assert facts["taps"] == [f"lm.{k}" for k in range(len(lens.taps))]
    assert facts["vocabulary"][str(lens.top_ids[0, 0, 0])] == lens.words(0, 0)[0][0]
    with lens.save(tmp_path / "lens.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == lens.entropy_bits.size
    assert rows[-1]["word_1"] == lens.words(-1, -1)[0][0]
    written = [float(row["probability of piano"]) for row in rows]  # positions × levels
    expected = lens.followed_probabilities[:, :, 0].T.ravel()
    np.testing.assert_allclose(written, expected, rtol=0, atol=5.1e-7)  # six decimals
    assert rows[0]["start_seconds"] == ""
    loaded = json.loads(lens.save(tmp_path / "lens.json").read_text(encoding="utf-8"))
    assert len(loaded["rows"]) == len(rows)
    assert loaded["rows"][0]["start_seconds"] is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lens.csv", "lens.json", "lens.npz"]


def test_words_are_tracked_by_their_own_token_or_their_first(embedded: qa.AudioModel) -> None:
    prompts = embedded.pipeline.tokenizer
    piano, unusual = track_tokens(prompts, ["piano", "qzwv"])
    assert piano.label == "piano"
    assert {prompts.decode_token(i).strip() for i in piano.ids} == {"piano"}
    assert unusual.label.endswith("…")
    assert len(unusual.label) < len("qzwv")
    for i in unusual.ids:
        assert "qzwv".startswith(prompts.decode_token(i).strip())
    special = track_tokens(prompts, ["<|endoftext|>"])
    assert prompts.decode_token(special[0].ids[0]) == "<|endoftext|>"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": ["  "]}, "is no word"),
        ({"tokens": "piano"}, "one text: give a list"),
        ({"tokens": ["琴"]}, "a part of a character"),
        ({"tokens": ["qzwv", "qqqq"]}, "share their first token"),
        ({"tokens": ["piano", "piano"]}, "share their first token"),
        ({"taps": ["encoder.1"]}, "encoder.1 has no logits"),
        ({"taps": ["lm.norm"]}, "lm.norm has no logits"),
        ({"taps": []}, "taps is empty"),
        ({"taps": "lm.1"}, "is one tap: give a list"),
        ({"top": 0}, "top=0"),
        ({"top": 101}, "top=101"),
        ({"span": "prompt", "nearest": True}, "only audio has rows at projector"),
        ({"span": "prompt", "prompt": "<|AUDIO|>"}, "no such positions"),
    ],
)
def test_invalid_lens_options(
    embedded: qa.AudioModel, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(qa.OptionError, match=message):
        embedded.lens(sound(1.0), **options, **RATE)


@pytest.mark.parametrize("seconds", [0.04, 0.1, 0.5])
def test_the_shortest_clips_have_a_lens(embedded: qa.AudioModel, seconds: float) -> None:
    assert embedded.lens(sound(seconds), **RATE).steps()
