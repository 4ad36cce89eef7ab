"""The command line, as a process: what it prints, where, and with which exit status."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import qwen_audio as qa
from checkpoints import EMBEDDED
from commands import run, run_process
from qwen_audio.inference.cost import non_weight_bytes
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.weights.module_store import ModuleStore
from reference import sound


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    paths = [folder / "one.wav", folder / "two.flac"]
    for seed, path in enumerate(paths):
        soundfile.write(path, sound(1.0 + seed, seed), 16_000)
    return paths


def test_describe_prints_what_describe_gives(clips: list[Path], checkpoint: Path) -> None:
    done = run_process("describe", clips[0], "--model", checkpoint, "--max-new-tokens", "5")
    expected = qa.load(checkpoint).describe(clips[0], max_new_tokens=5)
    assert done.stdout.strip() == expected
    assert done.returncode == 0
    assert "cut off at 5 tokens" in done.stderr


def test_describe_several_names_each_and_json_is_a_line_each(
    clips: list[Path], checkpoint: Path
) -> None:
    options: list[str | Path] = ["--model", checkpoint, "--max-new-tokens", "3"]
    done = run("describe", *clips, *options)
    assert [line.split(": ")[0] for line in done.stdout.splitlines()] == [str(c) for c in clips]
    done = run("describe", *clips, *options, "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["source"] for row in rows] == [str(clip) for clip in clips]
    assert rows[1]["answers"][0]["audio_tokens"] == 50
    assert rows[1]["answers"][0]["window"] == {"start_seconds": 0.0, "end_seconds": 2.0}


def test_standard_input(clips: list[Path], checkpoint: Path) -> None:
    options: list[str | Path] = ["--model", checkpoint, "--max-new-tokens", "3"]
    piped = run_process("describe", "-", *options, stdin=clips[0].read_bytes())
    assert piped.stdout == run("describe", clips[0], *options).stdout


def test_one_failure_does_not_stop_the_others(
    clips: list[Path], checkpoint: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.mp3"
    bad.write_bytes(b"not a sound")
    output = tmp_path / "out.npz"
    files = [clips[0], bad, tmp_path / "none.wav", clips[1]]
    done = run_process("encode", *files, "--model", checkpoint, "-o", output)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert str(bad) in lines[0]
    assert "no such file" in lines[1]
    assert lines[2] == "qwen-audio: 2 of 4 files failed"
    with np.load(output) as file:
        assert file["sources"].tolist() == [str(clips[0]), str(clips[1])]
        expected = qa.load(checkpoint).encode([clips[0], clips[1]])
        np.testing.assert_allclose(file["vectors"], expected, atol=1e-5)
        assert qa.EmbeddingSpec.from_json(str(file["spec"])) == qa.load(checkpoint).spec()


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".parquet"])
def test_a_folder_with_broken_files_is_written_in_order(
    suffix: str, checkpoint: Path, tmp_path: Path
) -> None:
    """One line for each that failed, in its place; the rest is there, whole and unpooled."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(7):
        soundfile.write(folder / f"{number}.wav", sound(0.3 + number / 9, number), 16_000)
    for number in (2, 5):
        (folder / f"{number}.wav").write_bytes(b"RIFF and nothing more")
    files = sorted(folder.iterdir())
    output = tmp_path / f"out{suffix}"
    options: list[str | Path] = [
        "--model",
        checkpoint,
        "--tap",
        "encoder.1",
        "--pooling",
        "none",
        "--json",
    ]
    done = run("encode", *files, "-o", output, *options)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert [name in line for name, line in zip(("2.wav", "5.wav"), lines, strict=False)] == [
        True
    ] * 2
    assert lines[2:] == ["qwen-audio: 2 of 7 files failed"]
    whole = [str(file) for file in files if file.stem not in "25"]
    assert json.loads(done.stdout)["sources"] == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", output.name]
    expected = qa.load(checkpoint).encode(whole, tap="encoder.1", pooling="none")
    assert json.loads(done.stdout)["shapes"] == [list(rows.shape) for rows in expected]
    if suffix == ".npz":
        with np.load(output) as held:
            assert held["sources"].tolist() == whole
            for k, rows in enumerate(expected):
                np.testing.assert_allclose(held[f"vectors_{k}"], rows, atol=1e-5)


def test_little_memory_gives_the_same_file(
    clips: list[Path], checkpoint: Path, tmp_path: Path
) -> None:
    """The budget holds two layers; the numbers are those of plenty."""
    opened = Checkpoint(checkpoint)
    parts = ModuleStore(opened.tensors, torch.device("cpu"), torch.float32)
    least = non_weight_bytes(opened, None, torch.float32)
    least += 2 * parts._bytes("language_model.model.layers.0.")
    options: list[str | Path] = ["--model", checkpoint, "--tap", "lm.norm", "--dtype", "float32"]
    vectors = []
    for memory in ("8GB", str(least)):
        output = tmp_path / f"{memory}.npz"
        done = run("encode", *clips, *options, "--max-memory", memory, "-o", output)
        assert done.returncode == 0
        with np.load(output) as held:
            vectors.append(held["vectors"])
    np.testing.assert_array_equal(*vectors)
    done = run("encode", *clips, *options, "--max-memory", "1MB", "-o", tmp_path / "none.npz")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "max_memory" in done.stderr
    assert not (tmp_path / "none.npz").exists()


def test_nothing_is_written_when_nothing_could_be_heard(tmp_path: Path, checkpoint: Path) -> None:
    output = tmp_path / "out.npz"
    done = run("encode", tmp_path / "none.wav", "--model", checkpoint, "-o", output)
    assert done.returncode == 1
    assert not output.exists()


def test_inspect_of_30_seconds(tmp_path: Path) -> None:
    clip = tmp_path / "half a minute.wav"
    soundfile.write(clip, sound(30.0), 16_000)
    done = run("inspect", clip, "--prompt", "Describe the music:", "--json")
    story: dict[str, Any] = json.loads(done.stdout)
    (window,) = story["windows"]
    assert (window["prompt_ids"], window["positions"]) == (7, 756)
    assert (story["mel_bins"], window["mel_frames"]) == (80, 3000)
    assert (window["encoder_frames"], window["audio_tokens"]) == (1500, 750)
    table = run("inspect", clip).stdout
    for cell in ("80 × 3000", "1500", "750", "7", "756", "audio_tower", "lm.0", "lm.norm"):
        assert re.search(rf"(^|\s){re.escape(cell)}(\s|$)", table, re.M), cell


def test_taps_lists_the_line(checkpoint: Path) -> None:
    model = qa.load(checkpoint)
    done = run("taps", checkpoint, "--json")
    rows = json.loads(done.stdout)["taps"]
    assert [row["tap"] for row in rows] == [str(tap) for tap in model.taps]
    for row, tap in zip(rows, model.taps, strict=True):
        plan = dataclasses.asdict(qa.load(checkpoint, max_memory="1TB").cost(tap))
        assert {name: row[name] for name in plan} == plan
        assert row["download_bytes"] == 0
        assert (row["width"], row["rate_hz"]) == (model.dimensions.width(tap), tap.rate_hz)
    text = json.loads(done.stdout)["text"]
    assert text == dataclasses.asdict(qa.load(checkpoint, max_memory="1TB").cost(None))
    assert json.loads(done.stdout)["dtype"] == model.dtype
    assert "lm.norm" in run("taps", "--model", checkpoint).stdout
    both = run("taps", checkpoint, "--model", checkpoint)
    assert both.returncode == 1
    assert both.stderr.count("\n") == 1


def test_the_embedded_checkpoint_says_that_it_is_used() -> None:
    done = run("taps")
    assert done.stderr.count("\n") == 1
    assert "embedded" in done.stderr
    assert "embedded" not in run("taps", EMBEDDED).stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("describe", "{clip}", "--model", "nowhere"),
        ("describe", "{clip}", "--device", "tpu"),
        ("describe", "{clip}", "--window", "99"),
        ("describe", "{clip}", "{clip}", "--top-p", "0.3"),
        ("describe", "{folder}"),
        ("describe", "{clip}", "--max-memory", "plenty"),
        ("encode", "{clip}", "-o", "out.npz", "--max-memory", "0"),
        ("encode", "{clip}", "-o", "out.csv"),
        ("encode", "{clip}", "-o", "out.npz", "--tap", "lm.99"),
        ("encode", "{clip}", "-o", "out.npz", "--prompt", "What?"),
        ("encode", "{clip}", "{clip}", "-o", "out.npz", "--span", "last"),
        ("encode", "{clip}", "-o", "/proc/out.safetensors"),
        ("describe", "-", "-"),
        ("inspect", "{folder}/none.wav"),
    ],
)
def test_mistakes_are_one_line_and_a_status(clips: list[Path], arguments: tuple[str, ...]) -> None:
    names = {"clip": str(clips[0]), "folder": str(clips[0].parent)}
    done = run(*(argument.format(**names) for argument in arguments))
    lines = [line for line in done.stderr.splitlines() if "small embedded" not in line]
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(lines) == 1
    assert lines[0].startswith("qwen-audio: ")


def test_a_pooling_that_does_not_exist(clips: list[Path]) -> None:
    done = run_process("encode", clips[0], "-o", "out.npz", "--pooling", "sum")
    assert done.returncode == 1
    assert "use one of mean, max, mean+std, last, none" in done.stderr.splitlines()[-1]


def test_a_wrong_call_is_status_2(clips: list[Path]) -> None:
    done = run("describe", clips[0], "--promt", "What?")
    assert done.returncode == 2
    assert "--promt" in done.stderr
    done = run("encode", clips[0], "--tap", "mel", "--tap", "lm.0", "-o", "out.npz")
    assert done.returncode == 2
    assert "--tap is given more than once" in done.stderr


def test_a_terminal_without_dashes_gets_question_marks(clips: list[Path]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "qwen_audio.cli.main", "inspect", str(clips[0])],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    assert b"80 ? 100" in done.stdout


def test_help_is_fast_and_names_every_command() -> None:
    seconds = []
    for _ in range(5):  # the best of five: other processes may be busy
        start = time.perf_counter()
        done = run_process("--help")
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.3
    for command in ("describe", "encode", "inspect", "taps"):
        assert f"\n    {command} " in done.stdout
        assert run(command, "--help").returncode == 0
    assert run("--version").stdout.strip() == f"qwen-audio {qa.__version__}"


def test_a_fast_start_gives_the_same_numbers_and_leaves_nothing_behind() -> None:
    """With and without the placeholders of `fast_start`, in processes of their own."""
    program = """
import sys
if {fast}:
    from qwen_audio.cli.stub_imports import fast_start
    with fast_start():
        from qwen_audio.api.model import load
    assert not any(name.startswith("torch._dynamo") for name in sys.modules)
    assert "sympy" not in sys.modules
else:
    from qwen_audio.api.model import load
import numpy as np, torch
clip = np.sin(np.arange(16000) / 7).astype(np.float32)
model = load()
vectors = [model.encode(clip, tap=tap, sampling_rate=16000) for tap in ("encoder.-1", "lm.norm")]
print(model.describe(clip, sampling_rate=16000).answers[0].token_ids)
print([vector.tobytes().hex() for vector in vectors])
import torch._dynamo
assert torch._dynamo.__file__ and torch.distributed.is_available()
"""
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program.format(fast=fast)],
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for fast in (True, False)
    ]
    assert outputs[0] == outputs[1]
    assert outputs[0]
