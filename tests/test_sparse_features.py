"""The example that trains a sparse dictionary on rows of a tap."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import qwen_audio as qa

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_a_dictionary_of_the_examples(tmp_path: Path) -> None:
    model = qa.load(dtype="float32")
    names = [ROOT / "examples" / f"{name}.flac" for name in ("guitar", "djembe", "speech")]
    with qa.ActivationDataset(tmp_path / "lm2.dataset") as dataset:
        for rows in model.encode_each(names, tap="lm.2", pooling="none"):
            dataset.add(rows)
    program = [sys.executable, str(ROOT / "examples" / "sparse_features.py")]
    program += [str(dataset.target), "lm.2"]
    done = subprocess.run([*program, "--steps", "150"], capture_output=True, text=True, check=True)
    first, *features = done.stdout.splitlines()
    explained = int(first.partition(": ")[2].partition("%")[0])
    assert explained > 50  # of a dictionary that isn't trained, below 0
    assert len(features) == 8
    assert all(".flac " in line for line in features)
