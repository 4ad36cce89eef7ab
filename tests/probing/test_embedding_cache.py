from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from qwen_audio.errors import OptionError
from qwen_audio.inference.embedding_spec import EmbeddingSpec
from qwen_audio.probing.embedding_cache import EmbeddingCache

MEL_SPEC, LM_SPEC = (
    EmbeddingSpec.from_settings(model="m", revision="r", tap=tap) for tap in ("mel", "lm.0")
)


def vector(seed: int, width: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(width).astype(np.float32)


def test_other_instances_read_what_was_committed(tmp_path: Path) -> None:
    first = EmbeddingCache(tmp_path / "cache")
    for number in range(5):
        first.add(f"r{number}", {MEL_SPEC: vector(number), LM_SPEC: vector(number, 7)})
    assert not first.has(MEL_SPEC, "r0")  # not before it is written
    first.commit()
    second = EmbeddingCache(tmp_path / "cache")
    second.add("r5", {LM_SPEC: vector(5, 7)})
    second.commit()
    both = EmbeddingCache(tmp_path / "cache")
    assert [both.has(MEL_SPEC, f"r{n}") for n in (4, 5)] == [True, False]
    order = ["r5", "r0", "r3", "r0"]
    expected = np.stack([vector(n, 7) for n in (5, 0, 3, 0)])
    np.testing.assert_array_equal(both.vectors(LM_SPEC, order), expected)
    np.testing.assert_array_equal(both.vectors(MEL_SPEC, ["r2"]), [vector(2)])
    assert len(list((tmp_path / "cache").iterdir())) == 2  # no temporary files


_ADD_FOREVER = """
import sys, numpy as np
from qwen_audio.probing import embedding_cache
from qwen_audio.inference.embedding_spec import EmbeddingSpec
embedding_cache._COMMIT_BYTES = 4000
cache = embedding_cache.EmbeddingCache(sys.argv[1])
spec = EmbeddingSpec.from_settings(model="m", revision="r", tap="mel")
for number in range(10**9):
    cache.add(f"r{number}", {spec: np.full(100, number, np.float32)})
    print(number, flush=True)
"""


def test_a_killed_process_leaves_complete_files_only(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _ADD_FOREVER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(60):
        process.stdout.readline()
    time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    cache = EmbeddingCache(tmp_path)
    cached = [number for number in range(10_000) if cache.has(MEL_SPEC, f"r{number}")]
    assert len(cached) >= 50  # ten at a time
    assert cached == list(range(len(cached)))
    rows = cache.vectors(MEL_SPEC, [f"r{number}" for number in cached])
    np.testing.assert_array_equal(rows, np.repeat(np.array(cached, np.float32)[:, None], 100, 1))


def test_damaged_files_and_unusable_folders(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OptionError, match="can't be used as cache"):
        EmbeddingCache(tmp_path / "file")
    cache = EmbeddingCache(tmp_path / "cache")
    cache.add("r", {MEL_SPEC: vector(0)})
    cache.commit()
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(OptionError, match=r"is damaged, or of another version .* delete it"):
        EmbeddingCache(tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache")
    cache.add("s", {MEL_SPEC: vector(1)})
    with pytest.raises(OptionError, match="can't be written"):
        cache.commit()
