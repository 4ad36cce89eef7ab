"""Output files in a folder: one for each recording, placed as the recordings are."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from qwen_audio.cli.inputs import resolve_files
from qwen_audio.cli.output_names import output_paths
from qwen_audio.errors import OptionError


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a/x.wav, a/deep/y.wav, b/x.wav, b/z.wav, 0.wav and lists."""
    monkeypatch.chdir(tmp_path)
    for name in ("a/x.wav", "a/deep/y.wav", "b/x.wav", "b/z.wav", "0.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "list.csv").write_text("source\na/deep/y.wav\n0.wav\n")
    (tmp_path / "list.txt").write_text("a/deep/y.wav\nb/z.wav\n")
    return tmp_path


def placed(*inputs: str) -> list[str]:
    """Where outputs in OUT are, in the order of the inputs."""
    options = argparse.Namespace(
        inputs=list(inputs), from_file=[], follow_links=False, parser=argparse.ArgumentParser()
    )
    files = resolve_files(options)
    paths = output_paths(options.depths, Path("OUT"), "vtt")
    assert list(paths) == files
    return [path.relative_to("OUT").as_posix().removesuffix(".vtt") for path in paths.values()]


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (["a"], ["deep/y", "x"]),
        (["./a/"], ["deep/y", "x"]),
        (["{}/a"], ["deep/y", "x"]),
        (["a/**/*.wav"], ["deep/y", "x"]),
        (["{}/*/*.wav"], ["a/x", "b/x", "b/z"]),
        (["."], ["0", "a/deep/y", "a/x", "b/x", "b/z"]),
        (["?"], ["a/deep/y", "a/x", "b/x", "b/z"]),  # folders match
        (["a/deep/y.wav", "b/z.wav", "-"], ["y", "z", "stdin"]),  # named: by their names
        (["@list.txt"], ["y", "z"]),
        (["list.csv"], ["y", "0"]),
        (["a", "b"], ["a/deep/y", "a/x", "b/x", "b/z"]),  # two would be x
        (["a/x.wav", "b/x.wav"], ["a/x", "b/x"]),
        (["{}/a/x.wav", "{}/b/x.wav", "-"], ["a/x", "b/x", "stdin"]),
        (["0.wav", "a/deep/y.wav", "b"], ["0", "y", "x", "z"]),
    ],
    ids=str,
)
def test_outputs_are_placed_as_the_recordings(
    inputs: list[str], outputs: list[str], place: Path
) -> None:
    assert placed(*(name.format(place) for name in inputs)) == outputs


def test_addresses_are_placed_as_files() -> None:
    depths = {"s3://music/2024/mon/a.wav": 2, "zip://b/c.flac::https://host/takes.zip": 0}
    names = {path.as_posix() for path in output_paths(depths, Path(), "srt").values()}
    assert names == {"2024/mon/a.srt", "c.srt"}
    depths = {"https://host/../a/x.wav": 0, "https://host/b/x.wav?y=1": 0}
    names = {path.as_posix() for path in output_paths(depths, Path(), "srt").values()}
    assert names == {"a/x.srt", "b/x.srt"}


def test_names_that_differ_in_their_suffix_only(place: Path) -> None:
    (place / "a" / "x.flac").touch()
    with pytest.raises(OptionError, match=r"a/x.flac, a/x.wav would be written to one file, x.vtt"):
        placed("a", "b")
