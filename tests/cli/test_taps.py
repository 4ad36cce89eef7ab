"""`qwen-audio taps`: every tap with its cost estimate."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import qwen_audio as qa
from checkpoints import EMBEDDED
from commands import run


def test_every_tap_with_its_cost(checkpoint: Path) -> None:
    model = qa.load(checkpoint)
    done = run("taps", "--model", checkpoint, "--json")
    *rows, text = map(json.loads, done.stdout.splitlines())
    assert [row["tap"] for row in rows] == [str(tap) for tap in model.taps]
    for row, tap in zip(rows, model.taps, strict=True):
        cost = dataclasses.asdict(qa.load(checkpoint, max_memory="1TB").cost(tap))
        assert {name: row[name] for name in cost} == cost
        assert row["download_bytes"] == 0
        assert (row["width"], row["rate_hz"]) == (
            model.dimensions.width(tap),
            model.dimensions.rate_hz(tap),
        )
    cost = dataclasses.asdict(qa.load(checkpoint, max_memory="1TB").cost(None))
    about = {"model": str(checkpoint), "dtype": model.dtype, "width": None, "rate_hz": None}
    assert text == {**about, **cost}
    assert (text["tap"], {row["dtype"] for row in rows}) == (None, {model.dtype})
    assert "lm.norm" in run("taps", "--model", checkpoint).stdout
    assert run("taps", checkpoint).returncode == 2  # the model is --model everywhere


def test_notice_of_the_embedded_checkpoint() -> None:
    done = run("taps")
    assert done.stderr.count("\n") == 1
    assert "embedded" in done.stderr
    assert "embedded" not in run("taps", "--model", EMBEDDED).stderr


def test_taps_inside_layers_are_listed_on_request(checkpoint: Path) -> None:
    done = run("taps", "--model", checkpoint, "--inside-layers", "--json")
    names = [json.loads(line)["tap"] for line in done.stdout.splitlines()]
    assert names[:3] == ["mel", "encoder.0", "encoder.1"]
    start = names.index("lm.1.heads")
    assert names[start - 1 : start + 4] == [
        *("lm.0", "lm.1.heads", "lm.1.attention", "lm.1.mlp", "lm.1"),
    ]
