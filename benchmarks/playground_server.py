"""The playground as a server process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .benchmark import Settings
from .rounds import worker_environment

__all__ = ["playground_server"]


@contextmanager
def playground_server(
    settings: Settings, folder: str, *options: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """URL and process of `qwen-audio play`, with `folder` for its temporary files."""
    command = [sys.executable, "-m", "qwen_audio", "play", "--json", *options]
    env = worker_environment(settings.threads) | {"TMPDIR": folder, "GRADIO_TEMP_DIR": folder}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"], process
        finally:
            process.terminate()
