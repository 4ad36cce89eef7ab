"""The verbs for the eye: the lens equals transformers' own norm and head; views and layers."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qwen_audio as qa
from checkpoints import EMBEDDED, random_checkpoint
from qwen_audio.analysis.logit_lens import track_tokens
from reference import Reference, relative_error, sound

RATE: dict[str, Any] = {"sampling_rate": 16_000}


@pytest.fixture(scope="module", params=["random", "embedded"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[qa.AudioModel, Reference]:
    folder = EMBEDDED
    if request.param == "random":
        folder = random_checkpoint(tmp_path_factory.mktemp("pair"), seed=5)
    return qa.load(folder, dtype="float32", device="cpu"), Reference(folder)


@pytest.fixture(scope="module")
def embedded() -> qa.AudioModel:
    return qa.load()


@torch.inference_mode()
def by_hand(reference: Reference, clip: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
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
def test_the_lens_equals_transformers_norm_and_head(
    pair: tuple[qa.AudioModel, Reference], seconds: float
) -> None:
    model, reference = pair
    clip = sound(seconds, seed=3)
    levels, own = by_hand(reference, clip)
    np.testing.assert_allclose(levels[-1], own, atol=1e-5)
    lens = model.lens(clip, top=7, tokens=["piano", "drums"], **RATE)
    assert [str(tap) for tap in lens.taps] == [f"lm.{k}" for k in range(len(levels))]
    assert lens.top_ids.shape == (len(levels), len(own), 7)
    for level, theirs in enumerate([*levels[:-1], own]):  # the deepest: the model's own
        order = -np.sort(-theirs, axis=1)[:, :7]
        np.testing.assert_allclose(lens.top_probabilities[level], order, atol=2e-5)
        named = np.take_along_axis(theirs, lens.top_ids[level].astype(np.int64), axis=1)
        np.testing.assert_allclose(lens.top_probabilities[level], named, atol=2e-5)
        bits = -(theirs * np.log2(np.maximum(theirs, 1e-30))).sum(1)
        np.testing.assert_allclose(lens.entropy_bits[level], bits, atol=1e-3)
        for place, word in enumerate(lens.followed):
            ours = lens.followed_probabilities[level, :, place]
            np.testing.assert_allclose(ours, theirs[:, list(word.ids)].sum(1), atol=2e-5)
            best = theirs[:, list(word.ids)].max(1)
            low = (theirs > best[:, None] * 1.001).sum(1) + 1
            high = (theirs > best[:, None] * 0.999).sum(1) + 1
            ranks = lens.followed_ranks[level, :, place]
            assert ((low <= ranks) & (ranks <= high)).all()


def test_the_last_position_says_what_the_model_says(embedded: qa.AudioModel) -> None:
    clip = "examples/djembe.flac" if Path("examples").is_dir() else sound(2.0)
    said = embedded.describe(clip, max_new_tokens=1, **({} if isinstance(clip, str) else RATE))
    lens = embedded.lens(clip, span="last", **({} if isinstance(clip, str) else RATE))
    assert lens.top_ids[-1, -1, 0] == said.answers[0].token_ids[0]
    assert len(lens.read) == 1


@pytest.mark.slow
def test_the_nearest_tokens_are_those_of_the_whole_table(
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
    named = np.take_along_axis(cosines, lens.nearest_ids.astype(np.int64), axis=1)
    np.testing.assert_allclose(named, lens.nearest_cosines, atol=1e-5)


def test_streamed_weights_read_out_the_same(checkpoint: Path) -> None:
    clip = sound(2.0)
    plan = qa.load(checkpoint, dtype="float32").cost("lm.3")
    least = qa.load(checkpoint, dtype="float32", max_memory=plan.min_memory_bytes + 100_000)
    whole = qa.load(checkpoint, dtype="float32").lens([clip, clip], tokens=["piano"], **RATE)[1]
    streamed = least.lens(clip, tokens=["piano"], **RATE)
    np.testing.assert_array_equal(streamed.top_ids, whole.top_ids)
    np.testing.assert_allclose(streamed.followed_probabilities, whole.followed_probabilities)


_PEAKS_OF_A_LENS = """
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
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is Linux's to tell")
def test_scores_of_a_large_vocabulary_are_never_there_at_once(tmp_path: Path) -> None:
    vocabulary = 152_000
    folder = random_checkpoint(tmp_path, lm_layers=1, vocabulary=vocabulary)
    done = subprocess.run(
        [sys.executable, "-c", _PEAKS_OF_A_LENS, folder], capture_output=True, text=True, check=True
    )
    grown, highest = done.stdout.split()
    assert int(highest) > 10_000  # the tokenizer has fewer: such ids have no text, and no error
    at_once = 375 * vocabulary * 4 / 2**20  # of one level's positions; several such are needed
    assert float(grown) < 2 * at_once


def test_a_lens_reads_the_final_norm_the_head_and_nothing_deeper(checkpoint: Path) -> None:
    model = qa.load(checkpoint, dtype="float32")
    model.lens(sound(1.0), taps=["lm.1"], **RATE)
    held = {name for name in model.pipeline.modules._resident if name.startswith("language_model.")}
    assert held == {
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
    assert len(whole.rows("audio")) == 50 + 50 + 25
    np.testing.assert_allclose(whole.seconds[whole.rows("audio")][[0, 50, 100]], [0, 2, 4])
    assert np.isnan(whole.seconds[whole.rows("prompt")]).all()
    assert {whole.read[row] for row in whole.rows("audio")} == {""}
    assert "".join(whole.read[row] for row in whole.rows("prompt")[:6]).endswith("music:")
    spans: tuple[Any, ...] = ("audio", "prompt", "last")
    for span in spans:
        part = embedded.lens(clip, span=span, **options)
        rows = whole.rows(span) if span != "last" else np.array([55, 111, 142])
        assert len(part.read) == len(rows)
        np.testing.assert_allclose(part.entropy_bits, whole.entropy_bits[:, rows], atol=1e-5)
        np.testing.assert_array_equal(part.top_ids, whole.top_ids[:, rows])
        np.testing.assert_array_equal(part.seconds, whole.seconds[rows])
    assert embedded.lens([], **options) == []


def test_steps_sum_the_audio_up(embedded: qa.AudioModel) -> None:
    lens = embedded.lens(sound(4.0), **RATE)
    steps = lens.steps(4)
    assert [step.start_seconds for step in steps] == pytest.approx([0, 1, 2, 3])
    audio = lens.rows("audio")[25:50]
    for level, (word, share) in enumerate(zip(steps[1].words, steps[1].probabilities, strict=True)):
        means: dict[str, float] = {}
        for row in audio:
            for text, probability in lens.words(level, int(row)):
                means[text] = means.get(text, 0) + probability / len(audio)
        assert means[word] == pytest.approx(max(means.values()), rel=1e-4)
        assert share == pytest.approx(means[word], rel=1e-4)
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
    with lens.save(tmp_path / "lens.csv").open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
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


def test_words_are_followed_by_their_own_token_or_their_first(embedded: qa.AudioModel) -> None:
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
def test_a_lens_of_what_makes_no_sense(
    embedded: qa.AudioModel, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(qa.OptionError, match=message):
        embedded.lens(sound(1.0), **options, **RATE)


@pytest.mark.slow
def test_a_view_is_the_rows_of_the_tap(embedded: qa.AudioModel) -> None:
    clip = sound(6.0)
    for tap in ("mel", "encoder.2", "audio_tower", "lm.2"):
        frames = embedded.activations(clip, taps=[tap, "mel"], **RATE)
        view = embedded.view(clip, tap=tap, **RATE)
        assert view.frames_per_column == 1
        rows = frames[tap].data[frames[tap].rows("audio")]
        assert relative_error(view.rows, rows) < 1e-5
        assert view.hop_seconds == pytest.approx(frames[tap].hop_seconds)
        assert view.log_mel is not None
        assert relative_error(view.log_mel, 40 * frames["mel"].data - 40) < 1e-5
        same = qa.View.of(frames[tap], log_mel=frames["mel"], mel_hz=embedded.mel_hz)
        np.testing.assert_allclose(same.rows, view.rows, atol=1e-3)
        np.testing.assert_allclose(same.boundaries, view.boundaries)
    assert view.duration_seconds == 6
    assert view.envelope is not None
    assert view.envelope[1].max() == clip.max()


@pytest.mark.slow
def test_a_long_recording_becomes_a_thousand_columns_at_most(embedded: qa.AudioModel) -> None:
    clip = sound(65.0)
    frames = embedded.activations(clip, taps=["encoder.1"], **RATE)["encoder.1"]
    view = embedded.view(clip, tap="encoder.1", **RATE)
    assert view.rows.shape == (1000, embedded.dimensions.encoder_width)
    assert view.frames_per_column == pytest.approx(3.25)
    whole = qa.View.of(frames)
    assert relative_error(view.rows, whole.rows) < 0.1  # groups lie in one column or the next
    coarse = embedded.view(clip, tap="encoder.1", columns=13, **RATE)
    means = frames.data.reshape(13, -1, frames.data.shape[1]).mean(1)
    assert relative_error(coarse.rows, means) < 0.02
    assert coarse.seconds[-1] == pytest.approx(60)


@pytest.mark.slow
def test_sections_are_found_in_seconds(embedded: qa.AudioModel) -> None:
    time = np.arange(8 * 16_000) / 16_000
    tone = np.sin(2 * np.pi * 440 * time) * (1 + np.sin(2 * np.pi * 4 * time)) / 4
    noise = np.random.default_rng(0).standard_normal(time.size) / 8
    clip = np.where(time < 5, tone, noise).astype(np.float32)
    for tap in ("mel", "encoder.1", "audio_tower"):
        view = embedded.view(clip, tap=tap, kernel_seconds=3.0, **RATE)
        assert np.abs(view.boundaries - 5).min() < 0.15, tap
        assert len(view.boundaries) <= 3


@pytest.mark.slow
def test_depth_shows_every_tap(pair: tuple[qa.AudioModel, Reference]) -> None:
    model, reference = pair
    clip = sound(2.0)
    view = model.view(clip, depth=True, **RATE)
    assert view.depth_taps == tuple(map(str, model.taps))
    assert view.depth_norms is not None
    taps = reference.taps(clip)
    for tap, quartiles in zip(view.depth_taps, view.depth_norms, strict=True):
        theirs = np.linalg.norm(taps[tap], axis=1)
        if tap.startswith("lm."):  # audio alone: a marker before it, another and the words after it
            theirs = theirs[1:-5]
        np.testing.assert_allclose(quartiles, np.percentile(theirs, [25, 50, 75]), rtol=1e-3)


@pytest.mark.slow
def test_layers_compare_the_same_stretches(embedded: qa.AudioModel) -> None:
    from qwen_audio.analysis.similarity import cka_matrix

    clips = [sound(2.5, seed) for seed in range(3)]
    taps = ["mel", "encoder.1", "projector", "lm.0", "lm.2"]
    layers = embedded.layer_similarity(clips, taps=taps, **RATE)
    assert layers.taps == tuple(taps)
    assert layers.examples == 3 * 62
    np.testing.assert_allclose(np.diag(layers.similarity), 1, atol=1e-5)
    assert layers.similarity[2, 3] == pytest.approx(1, abs=1e-4)  # audio is merged as it is
    frames = embedded.activations(clips, taps=taps, **RATE)
    mel = np.concatenate([f["mel"].data[:248].reshape(62, 4, -1).mean(1) for f in frames])
    audio = np.concatenate([f["lm.2"].data[f["lm.2"].rows("audio")] for f in frames])
    assert layers.similarity[0, 4] == pytest.approx(cka_matrix([mel, audio])[0, 1], abs=1e-3)
    few = embedded.layer_similarity(clips, taps=taps, examples=30, **RATE)
    assert few.examples == 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"examples": 3}, "examples=3"),
        ({"taps": ["mel"]}, "two or more"),
        ({"prompt": "What?", "taps": ["mel", "encoder.1"]}, "only the language model"),
    ],
)
def test_layers_of_what_makes_no_sense(
    embedded: qa.AudioModel, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(qa.OptionError, match=message):
        embedded.layer_similarity([sound(1.0)], **options, **RATE)


def test_layers_take_a_list(embedded: qa.AudioModel) -> None:
    with pytest.raises(qa.OptionError, match="a list of recordings"):
        embedded.layer_similarity([])
    with pytest.raises(qa.OptionError, match="give examples=26 or more"):
        embedded.layer_similarity([sound(13.0)], examples=16, window_seconds=1.0, **RATE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": 1}, "columns=1"),
        ({"kernel_seconds": 0.04}, "kernel_seconds=0.04"),
        ({"kernel_seconds": 7.0}, "kernel_seconds=7"),
        ({"prompt": "What?"}, "only the language model"),
        ({"window_seconds": 31.0}, "window_seconds"),
    ],
)
def test_a_view_of_what_makes_no_sense(
    embedded: qa.AudioModel, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(qa.OptionError, match=message):
        embedded.view(sound(5.0), **options, **RATE)


@pytest.mark.parametrize("seconds", [0.04, 0.1, 0.5])
def test_the_shortest_clips_can_be_looked_at(embedded: qa.AudioModel, seconds: float) -> None:
    view = embedded.view(sound(seconds), **RATE)
    assert view.similarity.shape == (len(view.rows),) * 2
    assert len(view.boundaries) == 0 or seconds > 0.1
    embedded.lens(sound(seconds), **RATE).steps()


def test_views_and_layers_are_saved(embedded: qa.AudioModel, tmp_path: Path) -> None:
    view = embedded.view(sound(2.0), **RATE)
    with np.load(view.save(tmp_path / "view.npz")) as archive:
        np.testing.assert_array_equal(archive["similarity"], view.similarity)
        assert json.loads(str(archive["facts"]))["tap"] == "audio_tower"
    with view.save(tmp_path / "view.csv").open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert len(rows) == len(view.rows)
    assert rows[0]["novelty"] == ""
    layers = embedded.layer_similarity([sound(2.0)], taps=["mel", "lm.0"], **RATE)
    saved = json.loads(layers.save(tmp_path / "layers.json").read_text(encoding="utf-8"))
    assert saved["rows"][0]["mel"] == 1.0
    for bad, message in (("x.txt", "use .npz"), ("no/x.npz", "no folder"), (".", "use .npz")):
        with pytest.raises(qa.OptionError, match=message):
            view.save(tmp_path / bad)
