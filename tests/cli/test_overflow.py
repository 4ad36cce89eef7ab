"""Commands with a checkpoint that overflows in float16: one clear line, and a failure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

import qwen_audio as qa
from checkpoints import changed_checkpoint
from commands import run
from recordings import sound

DOWN = "language_model.model.layers.1.mlp.down_proj.weight"
FC2 = "audio_tower.layers.1.fc2.weight"


@pytest.fixture(scope="module")
def overflowing(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose lm.2 overflows in float16."""
    folder = tmp_path_factory.mktemp("overflow") / "lm"
    return changed_checkpoint(checkpoint, folder, DOWN, lambda w: 60_000 * w)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "files"),
    [
        ("describe", 1),
        ("describe", 2),
        ("lens", 1),
        ("plot --tap lm.2", 2),
        ("encode --tap lm.norm -o out.npz", 1),
        ("encode --tap lm.norm -o out.npz", 2),
        ("index --tap lm.2 -o m.lance", 1),
        ("index --tap lm.2 -o m.lance", 2),
        ("index --describe -o m.lance", 2),
        ("parity -o out.json", 0),
    ],
)
def test_one_line_and_nothing_written(
    folder: Path, overflowing: Path, command: str, files: int
) -> None:
    before = sorted(folder.rglob("*"))
    inputs = sorted(folder.glob("*.wav"))[:files]
    done = run(*command.split(), *inputs, "--model", overflowing, "--dtype", "float16")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "float16 overflows at lm.2" in done.stderr
    assert done.stderr.endswith(": use bfloat16 or float32\n")
    assert sorted(folder.rglob("*")) == before


@pytest.mark.slow
def test_index_names_the_one_recording_that_overflows(
    tmp_path: Path, folder: Path, checkpoint: Path
) -> None:
    model = changed_checkpoint(checkpoint, tmp_path / "m", FC2, lambda w: 26_200 * w)
    options = ("--model", model, "--dtype", "float16", "-o", "m.lance")
    quiet, loud = folder / "2 quiet.wav", folder / "1 loud.wav"
    soundfile.write(quiet, np.zeros(16_000), 16_000)
    soundfile.write(loud, sound(1.0, 16_000, seed=4)[0], 16_000)
    done = run("index", loud, quiet, *options)
    assert done.returncode == 1
    assert done.stdout.startswith("m.lance: 1 added, 0 replaced, 0 unchanged, 1 failed; 1 row;")
    assert f"{loud}: float16 overflows at encoder.2: use bfloat16 or float32" in done.stderr

    # The model has worked for the collection's rows: what overflows now is the recording's.
    again = run("index", loud, quiet, *options, "--retry")
    assert again.returncode == 1
    assert "0 added, 0 replaced, 1 unchanged, 1 failed" in again.stdout
    failure = run("collection", "failures", "m.lance").stdout
    assert failure == f"{loud}: float16 overflows at encoder.2: use bfloat16 or float32\n"
    assert len(qa.Collection.open("m.lance")) == 1
