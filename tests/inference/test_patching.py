"""Activation patching, against transformers with hooks, one run after another."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qwen_audio as qa
from edit_hooks import PROMPT, edited, place_of, rows_of
from qwen_audio.inference.decoder import LanguageModel
from reference import Reference, sound

RATE: dict[str, Any] = {"sampling_rate": 16_000}
A, B = sound(1.0), sound(1.0, seed=1)
ANSWERS = ("Drums play.", "Drums a flute leads.")


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> qa.AudioModel:
    return qa.load(checkpoint, dtype="float32")


def _first(seen: list[torch.Tensor], _: torch.Tensor) -> torch.Tensor:
    return seen[0]


class Runs:
    """transformers' log-probabilities, with rows of one clip in the place of another's."""

    def __init__(self, folder: Path, model: qa.AudioModel) -> None:
        self.reference = Reference(folder)
        tokenizer = model.pipeline.tokenizer
        self.ids = [tokenizer.encode(f" {answer}") for answer in ANSWERS]

    def inputs(self, clip: np.ndarray, answer: tuple[int, ...]) -> Any:
        inputs = self.reference.inputs([clip], [PROMPT])
        new = torch.tensor([answer])
        inputs["input_ids"] = torch.cat([inputs["input_ids"], new], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        return inputs

    def log_probability(self, inputs: Any, answer: tuple[int, ...]) -> float:
        rows = self.reference.model(**inputs).logits[0, -1 - len(answer) : -1].log_softmax(-1)
        return float(sum(row[token] for row, token in zip(rows, answer, strict=True)))

    @torch.inference_mode()
    def difference(self, tap: str = "lm.0", span: str | None = None) -> float:
        """Of A, with B's rows in a span; without a span, of A as it is."""
        values = []
        for answer in self.ids:
            inputs = self.inputs(A, answer)
            if span is None:
                values.append(self.log_probability(inputs, answer))
                continue
            source, seen = self.inputs(B, answer), list[torch.Tensor]()
            prompt = self.reference.inputs([A], [PROMPT])
            rows = rows_of(self.reference, prompt, tap, "audio" if span == "answer" else span)
            if span == "answer":
                start = prompt["input_ids"].shape[1]
                rows = list(range(start, start + len(answer)))

            def keep(values: torch.Tensor, seen: list[torch.Tensor] = seen) -> torch.Tensor:
                seen.append(values.clone())
                return values

            with edited(self.reference, tap, rows, keep):
                self.reference.model(**source)
            with edited(self.reference, tap, rows, partial(_first, seen)):
                values.append(self.log_probability(inputs, answer))
        return values[0] - values[1]


@pytest.mark.slow
def test_every_level_and_span_equals_transformers(checkpoint: Path, model: qa.AudioModel) -> None:
    trace = model.trace(A, B, answers=ANSWERS, **RATE)
    runs = Runs(checkpoint, model)
    assert trace.spans == ("audio", "prompt", "last", "answer")
    assert trace.taps == ("lm.0", "lm.1", "lm.2", "lm.3")
    assert trace.difference_a == pytest.approx(runs.difference(), rel=1e-5, abs=1e-5)
    for row, tap in enumerate(trace.taps):
        for column, span in enumerate(trace.spans):
            expected = runs.difference(tap, span)
            assert trace.difference[row, column] == pytest.approx(expected, rel=1e-5, abs=2e-5)
    np.testing.assert_allclose(trace.share[0], [1, 0, 0, 0], atol=1e-4)
    assert place_of(runs.reference, "lm.0")[1]


def test_a_trace_goes_from_a_to_b(model: qa.AudioModel) -> None:
    there = model.trace(A, B, answers=ANSWERS, taps=["lm.-1", "lm.1"], spans=["last"], **RATE)
    back = model.trace(B, A, answers=ANSWERS, taps=["lm.1"], spans=["last"], **RATE)
    assert (there.taps, there.spans, there.positions) == (("lm.1", "lm.3"), ("last",), (1,))
    assert there.difference_a == pytest.approx(back.difference_b, abs=1e-5)
    with pytest.warns(qa.ScoreWarning):
        scores = model.score([A, B], choices=ANSWERS, **RATE)
    np.testing.assert_allclose(
        there.log_probabilities, [s.log_probability[0] for s in scores], rtol=1e-5, atol=1e-5
    )
    frame = there.to_pandas()
    assert list(frame.columns) == ["tap", "span", "share", "difference"]
    assert frame.attrs["answers"] == tuple(ANSWERS)
    assert repr(there).startswith("Trace(2 taps × last; log p('Drums play.') − log p(")
    assert not np.signbit(there.share[there.share == 0]).any()
    with pytest.raises(ValueError, match=r"\(2, 1\), 2, 2"):
        replace(there, spans=("last", "audio"))


def test_only_what_differs_is_computed(
    model: qa.AudioModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of layers: a run at level k goes through the layers after it, from its first row on; at
    lm.0 rows are those of one of both inputs."""
    rows: list[int] = []
    run_layer = LanguageModel.run_layer

    def counted(self: Any, layer: Any, hidden_states: Any, arguments: Any) -> Any:
        rows.append(len(hidden_states))
        return run_layer(self, layer, hidden_states, arguments)

    monkeypatch.setattr(LanguageModel, "run_layer", counted)
    trace = model.trace(A, B, answers=ANSWERS, **RATE)
    tree = trace.positions[-1]
    length = sum(trace.positions[:2]) + tree
    layers, full = 3, length - 1  # the first position is text before the audio
    after = trace.positions[1] - 1
    expected = 2 * layers * length
    for left in (2, 1):  # at lm.0 all is known
        expected += left * (full + after + tree + 2 * (1 + tree))
    assert sum(rows) == expected


def test_bad_traces_are_one_line(model: qa.AudioModel) -> None:
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (sound(1.4), {}, "give clips of the same length, or seconds=1"),
        (B, {"seconds": 2.0}, "seconds=2, but"),
        (B, {"answers": ["a"]}, "give two texts, said of a and of b"),
        (B, {"answers": ["Yes", "Yes"]}, "is given twice"),
        (B, {"answers": ["Yes", " "]}, "is empty: give a text"),
        (B, {"answers": ["Drums", "Drums play."]}, "the first begins the second"),
        (B, {"spans": ["words"]}, "span 'words': use audio, prompt, last, answer"),
        (B, {"spans": []}, "spans is empty"),
        (B, {"spans": "last"}, "is one span: give a list"),
        (B, {"taps": ["audio_tower"]}, "rows are patched between layers, at lm.K"),
        (B, {"taps": ["lm.1.mlp"]}, "rows are patched between layers, at lm.K"),
        (A, {}, "equally"),
        ([B], {}, "trace takes two recordings, not lists"),
    ]
    for other, options, message in cases:
        settings = {"answers": ANSWERS, **options}
        with pytest.raises(qa.OptionError) as caught:
            model.trace(A, other, **settings, **RATE)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    encode = model.pipeline.tokenizer.encode
    one_token = [letter for letter in "abcdefghijklmnop" if len(encode(f" {letter}")) == 1][:2]
    with pytest.raises(qa.OptionError, match="answers of one token have no position"):
        model.trace(A, B, answers=one_token, spans=["answer"], **RATE)
    with pytest.raises(qa.OptionError, match=r"the model says .* of both"):
        model.trace(A, A, **RATE)
    with (
        model.edit("lm.1", qa.edits.zero()),
        pytest.raises(qa.OptionError, match="outside edits of lm taps"),
    ):
        model.trace(A, B, answers=ANSWERS, **RATE)
