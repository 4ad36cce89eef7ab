"""What only Linux has is needed nowhere: without it, commands do the same.

This runs on one system, from which names are taken away; docs/versions.md says what is untested.
"""

from __future__ import annotations

import ast
import mmap
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import qwen_audio
from commands import run
from qwen_audio.weights import device
from reference import sound

POSIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
NAMES = [
    *((os, name) for name in ("O_DIRECT", "O_CLOEXEC", "posix_fadvise", "preadv", "pread")),
    *((os, name) for name in ("fork", "getuid", "mkfifo", "sched_getaffinity", "sysconf")),
    *((signal, name) for name in ("SIGHUP", "SIGPIPE", "SIGKILL", "SIGUSR1")),
    (mmap, "MADV_HUGEPAGE"),
]


def test_no_module_of_unix_is_imported() -> None:
    for file in Path(qwen_audio.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not POSIX_MODULES & {alias.name for alias in node.names}, file
            if isinstance(node, ast.ImportFrom):
                assert node.module not in POSIX_MODULES, file


@pytest.mark.slow
@pytest.mark.parametrize("streamed", [False, True])
def test_commands_without_what_only_linux_has(
    streamed: bool,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where layers are streamed."""
    cost = qwen_audio.load(checkpoint).cost("text")
    max_memory = str(2 * cost.peak_memory_bytes if not streamed else cost.min_memory_bytes)
    clip = tmp_path / "a.wav"
    soundfile.write(clip, sound(0.5), 16_000)
    options = ("--model", checkpoint, "--max-memory", max_memory)
    encode, describe = ("encode", clip, *options), ("describe", clip, *options)
    expected = run(*describe, "--max-new-tokens", "2").stdout
    assert run(*encode, "-o", tmp_path / "here.npz").returncode == 0
    for owner, name in NAMES:
        monkeypatch.delattr(owner, name, raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    device._c_library.cache_clear()
    assert run(*encode, "-o", tmp_path / "there.npz").returncode == 0
    here, there = (np.load(tmp_path / f"{name}.npz") for name in ("here", "there"))
    np.testing.assert_array_equal(here["vectors"], there["vectors"])
    assert run(*describe, "--max-new-tokens", "2").stdout == expected
    device._c_library.cache_clear()
