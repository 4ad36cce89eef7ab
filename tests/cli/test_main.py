"""`qwen-audio`: help, exit status, errors in one line, and the start of a command."""

from __future__ import annotations

import argparse
import contextlib
import io
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import qwen_audio as qa
from commands import run, run_process
from qwen_audio.cli.main import build_parser, main

COMMANDS = (
    *("describe", "encode", "inspect", "probe", "index", "search", "lens", "plot", "map", "play"),
    *("classify", "compare", "completion", "models", "quantize", "trace", "ablate", "occlude"),
    *("taps", "parity", "collection", "collection info", "collection list", "collection failures"),
    "serve",
    *("collection prune", "collection remove", "collection verify", "collection export"),
)
HEAVY = {"torch", "transformers", "av", "soxr", "rich", "numpy", "lancedb", "pyarrow", "fsspec"}
HEAVY |= {"gradio", "matplotlib", "plotly", "umap", "sklearn", "scipy", "pandas"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("describe", "{clip}", "--model", "nowhere"),
        ("describe", "{clip}", "--device", "tpu"),
        ("describe", "{clip}", "--window", "99"),
        ("describe", "{clip}", "{clip}", "--top-p", "0.3"),
        ("describe", "{folder}/none"),
        ("describe", "{clip}", "--max-memory", "plenty"),
        ("encode", "{clip}", "-o", "out.npz", "--max-memory", "0"),
        ("encode", "{clip}", "-o", "out.csv"),
        ("encode", "{clip}", "-o", "out.npz", "--tap", "lm.99"),
        ("encode", "{clip}", "-o", "out.npz", "--prompt", "What?"),
        ("encode", "{clip}", "{clip}", "-o", "out.npz", "--span", "last"),
        ("encode", "{clip}", "-o", "/proc/out.safetensors"),
        ("describe", "-", "-"),
        ("inspect", "{folder}/none.wav"),
    ],
)
def test_errors_are_one_line_and_exit_with_1(clips: list[Path], arguments: tuple[str, ...]) -> None:
    names = {"clip": str(clips[0]), "folder": str(clips[0].parent)}
    done = run(*(argument.format(**names) for argument in arguments))
    lines = [line for line in done.stderr.splitlines() if "small embedded" not in line]
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(lines) == 1
    assert lines[0].startswith("qwen-audio: ")


@pytest.mark.parametrize(
    ("arguments", "message", "command"),
    [
        ("describe a.wav --promt What?", "unrecognized arguments: --promt What?", " describe"),
        ("describe", "the following arguments are required: INPUT", " describe"),
        ("encode a.wav --span all --span last -o v.npz", "--span is given more than", " encode"),
        ("describe a.wav --window ten", "argument --window: invalid float value", " describe"),
        ("collection prune", "the following arguments are required: C.lance", " collection prune"),
        ("collection", "the following arguments are required: ACTION", " collection"),
        ("sing a\n.wav", "argument COMMAND: invalid choice", ""),
        ("", "the following arguments are required: COMMAND", ""),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_with_2(
    arguments: str, message: str, command: str
) -> None:
    done = run(*filter(None, arguments.split(" ")))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"qwen-audio: {message}")
    assert done.stderr.endswith(f" (see `qwen-audio{command} --help`)\n")
    assert done.stderr.count("\n") == 1


def test_options_stand_anywhere(clips: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "v.npz"
    done = run("encode", clips[0], "--tap", "mel", "-o", output, clips[1])
    assert done.returncode == 0, done.stderr
    with np.load(output) as file:
        assert file["source"].tolist() == list(map(str, clips[:2]))
    done = run("search", "--limit", "1", "none.lance", "--exact", "a.wav")
    assert "none.lance: no such collection" in done.stderr
    for command in ("encode", "search", "collection"):
        wrong = run(command, "--limmit", "1")
        assert wrong.returncode == 2
        assert f"see `qwen-audio {command} --help`" in wrong.stderr


def test_characters_missing_from_the_encoding_become_question_marks(
    clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(output, encoding="ascii"))
    assert main(["inspect", str(clips[0])]) == 0
    sys.stdout.flush()
    assert b"80 ? 100" in output.getvalue()


@pytest.mark.slow
def test_help_is_fast_and_names_every_command() -> None:
    seconds = []
    for _ in range(5):  # the best of five: other processes may be busy
        start = time.perf_counter()
        done = run_process("--help")
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.3
    for name in COMMANDS:
        if " " not in name:
            assert f"\n    {name}" in done.stdout
    assert run("--version").stdout.strip() == f"qwen-audio {qa.__version__}"


def test_help_of_every_command_imports_nothing_heavy() -> None:
    program = f"""
import contextlib, io, sys
from qwen_audio.cli.main import main
for name in {COMMANDS}:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        main([*name.split(), "--help"])
    assert out.getvalue().startswith(f"usage: qwen-audio {{name}}"), out.getvalue()
print(*sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    assert not HEAVY & set(done.stdout.split())


def test_every_command_is_tested() -> None:
    def names(parser: argparse.ArgumentParser, prefix: str = "") -> set[str]:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                return set.union(*(names(p, f"{prefix} {n}") for n, p in action.choices.items()))
        return {prefix.strip()}

    assert names(build_parser()) | {"collection"} == set(COMMANDS)
    files = {path.stem for path in Path(__file__).parent.glob("test_*.py")}
    assert {f"test_{name.split()[0]}" for name in COMMANDS} <= files


@pytest.mark.slow
def test_a_fast_start_gives_the_same_numbers_and_leaves_nothing_behind() -> None:
    """With the placeholders of `fast_start` in a process of its own, and without them in this."""
    compute = """
import numpy as np, torch
clip = np.sin(np.arange(16000) / 7).astype(np.float32)
model = load()
vectors = [model.encode(clip, tap=tap, sampling_rate=16000) for tap in ("encoder.-1", "lm.norm")]
print(model.describe(clip, sampling_rate=16000).answers[0].token_ids)
print([vector.tobytes().hex() for vector in vectors])
"""
    program = f"""
import sys
from qwen_audio.cli.stub_imports import fast_start
with fast_start():
    from qwen_audio.api.model import load
with fast_start():  # as commands that load two models do
    pass
assert not any(name.startswith("torch._dynamo") for name in sys.modules)
assert "sympy" not in sys.modules and "scipy" not in sys.modules
{compute}
import torch._dynamo
assert torch._dynamo.__file__ and torch.distributed.is_available()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with contextlib.redirect_stdout(io.StringIO()) as here:
        exec(compute, {"load": qa.load})
    assert done.stdout == here.getvalue()
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.parametrize("command", [["plot", "a.wav", "--csv"], ["collection", "info", "a", "b"]])
def test_unknown_arguments_point_to_the_help_of_the_command(command: list[str]) -> None:
    done = run(*command)
    name = " ".join(command[: 1 + (command[0] == "collection")])
    assert done.returncode == 2
    unknown = f"qwen-audio: unrecognized arguments: {command[-1]}"
    assert done.stderr == f"{unknown} (see `qwen-audio {name} --help`)\n"
