"""`qwen-audio describe`: generated text as lines, streamed and as JSON."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import qwen_audio as qa
from checkpoints import edit_json, random_checkpoint
from commands import run
from forked import ForkedProcess
from qwen_audio.cli.answers import print_answers
from qwen_audio.cli.caption_files import read_table, save_subtitles, save_table
from qwen_audio.inference.cost import estimate_cost
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.weights import compiled_int4
from reference import sound


@pytest.mark.slow
def test_output_is_that_of_the_api(clips: list[Path], checkpoint: Path) -> None:
    program = "import sys; from qwen_audio.cli.main import main; sys.exit(main(sys.argv[1:]))"
    options = ("--model", checkpoint, "--max-new-tokens", "5")
    status, output, errors = ForkedProcess(program, "describe", clips[0], *options).finish()
    assert output.strip() == qa.load(checkpoint).describe(clips[0], max_new_tokens=5)
    assert status == 0
    assert "cut off at 5 tokens" in errors


def test_several_files_and_json_lines(clips: list[Path], checkpoint: Path) -> None:
    options: list[str | Path] = ["--model", checkpoint, "--max-new-tokens", "3"]
    done = run("describe", *clips, *options)
    assert [line.split(": ")[0] for line in done.stdout.splitlines()] == [str(c) for c in clips]
    done = run("describe", *clips, *options, "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["source"] for row in rows] == [str(clip) for clip in clips]
    assert rows[1]["answers"][0]["audio_tokens"] == 50
    assert rows[1]["answers"][0]["source"] == str(clips[1])
    place = [rows[1]["answers"][0][name] for name in ("window", "start_seconds", "end_seconds")]
    assert place == [0, 0.0, 2.0]


def test_a_full_context_is_said(tmp_path: Path, clips: list[Path]) -> None:
    folder = random_checkpoint(tmp_path)
    edit_json(folder / "config.json", text_config__max_position_embeddings=60)
    done = run("describe", clips[1], "--model", folder, "--json")  # 50 audio tokens
    assert "cut off as the model's context was full" in done.stderr
    assert "--max-new-tokens" not in done.stderr
    (answer,) = json.loads(done.stdout)["answers"]
    assert (answer["complete"], answer["ended_by"], len(answer["token_ids"])) == (
        *(False, "context"),
        61 - 50 - answer["prompt_tokens"],
    )


def test_standard_input(
    clips: list[Path], checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: list[str | Path] = ["--model", checkpoint, "--max-new-tokens", "3"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(clips[0].read_bytes())))
    assert run("describe", "-", *options).stdout == run("describe", clips[0], *options).stdout


def test_answers_are_printed_as_they_come(
    clips: list[Path], checkpoint: Path, tmp_path: Path
) -> None:
    """Before an error that is found at the end of the file; together as the API's text."""
    options: list[str | Path] = ["--model", checkpoint, "--max-new-tokens", "3", "--window", "0.5"]
    flac, cut = tmp_path / "a.flac", tmp_path / "cut.flac"
    soundfile.write(flac, sound(2.0), 16_000)
    cut.write_bytes(flac.read_bytes()[: 7 * flac.stat().st_size // 10])
    whole = qa.load(checkpoint).describe(flac, max_new_tokens=3, window_seconds=0.5)
    assert run("describe", flac, *options).stdout == f"{whole}\n"
    answers = iter(whole.answers)

    def cut_short() -> Iterator[qa.Answer]:
        yield from itertools.islice(answers, 2)
        raise qa.AudioError("a.flac is truncated")

    with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.raises(qa.AudioError):
        print_answers(cut_short(), "a.flac")
    assert printed.getvalue().splitlines() == ["a.flac:", *str(whole).splitlines()[:2]]
    done = run("describe", cut, flac, *options)
    assert (done.returncode, "is truncated" in done.stderr) == (1, True)
    assert done.stdout.endswith(f"{flac}:\n{whole}\n")


def test_addresses(clips: list[Path], checkpoint: Path, tmp_path: Path) -> None:
    archive = tmp_path / "takes.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.write(clips[0], "a.wav")
    address = f"zip://a.wav::{archive}"
    options: list[str | Path] = ["--model", checkpoint, "--max-new-tokens", "2"]
    texts = [run("describe", file, *options).stdout for file in (clips[0], address)]
    assert texts[0] == texts[1]
    output = tmp_path / "vectors.npz"
    done = run("encode", address, "nowhere://a.wav", "--model", checkpoint, "-o", output)
    assert (done.returncode, "Protocol not known" in done.stderr) == (1, True)
    assert list(np.load(output)["source"]) == [address]


CAPTIONS = [
    {"start_seconds": 0.0, "end_seconds": 10.0, "text": "=A song\n\n& <two>", "spec": "1f"},
    {"start_seconds": 3605.5, "end_seconds": 3612.0625, "text": "", "spec": "1f"},
]


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (
            "srt",
            "1\n00:00:00,000 --> 00:00:10,000\n=A song\n& <two>\n\n"
            "2\n01:00:05,500 --> 01:00:12,062\n…\n",
        ),
        (
            "vtt",
            'WEBVTT\n\nNOTE spec 1f\n\nNOTE source "a.wav"\n\n'
            "00:00:00.000 --> 00:00:10.000\n=A song\n&amp; &lt;two&gt;\n\n"
            "01:00:05.500 --> 01:00:12.062\n…\n",
        ),
    ],
)
def test_subtitles(suffix: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / f"a.{suffix}"
    save_subtitles(path, [{**caption, "source": "a.wav"} for caption in CAPTIONS])
    assert path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".CSV", ".JSONL"])
def test_tables_are_read_back(suffix: str, tmp_path: Path) -> None:
    """Whatever their texts hold: line ends of Unicode, too."""
    path = tmp_path / f"a{suffix}"
    rows = [
        {"source": source, "window": number, **caption, "complete": number == 0}
        for source in ("a,b.wav", "file:///caf%E9.wav")
        for number, caption in enumerate(
            [*CAPTIONS, {**CAPTIONS[0], "text": "one\u2028two\x85three\r\nfour\x0bfive"}]
        )
    ]
    save_table(path, rows)
    assert read_table(path, "1f") == {"a,b.wav": rows[:3], "file:///caf%E9.wav": rows[3:]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.wav", "--resume"), "--resume is for captions in a file"),
        (("a.wav", "--format", "srt"), "--format is for captions in a file"),
        (("a.wav", "-o", "a.txt"), "use .csv, .jsonl, .srt, .vtt"),
        (("a.wav", "-o", "."), "add --format srt"),
        (("a.wav", "-o", "a.srt", "--format", "srt"), "name a folder"),
        (("a.wav", "b.wav", "-o", "a.srt"), "name a folder and --format srt"),
        (("a.wav", "a.flac", "-o", ".", "--format", "vtt"), "a.wav, a.flac would be written to"),
    ],
)
def test_wrong_outputs_of_captions(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", "b.wav", "a.flac"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(b"RIFF")
    done = run("describe", *arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert message in done.stderr


@pytest.mark.slow
def test_captions_as_a_table_and_as_subtitles(folder: Path) -> None:
    command = ("describe", "0.wav", "gone.wav", "1.wav", "--max-new-tokens", "3", "--window", "1.5")
    done = run(*command, "-o", "a.csv")
    assert done.returncode == 1
    assert done.stdout == "a.csv: 4 windows of 2 recordings\n"
    with Path("a.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["source"], row["window"], row["start_seconds"]) for row in rows] == [
        *(("0.wav", "0", "0.0"), ("0.wav", "1", "1.5")),
        *(("1.wav", "0", "0.0"), ("1.wav", "1", "1.5")),
    ]
    assert {row["complete"] for row in rows} == {"False"}
    done = run("describe", ".", "-o", "subtitles", "--format", "vtt", "--json", "-q")
    outputs = [json.loads(line)["output"] for line in done.stdout.splitlines()]
    assert outputs == ["subtitles/0.vtt", "subtitles/1.vtt"]
    subtitles = Path("subtitles/0.vtt").read_text()
    notes = r'NOTE spec \w{16}\n\nNOTE source "0.wav"\n\n'
    assert re.match(rf"WEBVTT\n\n{notes}00:00:00.000 --> 00:00:02.000\n", subtitles)


def test_weights_that_are_read_for_every_token_are_said(
    clips: list[Path], checkpoint: Path
) -> None:
    opened = Checkpoint(checkpoint)
    limit = str(estimate_cost(opened, None, torch.float32).min_memory_bytes + 5_000_000)
    options = ("--model", checkpoint, "--max-new-tokens", "2", "--max-memory", limit)
    for quantize in ((), ("--quantize", "int4-g128")):
        _, _, errors = run("describe", clips[0], *options, *quantize)
        assert ("--quantize int4 takes less" in errors) is (not quantize)
    _, _, errors = run("describe", clips[0], *options[:-2])
    assert "read for every token" not in errors


def test_what_multiplies_in_4_bits_is_said(
    clips: list[Path], checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--model", checkpoint, "--max-new-tokens", "1", "--quantize", "int4")
    with monkeypatch.context() as other:
        other.setattr(compiled_int4, "would_compile_int4", lambda: "AVX2")
        other.setattr(compiled_int4, "_has_llvmlite", lambda: False)
        _, _, errors = run("describe", clips[0], *options, "--verbose")
        assert re.search(r"float32 on cpu, 4 bits: (torch's kernel|blocks)\n", errors)
        assert (
            "faster text generation in 4 bits needs the extra [int4], which is not inst" in errors
        )
        assert "[int4]" not in run("describe", clips[0], *options, "--quiet").stderr
        assert "[int4]" not in run("describe", clips[0], *options[:-2]).stderr
    if instructions := compiled_int4.int4_instructions():
        _, _, errors = run("describe", clips[0], *options, "--verbose")
        assert f"float32 on cpu, 4 bits: compiled for {instructions}\n" in errors
        assert "[int4]" not in errors


def test_captions_of_other_weights_are_not_continued(
    clips: list[Path], checkpoint: Path, tmp_path: Path
) -> None:
    options = ("--model", checkpoint, "--max-new-tokens", "2", "-o", tmp_path / "x.csv")
    assert run("describe", clips[0], *options, "--quantize", "int8").returncode == 0
    status, _, errors = run("describe", *clips[:2], *options, "--resume")
    assert status == 1
    assert "settings" in errors
    assert run("describe", *clips[:2], *options, "--resume", "--quantize", "int8").returncode == 0
