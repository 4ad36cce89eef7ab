"""Progress of the commands that can take long: what they say on a terminal."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

import qwen_audio as qa
from qwen_audio.cli import progress
from qwen_audio.cli.main import main


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.slow
@pytest.mark.usefixtures("loaded_once")
def test_every_long_command_says_how_far_it_is(
    indexed: Path, music: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Any, ...]] = []
    show = progress._Display.show

    def spy(display: Any, *arguments: Any, **options: Any) -> None:
        calls.append(arguments)
        show(display, *arguments, **options)

    monkeypatch.setattr(progress._Display, "show", spy)

    def stages(*arguments: str | Path) -> dict[str, tuple[int, int | None, str]]:
        """Each stage, as it was shown last, in order."""
        calls.clear()
        with monkeypatch.context() as patch:
            patch.setattr("sys.stderr", Terminal())
            assert main([str(argument) for argument in arguments]) == 0
        shown: dict[str, tuple[int, int | None, str]] = {}
        for stage, done, total, *unit in calls:
            shown[stage] = (done, total, unit[0] if unit else "")
        shown.pop("loading the model", None)
        return shown

    model = ("--model", checkpoint, "--dtype", "float32")
    first, second = music / "0.wav", music / "1.wav"
    taps = len(qa.load(checkpoint).taps)
    assert stages("compare", first, second, *model, "-o", tmp_path / "c.npz") == {
        "reading both recordings": (0, None, ""),
        "comparing": (1, 1, "windows"),
    }
    assert calls[-1][4] == pytest.approx(5.0)  # seconds of audio: the rate is × real time
    assert stages("parity", first, *model, "-o", tmp_path / "p.json") == {
        "computing here": (taps - 1, taps, "taps"),
        "reading weights for transformers": (6, 7, "modules"),
        "computing with transformers": (0, 1, "recordings"),
    }
    assert stages("plot", "--layers", music, *model, "-o", tmp_path / "l.npz") == {
        "reading": (2, 3, "recordings"),
        "encoding": (9, 9, "passes"),
    }
    assert stages("map", indexed, "-o", tmp_path / "m.html") == {
        "reading": (0, 4, "rows"),
        "projecting 4 windows by PCA": (0, None, ""),
        "embedding audio": (2, 3, "recordings"),
    }
    assert stages("collection", "export", indexed, "-o", tmp_path / "e.parquet") == {
        "reading": (0, 4, "rows"),
        "writing 4 rows": (0, None, ""),
    }
    assert stages("collection", "verify", indexed) == {
        "checking": (0, 4, "rows"),
        "encoding again": (3, 3, "recordings"),
    }
    assert stages("index", music, "-o", indexed) == {"index": (3, 3, "recordings")}
    for stage, output in (("encode", tmp_path / "e.npz"), ("index", tmp_path / "n.lance")):
        command = (stage, music, *model, "--tap", "mel", "--window", "10", "-o", output)
        assert stages(*command) == {stage: (3, 3, "recordings")}
        seconds = [call[4] for call in calls if call[:2] == (stage, 2)]
        assert seconds == pytest.approx([5.0, 15.0, 17.0])  # by window, of the last recording
