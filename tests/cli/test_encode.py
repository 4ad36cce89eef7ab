"""`qwen-audio encode`: the file it writes, and files that fail."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile
import torch

import qwen_audio as qa
from commands import run
from qwen_audio.inference.cost import non_weight_bytes
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.tap import Tap
from qwen_audio.weights.module_store import ModuleStore
from reference import sound


def test_one_failure_does_not_stop_the_others(
    clips: list[Path], checkpoint: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.mp3"
    bad.write_bytes(b"not a sound")
    output = tmp_path / "out.npz"
    files = [clips[0], bad, tmp_path / "none.wav", clips[1]]
    done = run("encode", *files, "--model", checkpoint, "-o", output)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert str(bad) in lines[0]
    assert "no such file" in lines[1]
    assert lines[2] == "qwen-audio: 2 of 4 files failed"
    with np.load(output) as file:
        assert file["source"].tolist() == [str(clips[0]), str(clips[1])]
        expected = qa.load(checkpoint).encode([clips[0], clips[1]])
        np.testing.assert_allclose(file["vectors"], expected, atol=1e-5)
        assert qa.EmbeddingSpec.from_json(str(file["spec"])) == qa.load(checkpoint).spec()


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".parquet"])
def test_files_are_written_in_order_without_the_failed_ones(
    suffix: str, checkpoint: Path, tmp_path: Path
) -> None:
    """One line per failed file; the others are written in order, all of their rows."""
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
    assert json.loads(done.stdout)["shape"] == [sum(map(len, expected)), expected[0].shape[1]]
    if suffix == ".npz":
        with np.load(output) as file:
            assert file["source"].tolist() == [
                name for name, rows in zip(whole, expected, strict=True) for _ in rows
            ]
            np.testing.assert_allclose(file["vectors"], np.concatenate(expected), atol=1e-5)


def test_several_taps_one_vector_a_window(
    clips: list[Path], checkpoint: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.npz"
    taps = ("encoder.1", "lm.-1")
    options = ["--tap", taps[0], "--tap", taps[1], "--per", "window", "--window", "1"]
    done = run("encode", *clips, "--model", checkpoint, *options, "-o", output, "--json")
    assert done.returncode == 0, done.stderr
    lines = list(map(json.loads, done.stdout.splitlines()))
    expected = qa.load(checkpoint).encode(clips, tap=taps, per="window", window_seconds=1.0)
    with np.load(output) as file:
        for tap, line in zip(taps, lines, strict=True):
            whole = qa.Embeddings.concatenate(expected[tap])
            assert line["shape"] == list(whole.shape)
            np.testing.assert_allclose(file[f"{tap}/vectors"], whole, atol=1e-5)
            for name, column in whole.index.columns().items():
                np.testing.assert_array_equal(file[f"{tap}/{name}"], column)


def test_little_memory_gives_the_same_file(
    clips: list[Path], checkpoint: Path, tmp_path: Path
) -> None:
    """With memory for two layers, the numbers are those of all layers in memory."""
    opened = Checkpoint(checkpoint)
    parts = ModuleStore(opened.tensors, torch.device("cpu"), torch.float32)
    least = non_weight_bytes(opened, Tap.parse("lm.norm"), torch.float32)
    least += 2 * parts._weight_bytes("language_model.model.layers.0.")
    options: list[str | Path] = ["--model", checkpoint, "--tap", "lm.norm", "--dtype", "float32"]
    vectors = []
    for memory in ("8GB", str(least)):
        output = tmp_path / f"{memory}.npz"
        done = run("encode", *clips, *options, "--max-memory", memory, "-o", output)
        assert done.returncode == 0
        with np.load(output) as file:
            vectors.append(file["vectors"])
    np.testing.assert_array_equal(*vectors)
    done = run("encode", *clips, *options, "--max-memory", "1MB", "-o", tmp_path / "none.npz")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "--max-memory" in done.stderr
    assert not (tmp_path / "none.npz").exists()


def test_nothing_is_written_if_every_file_fails(tmp_path: Path, checkpoint: Path) -> None:
    output = tmp_path / "out.npz"
    done = run("encode", tmp_path / "none.wav", "--model", checkpoint, "-o", output)
    assert done.returncode == 1
    assert not output.exists()


def test_an_unknown_pooling(clips: list[Path]) -> None:
    done = run("encode", clips[0], "-o", "out.npz", "--pooling", "sum")
    assert done.returncode == 1
    assert "use one of mean, max, mean+std, last, none" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_folder_of_shards(clips: list[Path], checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "rows.dataset"
    options = ("--model", checkpoint, "--tap", "lm.1", "-o", folder)
    pooled = run("encode", clips[0], *options)
    assert pooled.returncode == 1
    assert "is of rows, not of mean vectors: use pooling none" in pooled.stderr
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no sound")
    first = run("encode", clips[0], bad, *options, "--pooling", "none")
    assert (first.returncode, "1 of 2 files failed" in first.stderr) == (1, True)
    again = run("encode", clips[0], *options, "--pooling", "none")
    assert (again.returncode, "holds something already" in again.stderr) == (1, True)
    both = run("encode", *clips, *options, "--pooling", "none", "--resume")
    assert both.returncode == 0
    assert "already done: 1 of 2 files" in both.stderr
    expected = qa.load(checkpoint).encode(list(clips), tap="lm.1", pooling="none")
    found = datasets.load_from_disk(str(folder)).with_format("numpy")["lm.1"][:]
    np.testing.assert_allclose(found[:, 0], np.concatenate(expected), atol=1e-5)
