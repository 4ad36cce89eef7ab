"""`--adapter`, in the commands that load a model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import Qwen2AudioForConditionalGeneration

import qwen_audio as qa
from adapters import write_adapter
from commands import run


@pytest.fixture(scope="module")
def adapter(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = Qwen2AudioForConditionalGeneration.from_pretrained(checkpoint)
    return write_adapter(tmp_path_factory.mktemp("adapter"), model)


def test_vectors_of_a_model_with_an_adapter(
    clips: list[Path], checkpoint: Path, adapter: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.npz"
    options = ("--model", checkpoint, "--adapter", adapter, "-o", output, "--json")
    done = run("encode", clips[0], *options)
    assert (done.returncode, done.stderr) == (0, "")
    model = qa.load(checkpoint, adapter=adapter)
    assert json.loads(done.stdout)["spec"]["adapter"] == model.spec().adapter
    with np.load(output) as file:
        np.testing.assert_allclose(file["vectors"], model.encode([clips[0]]), atol=1e-5)
        assert np.abs(file["vectors"] - qa.load(checkpoint).encode([clips[0]])).max() > 0.01


def test_costs_of_a_model_with_an_adapter(checkpoint: Path, adapter: Path) -> None:
    done = run("taps", "--model", checkpoint, "--adapter", adapter, "--json")
    assert {json.loads(row)["adapter"] for row in done.stdout.splitlines()} == {str(adapter)}
    assert f"Taps of {checkpoint} with {adapter} in" in run(
        "taps", "--model", checkpoint, "--adapter", adapter
    ).stdout.replace("\n", " ")
    assert '"adapter"' not in run("taps", "--model", checkpoint, "--json").stdout


@pytest.mark.slow
def test_a_collection_needs_its_adapter(
    music: Path, checkpoint: Path, adapter: Path, tmp_path: Path
) -> None:
    into = tmp_path / "music.lance"
    model = ("--model", checkpoint)
    assert run("index", music, "-o", into, *model, "--adapter", adapter).returncode == 0
    for command in (
        ("index", music, "-o", into),
        ("search", into, music / "0.wav"),
        ("collection", "verify", into),
    ):
        done = run(*command)
        assert done.returncode == 1
        assert "the collection was made with an adapter (content hash" in done.stderr
        assert "give it with --adapter" in done.stderr
        assert run(*command, "--adapter", adapter).returncode == 0
    assert run("search", into, "--like", "0.wav").returncode == 1  # which needs no model
    spec = json.loads(run("collection", "info", into, "--json").stdout)["spec"]
    assert len(spec["adapter"]) == 40


@pytest.mark.parametrize("command", [("taps",), ("encode", "0.wav", "-o", "a.npz")])
def test_a_name_that_is_no_adapter(command: tuple[str, ...], folder: Path) -> None:
    done = run(*command, "--adapter", "nothing")
    assert done.returncode == 1
    assert "'nothing' is not an adapter: give the folder with its adapter_config" in done.stderr


def test_an_adapter_given_as_model(adapter: Path, clips: list[Path]) -> None:
    done = run("describe", clips[0], "--model", adapter)
    assert done.returncode == 1
    assert done.stderr.startswith(f"qwen-audio: {adapter} is an adapter (PEFT) for owner/base, not")
    assert f"--model owner/base and --adapter {adapter}" in done.stderr
