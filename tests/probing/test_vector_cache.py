from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from qwen_audio.api.spec import EmbeddingSpec
from qwen_audio.errors import OptionError
from qwen_audio.probing.vector_cache import VectorCache

A, B = (EmbeddingSpec.from_settings(model="m", revision="r", tap=tap) for tap in ("mel", "lm.0"))


def vector(seed: int, width: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(width).astype(np.float32)


def test_what_is_added_is_there_for_others_to_read(tmp_path: Path) -> None:
    first = VectorCache(tmp_path / "cache")
    for number in range(5):
        first.add(f"r{number}", {A: vector(number), B: vector(number, 7)})
    assert not first.has(A, "r0")  # not before it is written
    first.commit()
    second = VectorCache(tmp_path / "cache")
    second.add("r5", {B: vector(5, 7)})
    second.commit()
    both = VectorCache(tmp_path / "cache")
    assert [both.has(A, f"r{n}") for n in (4, 5)] == [True, False]
    order = ["r5", "r0", "r3", "r0"]
    expected = np.stack([vector(n, 7) for n in (5, 0, 3, 0)])
    np.testing.assert_array_equal(both.vectors(B, order), expected)
    np.testing.assert_array_equal(both.vectors(A, ["r2"]), [vector(2)])
    assert not list(tmp_path.rglob("*.part"))


_ADD = """
import sys, numpy as np
from qwen_audio.probing import vector_cache
from qwen_audio.api.spec import EmbeddingSpec
vector_cache._BYTES = 4000
cache = vector_cache.VectorCache(sys.argv[1])
spec = EmbeddingSpec.from_settings(model="m", revision="r", tap="mel")
for number in range(10**9):
    cache.add(f"r{number}", {spec: np.full(100, number, np.float32)})
    print(number, flush=True)
"""


def test_a_process_that_is_killed_leaves_nothing_half(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _ADD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(60):
        process.stdout.readline()
    time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    cache = VectorCache(tmp_path)
    kept = [number for number in range(10_000) if cache.has(A, f"r{number}")]
    assert len(kept) >= 50  # ten at a time
    assert kept == list(range(len(kept)))
    rows = cache.vectors(A, [f"r{number}" for number in kept])
    np.testing.assert_array_equal(rows, np.repeat(np.array(kept, np.float32)[:, None], 100, 1))


def test_damage_and_places_that_take_no_files(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OptionError, match="can't hold vectors"):
        VectorCache(tmp_path / "file")
    cache = VectorCache(tmp_path / "cache")
    cache.add("r", {A: vector(0)})
    cache.commit()
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(OptionError, match=r"is damaged .* delete it"):
        VectorCache(tmp_path / "cache")
