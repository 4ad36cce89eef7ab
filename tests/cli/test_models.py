"""`qwen-audio models`: the families that are supported."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from commands import run
from qwen_audio.models.registry import FAMILIES


def test_every_family_with_its_checkpoints() -> None:
    done = run("models", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["title"] for row in rows] == [entry.title for entry in FAMILIES]
    assert rows[0] == {
        "title": "Qwen2-Audio",
        "model_types": ["qwen2_audio"],
        "architecture": "Qwen2AudioForConditionalGeneration",
        "hub_models": {"Qwen/Qwen2-Audio-7B": "8.4B", "Qwen/Qwen2-Audio-7B-Instruct": "8.4B"},
        "license": "Apache-2.0",
    }
    table = run("models")
    assert (table.returncode, table.stderr) == (0, "")
    for entry in FAMILIES:
        for text in (entry.title, *entry.model_types, *entry.hub_models, entry.license):
            assert text in table.stdout


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_nothing_is_imported_for_it(options: list[str]) -> None:
    program = f"""
import sys
from qwen_audio.cli.main import main
main(["models", *{options}])
print(*sys.modules, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert b"qwen2_audio" in done.stdout
    assert not {b"torch", b"transformers", b"numpy"} & set(done.stderr.split())
