"""Options that take numbers: of any type and size, in every public function and command."""

from __future__ import annotations

import decimal
import fractions
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qwen_audio as qa
from commands import run
from qwen_audio.analysis.lens_options import check_lens_options
from qwen_audio.audio.load_options import LoadOptions
from qwen_audio.audio.window import WindowConfig
from qwen_audio.collection.search import check_limit
from qwen_audio.collection.verification import check_sample
from qwen_audio.inference.options import Sampling
from qwen_audio.models.tap import Stage, Tap
from qwen_audio.probing.options import check_folds, check_seed
from qwen_audio.weights.option_values import resolve_bytes
from reference import sound

RATE: dict[str, Any] = {"sampling_rate": 16_000}
Call = Callable[[qa.AudioModel, Any], Any]

WHOLE: dict[str, Call] = {
    "max_new_tokens": lambda _, n: Sampling(n).max_new_tokens,
    "seed": lambda _, n: Sampling(seed=n).seed,
    "track": lambda _, n: LoadOptions(track=n).track,
    "track of a spec": lambda _, n: qa.EmbeddingSpec("m", "r", "mel", track=n).track,
    "layer": lambda _, n: Tap(Stage.LM, n).layer,
    "generate": lambda m, n: m.activations(sound(0.1), taps=["lm.0"], generate=n, **RATE) and 3,
    "top": lambda _, n: check_lens_options([], "all", n, nearest=False),
    "columns": lambda m, n: len(m.view(sound(0.5), columns=n, **RATE).rows),
    "columns of a comparison": lambda m, n: compared(m, n).by_time.shape[1],
    "examples": lambda m, n: m.layer_similarity([sound(0.5)] * 2, examples=n, **RATE) and 3,
    "folds": lambda _, n: check_folds(n),
    "seed of probes": lambda _, n: check_seed(n),
    "limit": lambda _, n: check_limit(n),
    "sample": lambda _, n: check_sample(n),
}
REAL: dict[str, Call] = {
    "temperature": lambda _, x: Sampling(temperature=x).temperature,
    "top_p": lambda _, x: Sampling(temperature=1, top_p=x).top_p,
    "window_seconds": lambda _, x: WindowConfig(x).window_seconds,
    "hop_seconds": lambda _, x: WindowConfig(30, x).hop_seconds,
    "seconds of a spec": lambda _, x: qa.EmbeddingSpec("m", "r", "mel", hop_seconds=x).hop_seconds,
    "end of a window": lambda _, x: qa.Window(0, x).end_seconds,
    "kernel_seconds": lambda m, x: m.view(sound(2), kernel_seconds=x, **RATE).kernel_seconds,
    "max_memory": lambda _, x: resolve_bytes(x),
}
NO_NUMBERS: list[Any] = [
    *(True, np.True_, torch.tensor(True), "1", b"1", [1], np.array([1]), 1j, np.complex64(1)),
    *(decimal.Decimal(1), fractions.Fraction(1), np.timedelta64(1, "s"), object()),
]
EXTREMES: list[Any] = [
    *(float("nan"), float("inf"), float("-inf"), np.float32("nan"), -1, -(10**400)),
    *(10**400, 10**5000, 1e308),
]


def compared(model: qa.AudioModel, columns: int) -> qa.Comparison:
    rows = model.activations(sound(1), taps=["mel"], **RATE)["mel"]
    return qa.Comparison.of([(rows, rows)], columns)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> qa.AudioModel:
    return qa.load(checkpoint)


@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers(model: qa.AudioModel, name: str) -> None:
    start = 16 if name == "examples" else 3
    for number in (start, float(start), np.int64(start), np.uint8(start), np.float32(start)):
        value = WHOLE[name](model, number)
        assert value == 3
        assert type(value) is int
    refused(WHOLE[name], model, [*NO_NUMBERS, *EXTREMES[:4], *EXTREMES[5:], 3.5, np.float64(0.1)])


@pytest.mark.parametrize("name", REAL)
def test_real_numbers(model: qa.AudioModel, name: str) -> None:
    for number in (1, 1.0, np.int64(1), np.float64(1), np.float32(1), np.array(1), torch.tensor(1)):
        value = REAL[name](model, number)
        assert value == 1
        assert type(value) in (int, float)
    values = [value for value in NO_NUMBERS if name != "max_memory" or not isinstance(value, str)]
    takes_any = name in ("temperature", "end of a window", "seconds of a spec")
    values += [] if name in ("kernel_seconds", "hop_seconds", "max_memory") else [None]
    refused(REAL[name], model, values + EXTREMES[: -1 if takes_any else None])


def test_sampling_rates(model: qa.AudioModel) -> None:
    expected = model.encode(sound(0.1), **RATE)
    for rate in (16_000.0, np.int32(16_000), np.float32(16_000), torch.tensor(16_000)):
        given: Any = rate
        assert (model.encode(sound(0.1), sampling_rate=given) == expected).all()
        assert (model.encode((sound(0.1), given)) == expected).all()
    values = [*NO_NUMBERS, *EXTREMES]
    refused(lambda m, rate: m.encode(sound(0.1), sampling_rate=rate), model, values)
    refused(lambda m, rate: m.encode({"array": sound(0.1), "sampling_rate": rate}), model, values)


def test_temperatures(model: qa.AudioModel) -> None:
    """Tiny ones are greedy, an int is a number, and logits divided by a huge one are equal."""
    greedy = model.describe(sound(0.1), max_new_tokens=4, **RATE)

    def text(temperature: Any, **options: Any) -> str:
        options |= {"max_new_tokens": np.int64(4), "seed": np.uint64(3), **RATE}
        return model.describe(sound(0.1), temperature=temperature, **options)

    assert text(1e-40) == text(np.float32(1e-6)) == greedy
    assert text(1) == text(np.float16(1)) != greedy
    assert text(1e308, top_p=1e-300)
    with pytest.raises(qa.OptionError, match="does nothing at temperature 1e-40"):
        model.describe(sound(0.1), temperature=1e-40, top_p=0.5, **RATE)


@pytest.mark.parametrize("penalty", ["1.1", 0, -1, True, float("nan"), 10**400])
def test_repetition_penalties_of_a_checkpoint(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, penalty: Any
) -> None:
    model = qa.load(checkpoint)
    settings = model.pipeline.checkpoint.generation_config
    monkeypatch.setitem(settings, "repetition_penalty", 2)  # an int
    assert model.describe(sound(0.1), max_new_tokens=2, **RATE).answers
    monkeypatch.setitem(settings, "repetition_penalty", penalty)
    with pytest.raises(qa.CheckpointError, match="repetition_penalty"):
        model.describe(sound(0.1), max_new_tokens=2, **RATE)


@pytest.mark.parametrize(
    "size", ["9" * 400 + "GB", "1e400", "nan", "", "GB", "-1", "9" * 30 + "TB"]
)
def test_sizes_in_text(size: str) -> None:
    with pytest.raises(qa.OptionError, match="use bytes, or text such as"):
        resolve_bytes(size)


def refused(call: Call, model: qa.AudioModel, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(qa.QwenAudioError) as caught:
            call(model, value)
        assert isinstance(caught.value, (qa.OptionError, qa.TapError, qa.AudioError)), value
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "command",
    [
        "describe a.wav --max-new-tokens N",
        "describe a.wav --temperature N",
        "describe a.wav --temperature 1 --top-p N",
        "describe a.wav --seed N",
        "inspect a.wav --track N",
        "encode a.wav -o a.npz --window N",
        "encode a.wav -o a.npz --hop N",
        "lens a.wav --top N",
        "plot a.wav --kernel N",
        "search c.lance --caption a --limit N",
        "collection verify c.lance --sample N",
        "probe . --folds N",
        "probe . --seed N",
        "play --port N",
        "play --max-minutes N",
        "taps --max-memory N",
    ],
)
def test_numbers_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Reported before anything is loaded: no file of these names exists."""
    monkeypatch.chdir(tmp_path)
    for number in ("nan", "inf", "-5", "0.0.1", "9" * 400, "9" * 5000):
        arguments = [argument.replace("N", number) for argument in command.split(" ")]
        status, _, errors = run(*arguments)
        (line,) = errors.strip().split("\n")
        is_usage = "(see `qwen-audio " in line  # what argparse says of it
        assert status == (2 if is_usage else 1)
        assert is_usage or "use " in line or "the encoder processes" in line
        assert "Traceback" not in errors
