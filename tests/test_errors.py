from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import qwen_audio
from qwen_audio import errors
from qwen_audio.errors import MissingExtraError, QwenAudioError, counted

ALL = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)]


@pytest.mark.parametrize("error", [error for error in ALL if not issubclass(error, Warning)])
def test_every_error_has_the_same_root(error: type[Exception]) -> None:
    assert issubclass(error, QwenAudioError) or issubclass(error, UserWarning)
    assert inspect.getdoc(error)


@pytest.mark.parametrize("name", ["AudioError", "OptionError", "TapError"])
def test_bad_values_are_value_errors(name: str) -> None:
    assert issubclass(getattr(qwen_audio, name), ValueError)


def test_messages_are_one_line_whatever_they_quote() -> None:
    message = str(QwenAudioError("song\r\nname.wav \t is\n\n  odd\n"))
    assert message == "song name.wav is odd"


def test_a_missing_extra_names_the_command_that_brings_it() -> None:
    error = MissingExtraError("export to Parquet", "parquet")
    assert "pip install 'qwen-audio-playground[parquet]'" in str(error)
    assert isinstance(error, ImportError)


@pytest.mark.parametrize("name", dir(qwen_audio))
def test_public_names_exist(name: str) -> None:
    assert getattr(qwen_audio, name) is not None
    assert name in dir(qwen_audio)


def test_counts_agree_with_their_nouns() -> None:
    """By `counted`, but where there are always several: "none of 3 files", "for 3 files"."""
    assert [counted(n, "row") for n in (0, 1, 2)] == ["0 rows", "1 row", "2 rows"]
    assert counted(1, "class", "classes") + counted(2, "class", "classes") == "1 class2 classes"
    count = re.compile(r"(?<!of )(?<!for )\{[^{}]*\} (recording|file|window|row|group|problem)s\b")
    for path in (Path(qwen_audio.__file__).parent / "cli").glob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert not count.search(source), path
        assert "'s' * (" not in source, path


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Wavform'"):
        _ = qwen_audio.Wavform


def test_importing_the_package_loads_nothing_heavy() -> None:
    script = (
        "import sys, qwen_audio; dir(qwen_audio); qwen_audio.AudioError; "
        "print(*{'torch', 'numpy', 'av', 'transformers', 'soxr'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
