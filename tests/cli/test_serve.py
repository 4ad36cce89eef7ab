"""`qwen-audio serve`: its address and keys, its errors in one line, and how it stops."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from commands import CommandResult, run

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "guitar.flac"


def error_line(done: CommandResult) -> str:
    assert (done.returncode, done.stdout) == (1, ""), done
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_other_machines_need_a_key(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QWEN_AUDIO_API_KEY", raising=False)
    message = error_line(run("serve", "--host", host))
    assert message == (
        f"qwen-audio: --host {host} can be reached by other machines: give --api-key as well, or "
        "use 127.0.0.1"
    )
    monkeypatch.setenv("QWEN_AUDIO_API_KEY", "secret")
    message = error_line(run("serve", "--host", "192.0.2.1"))
    assert "is not an address of this machine" in message
    assert "secret" not in message


def test_options_that_cannot_be_used() -> None:
    message = error_line(run("serve", "--api-key", "two words"))
    assert message.startswith("qwen-audio: --api-key takes letters, digits and punctuation")
    assert "use a number greater than 0" in error_line(run("serve", "--max-minutes=-1"))
    assert "from 1 to 65535" in error_line(run("serve", "--port=0"))
    assert "nowhere.lance" in error_line(run("serve", "--collection", "nowhere.lance"))
    for option in ("--allowed-host", "--allow-media-host"):
        assert "is not the name of a host" in error_line(run("serve", option, "http://x"))


@pytest.mark.slow
def test_sigterm_lets_requests_end() -> None:
    command = [sys.executable, "-m", "qwen_audio", "serve", "--json"]
    environment = os.environ | {"QWEN_AUDIO_API_KEY": "secret"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        audio = {"url": f"data:;base64,{base64.b64encode(EXAMPLE.read_bytes()).decode()}"}
        content = [{"type": "audio_url", "audio_url": audio}]
        body = {
            "model": "embedded",
            "messages": [{"role": "user", "content": content}],
            "stream": True,
        }
        request = urllib.request.Request(
            f"{url}v1/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json", "Authorization": "Bearer secret"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            first = response.readline()
            process.send_signal(signal.SIGTERM)
            rest = response.read().decode()
        assert first.startswith(b"data: {")
        assert '"finish_reason":"stop"' in rest
        assert rest.endswith("data: [DONE]\n\n")
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 0
    assert stderr.splitlines()[-1] == "qwen-audio: stopping: waiting for requests to end"
    assert "secret" not in stderr
