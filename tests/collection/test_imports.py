"""Operations on a collection that need no model import no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import qwen_audio as qa
from qwen_audio.collection.collection import Collection
from recordings import sound, write_wav

OPERATIONS = """
import sys
from qwen_audio.collection.collection import Collection

collection = Collection.open(sys.argv[1])
assert collection.info().rows == 2
assert len(collection.recordings("duration_seconds > 1.2")) == 1
assert collection.failures() == [] and collection.prune() == []
assert collection.search(caption="a") is not None
assert collection.search(like=collection.recordings()[0]["source"])
assert collection.export(sys.argv[1] + ".npz") == 2
from qwen_audio.cli.main import main

assert main(["search", sys.argv[1], "--caption", "xylophonically"]) == 0
assert main(["search", sys.argv[1], "--like", collection.recordings()[0]["source"], "--json"]) == 0
print(sorted(sys.modules.keys() & {"torch", "transformers", "tokenizers"}))
"""


@pytest.mark.slow
def test_operations_without_a_model_import_no_torch(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(write_wav(sound(1.0, 16_000, seed=1), 16_000))
    (tmp_path / "b.wav").write_bytes(write_wav(sound(1.5, 16_000, seed=2), 16_000))
    collection = Collection.create(tmp_path / "c.lance", qa.load(), describe=True)
    assert collection.index(tmp_path).rows == 2
    done = subprocess.run(
        [sys.executable, "-c", OPERATIONS, str(collection.path)],
        capture_output=True,
        text=True,
        check=False,
    )
    found, modules = done.stdout.splitlines()
    assert (done.returncode, modules) == (0, "[]")
    assert '"rank": 1' in found
    assert done.stderr == "qwen-audio: nothing found among 2 windows\n"
