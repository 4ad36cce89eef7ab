"""Mistakes are reported in one line and with exit status 1, before torch is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import pytest

ENCODE = ("encode", "a.wav", "-o", "out.npz")
INDEX = ("index", "a.wav", "-o", "new.lance")
PROBE = ("probe", "labels.csv", "-o", "out")

MISTAKES = {
    # Files that don't exist.
    ("describe", "none.wav"): "none.wav: no such file",
    ("describe", "none.wav", "gone.wav"): "none of 2 files can be opened: none.wav: no such file",
    ("describe", "folder"): "folder holds no audio",
    ("describe", "-", "-"): "standard input can be read only once",
    ("encode", "none.wav", "-o", "out.npz"): "no such file",
    ("inspect", "none.wav"): "no such file",
    ("lens", "none.wav"): "no such file",
    ("compare", "none.wav", "other.wav"): "none of 2 files can be opened",
    ("compare", "a.wav", "a.wav", "-o", "a.gif"): "the suffix decides the format",
    ("compare", "a.wav", "a.wav", "--tap", "lm"): "'lm' is not a tap",
    ("encode", "a.wav", "-o", "a.npz", "--per", "window", "--pooling", "none"): "has no effect",
    ("plot", "none.wav"): "no such file",
    ("plot", "none.wav", "--layers"): "no such file",
    ("parity", "none.wav"): "no such file",
    ("index", "none.wav", "-o", "new.lance"): "nothing to index",
    ("index", "no*.wav", "-o", "new.lance"): "matches nothing",
    ("probe", "none.csv", "-o", "out"): "none.csv",
    ("search", "none.lance", "--like", "x"): "no such collection",
    ("search", "none.lance", "none.wav"): "no such collection",
    ("collection", "info", "none.lance"): "no such collection",
    ("collection", "verify", "none.lance"): "no such collection",
    ("map", "none.lance"): "no such collection",
    ("play", "--collection", "none.lance"): "no such collection",
    # Names of outputs.
    ("encode", "a.wav", "-o", "out.csv"): "use .npz, .safetensors, .parquet",
    ("encode", "a.wav", "-o", "none/out.npz"): "there is no folder none",
    ("lens", "a.wav", "-o", "a.gif"): "the suffix decides the format",
    ("plot", "a.wav", "-o", "a.gif"): "the suffix decides the format",
    ("plot", "a.wav", "--html", "-o", "a.png"): "a page's name ends in .html",
    ("plot", "a.wav", "b.wav", "-o", "a.png"): "name an existing folder",
    ("map", "none.lance", "-o", "a.png"): "use .html",
    ("parity", "-o", "none/parity.json"): "can't be written",
    ("index", "a.wav", "-o", "new.txt"): "ends in .lance",
    ("probe", "labels.csv", "-o", "a.wav"): "can't be written",
    # Taps, poolings, spans, prompts and probes.
    (*ENCODE, "--tap", "decoder.1"): "'decoder.1' is not a tap",
    (*ENCODE, "--tap", "lm"): "'lm' is not a tap",
    (*ENCODE, "--pooling", "sum"): "use one of mean, max, mean+std, last, none",
    (*ENCODE, "--span", "middle"): "use one of audio, prompt, last, all",
    (*ENCODE, "--span", "last"): "only the language model",
    (*ENCODE, "--prompt", "What?"): "only the language model",
    ("plot", "a.wav", "--tap", "encoder"): "'encoder' is not a tap",
    ("plot", "a.wav", "--prompt", "What?"): "only the language model",
    ("lens", "a.wav", "--tap", "lm.0", "--tap", "mel"): "mel has no logits",
    ("lens", "a.wav", "--tap", "lm"): "'lm' is not a tap",
    ("lens", "a.wav", "--span", "middle"): "use one of audio, prompt, last, all",
    ("lens", "a.wav", "--span", "last", "--nearest"): "only audio has rows at projector",
    ("lens", "a.wav", "--token", "piano", "--token", ""): "is no word",
    (*INDEX, "--tap", "mel.1"): "'mel.1' is not a tap",
    (*INDEX, "--pooling", "none"): "one vector per window",
    (*INDEX, "--span", "last"): "only the language model",
    (*INDEX, "--prompt", "What?"): "only the language model",
    (*PROBE, "--tap", "lm.-0"): "'lm.-0' is not a tap",
    (*PROBE, "--pooling", "none"): "one vector per recording",
    (*PROBE, "--tap", "mel", "--span", "prompt"): "only the language model",
    (*PROBE, "--probe", "svm"): "use a list of",
    (*PROBE, "--target", "key"): "no column 'key'",
    (*PROBE, "--task", "mood=number"): "use classes, quantity, labels",
    (*PROBE, "--task", "mood=quantity"): "mood: ",
    PROBE: "mood: fewer than two classes have 5 recordings in 5 groups",
    # Numbers out of range.
    ("describe", "a.wav", "--window", "99"): "--window 99",
    ("describe", "a.wav", "--window", "5", "--hop", "9"): "--hop 9",
    ("describe", "a.wav", "--max-new-tokens", "0"): "--max-new-tokens 0",
    ("describe", "a.wav", "--temperature", "-1"): "--temperature -1",
    ("describe", "a.wav", "--temperature", "1", "--top-p", "2"): "--top-p 2",
    ("describe", "a.wav", "--seed", "-1"): "--seed -1",
    (*ENCODE, "--hop", "0"): "--hop 0",
    ("inspect", "a.wav", "--window", "0"): "--window 0",
    ("lens", "a.wav", "--top", "0"): "--top 0",
    ("lens", "a.wav", "--window", "31"): "--window 31",
    ("plot", "a.wav", "--window", "nan"): "--window nan",
    ("plot", "a.wav", "--kernel", "0"): "--kernel 0",
    (*INDEX, "--hop", "11"): "--hop 11.0 with windows of 10 s",
    (*PROBE, "--folds", "1"): "--folds 1",
    (*PROBE, "--min-count", "0"): "--min-count 0",
    (*PROBE, "--seed", "-1"): "--seed -1",
    (*PROBE, "--window", "60"): "--window 60",
    ("search", "none.lance", "--like", "x", "--limit", "0"): "--limit 0",
    ("collection", "verify", "none.lance", "--sample", "0"): "--sample 0",
    ("play", "--port", "0"): "use a whole number from 1 to 65535",
    ("play", "--host", "203.0.113.1"): "is not an address of this machine",
    ("play", "--max-minutes", "0"): "use a number greater than 0",
    ("play", "--allowed-host", "https://a.example"): "is not the name of a host",
    # Options that contradict each other or have no effect.
    ("describe", "a.wav", "--top-p", "0.3"): "does nothing at temperature 0",
    ("lens", "a.wav", "--theme", "dark"): "--panel and --theme are for plots",
    ("lens", "a.wav", "--panel", "spectrum", "-o", "a.png"): "a LogitLens has words",
    ("plot", "a.wav", "--panel", "spectrum"): "a View has waveform",
    ("occlude", "a.wav", "--panel", "heat", "-o", "a.png"): "a Occlusion has waveform, effect",
    ("occlude", "a.wav", "--theme", "dark"): "--panel and --theme are for plots",
    ("occlude", "a.wav", *3 * ("--answer", "Yes")): "give a text, such as ['Yes'], or two to",
    ("occlude", "a.wav", "--window", "0"): "--window 0",
    ("occlude", "a.wav", "--hop", "1"): "--hop 1.0 is longer than --window 0.5",
    ("ablate", "a.wav", "-o", "a.npz"): "the suffix decides the format: use .csv, .json",
    ("ablate", "a.wav", "--seed", "-1"): "--seed -1",
    ("ablate", "a.wav", "--window", "99"): "--window 99",
    ("plot", "a.wav", "-o", "a.npz", "--theme", "dark"): "do nothing for a.npz",
    ("plot", "a.wav", "--layers", "--tap", "mel"): "--tap does nothing with --layers",
    # The model and how to compute.
    ("describe", "a.wav", "--model", "nowhere"): "'nowhere' is not a checkpoint",
    ("taps", "--model", "./nowhere"): "'./nowhere' is not a checkpoint",
    ("describe", "a.wav", "--max-memory", "plenty"): "--max-memory plenty",
    ("describe", "a.wav", "--dtype", "int8"): "--dtype int8",
    ("taps", "--dtype", "float64"): "--dtype float64",
}

PROGRAM = """
import contextlib, io, json, sys
from qwen_audio.cli.main import main
for call in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(call)
        except SystemExit as stop:
            status = stop.code
    result = {"status": status, "out": out.getvalue(), "err": err.getvalue()}
    print(json.dumps(result | {"torch": "torch" in sys.modules}))
    for name in [name for name in sys.modules if name.split(".")[0] == "torch"]:
        del sys.modules[name]
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], Any]:
    """The outcome of every call, all in one process, and the files that are there afterwards."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "folder").mkdir()
    for name in ("a.wav", "b.wav"):
        (folder / name).write_bytes(b"RIFF")
    (folder / "labels.csv").write_text("source,mood\na.wav,calm\nb.wav,angry\n")
    before = sorted(folder.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=folder,
        input=json.dumps(list(MISTAKES)),
        capture_output=True,
        check=True,
        text=True,
    )
    assert sorted(folder.rglob("*")) == before
    return dict(zip(MISTAKES, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("call", MISTAKES, ids=" ".join)
def test_mistakes(call: tuple[str, ...], results: dict[tuple[str, ...], Any]) -> None:
    if call[0] == "play" and find_spec("gradio") is None:
        pytest.skip("needs Gradio")
    result = results[call]
    assert not result["torch"]
    assert (result["status"], result["out"]) == (1, "")
    (line,) = result["err"].splitlines()
    assert line.startswith("qwen-audio: ")
    assert MISTAKES[call] in line
