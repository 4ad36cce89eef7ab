"""The table in docs/taps.md of taps and transformers' hidden_states: every row is tested."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qwen_audio as qa
from checkpoints import random_checkpoint
from reference import PLAIN, Reference, relative_error, sound

PAGE = Path(__file__).parent.parent / "docs" / "taps.md"
N, M = 3, 2
"""Encoder and decoder layers."""


class Both:
    """Two clips of different lengths through transformers in one padded batch, and through ours."""

    def __init__(self, folder: Path) -> None:
        self.reference = Reference(folder)
        self.clips = [sound(1.0, 1), sound(2.6, 2)]
        inputs = self.reference.inputs(self.clips, [PLAIN + "Describe the music:"] * 2)
        self.inputs = inputs
        masks: list[torch.Tensor] = []
        handle = self.reference.tower.register_forward_pre_hook(
            lambda _, args, kwargs: masks.append(kwargs["attention_mask"]), with_kwargs=True
        )
        with torch.inference_mode():
            self.out = self.reference.model(**inputs, output_hidden_states=True)
            handle.remove()
            self.tower = self.reference.tower(
                inputs["input_features"], attention_mask=masks[0], output_hidden_states=True
            )
            self.projected = self.reference.model.model.multi_modal_projector(
                self.tower.last_hidden_state
            )
        model = qa.load(folder)
        self.taps = [str(tap) for tap in model.taps]
        self.ours = model.activations(self.clips, taps=self.taps, sampling_rate=16_000)

    def check(self, tap: str, expected: Callable[[int], torch.Tensor]) -> None:
        for i in range(len(self.clips)):
            ours = self.ours[i][tap].data
            assert relative_error(ours, np.asarray(expected(i))) < 1e-5

    def differs(self, tap: str, expected: torch.Tensor) -> None:
        """Another shape, or other numbers."""
        ours = self.ours[0][tap].data
        found = expected[0].numpy()
        assert found.shape[0] < len(ours) or relative_error(ours, found[-len(ours) :]) > 1e-2

    def frames(self, i: int) -> int:
        return len(self.ours[i]["encoder.0"].data)

    def tokens(self, i: int) -> int:
        return len(self.ours[i]["audio_tower"].data)

    def unpadded(self, hidden: Any, i: int) -> torch.Tensor:
        return hidden[i][self.inputs["attention_mask"][i].bool()]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    folder = tmp_path_factory.mktemp("both")
    return Both(random_checkpoint(folder, encoder_layers=N, lm_layers=M))


def mel(both: Both) -> None:
    features = both.inputs["input_features"]
    both.check("mel", lambda i: features[i, :, : len(both.ours[i]["mel"].data)].T)


def encoder_k(both: Both) -> None:
    for k in range(N):
        both.check(f"encoder.{k}", lambda i: both.tower.hidden_states[k][i, : both.frames(i)])


def encoder_last(both: Both) -> None:
    assert len(both.tower.hidden_states) == N + 1
    both.differs(f"encoder.{N}", both.tower.hidden_states[N])


def audio_tower(both: Both) -> None:
    assert torch.equal(both.tower.hidden_states[N], both.tower.last_hidden_state)
    both.check("audio_tower", lambda i: both.tower.hidden_states[N][i, : both.tokens(i)])


def projector(both: Both) -> None:
    both.check("projector", lambda i: both.projected[i, : both.tokens(i)])


def lm_k(both: Both) -> None:
    for k in range(M):
        both.check(f"lm.{k}", lambda i: both.unpadded(both.out.hidden_states[k], i))


def lm_last(both: Both) -> None:
    assert len(both.out.hidden_states) == M + 1
    both.differs(f"lm.{M}", both.out.hidden_states[M])


def lm_norm(both: Both) -> None:
    both.check("lm.norm", lambda i: both.unpadded(both.out.hidden_states[M], i))


ROWS = {
    "`mel`": mel,
    "`encoder.k`, k < N": encoder_k,
    "`encoder.N`": encoder_last,
    "`audio_tower`": audio_tower,
    "`projector`": projector,
    "`lm.k`, k < M": lm_k,
    "`lm.M`": lm_last,
    "`lm.norm`": lm_norm,
}


@pytest.mark.parametrize("row", ROWS)
def test_row(both: Both, row: str) -> None:
    ROWS[row](both)


def test_the_page_has_exactly_these_rows() -> None:
    table = PAGE.read_text(encoding="utf-8").split("| ours | transformers |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| (`.*?) \|", table, re.M)
    assert rows == list(ROWS)
