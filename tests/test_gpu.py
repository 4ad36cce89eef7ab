"""On a GPU, if there is one: the same numbers as on the CPU, with another attention function."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
import torch

import qwen_audio as qa
from qwen_audio.inference.cost import non_weight_bytes
from qwen_audio.inference.generation import CachedContext
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.kv_cache import KeyValueCache
from qwen_audio.models.packed_attention import Packing, packed_attention
from qwen_audio.weights.device import resolve_device
from qwen_audio.weights.gpu_copies import CopyStream, StagingBuffer
from reference import relative_error, sound

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

CLIPS = [sound(seconds, number) for number, seconds in enumerate((5.0, 0.3, 2.2))]
TAPS = ["encoder.0", "encoder.2", "audio_tower", "projector", "lm.0", "lm.2", "lm.norm"]


def rows(
    folder: Path, device: str, dtype: str, **options: object
) -> list[dict[str, qa.HiddenStates]]:
    model = qa.load(folder, device=device, dtype=dtype, **options)  # type: ignore[arg-type]
    read: list[dict[str, qa.HiddenStates]] = model.activations(
        CLIPS, taps=TAPS, sampling_rate=16_000
    )
    return read


def test_float32_equals_the_cpu(checkpoint: Path) -> None:
    for actual, expected in zip(
        rows(checkpoint, "cuda", "float32"), rows(checkpoint, "cpu", "float32"), strict=True
    ):
        for tap in TAPS:
            assert relative_error(actual[tap].data, expected[tap].data) < 1e-4  # TF32: 3.5e-4


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bit_rows_have_the_same_direction(checkpoint: Path, dtype: str) -> None:
    for actual, expected in zip(
        rows(checkpoint, "cuda", dtype), rows(checkpoint, "cpu", "float32"), strict=True
    ):
        for tap in TAPS:
            a, b = actual[tap].data, expected[tap].data
            cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
            assert cosines.min() > 0.99


@pytest.mark.parametrize("causal", [False, True])
def test_one_call_for_all_clips_equals_attention_per_clip(causal: bool) -> None:
    module = torch.nn.Module()
    module.is_causal, module.layer_idx = causal, 0  # type: ignore[assignment]
    random = torch.Generator("cuda").manual_seed(0)
    query, key, value = (
        torch.randn(1, heads, 99, 64, generator=random, device="cuda").bfloat16()
        for heads in ((4, 2, 2) if causal else (4, 4, 4))
    )
    if not causal:
        query, key, value = (rows[:, :, :90] for rows in (query, key, value))
    passes = [(50, 1, 39), (1, 1, 1), (3, 1, 2)] if causal else [(50, 1, 39)]
    outputs = []
    for dtype in (torch.bfloat16, torch.float32):  # which the one call does not take
        cache = KeyValueCache(1, 2, 64, dtype, query.device)
        slots = [cache.add() for _ in range(3)]
        parts, start = [], 0
        for lengths in passes:
            rows = slice(start, start := start + sum(lengths))
            q, k, v = (each[:, :, rows].to(dtype) for each in (query, key, value))
            with cache.extend(slots, lengths) as cached:
                packing = Packing(lengths, cached if causal else None)
                out, _ = packed_attention(module, q, k, v, None, packing=packing, scaling=0.125)
            parts.append(out)
        outputs.append(torch.cat(parts, dim=1).float().cpu().numpy())
    assert relative_error(*outputs) < 2e-2


def test_streamed_equals_resident(checkpoint: Path) -> None:
    """In a GPU's memory, of which the process holds other bytes than of the machine's."""
    expected = rows(checkpoint, "cuda", "bfloat16")
    gc.collect()
    device, tap = resolve_device("cuda"), qa.Tap.parse("lm.norm")
    least = non_weight_bytes(Checkpoint(checkpoint), tap, torch.bfloat16, device)
    model = qa.load(checkpoint, device="cuda", dtype="bfloat16", max_memory=least + 420_000)
    for _ in range(2):
        streamed = model.activations(CLIPS, taps=TAPS, sampling_rate=16_000)
        resident = model.pipeline.modules._resident
        assert not any("language_model.model.layers." in name for name in resident)
        for actual, wanted in zip(streamed, expected, strict=True):
            for each in TAPS:
                np.testing.assert_array_equal(actual[each].data, wanted[each].data)


def test_tensors_larger_than_the_staging_buffer(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 256, 150_000_000, np.uint8)
    data.tofile(tmp_path / "data")
    copies = CopyStream(resolve_device("cuda"))
    for is_direct in (False, True):
        with copies.select():
            tensor = StagingBuffer(copies, is_direct=is_direct).read(
                tmp_path / "data", 4_999, len(data)
            )
        copies.hand_over([tensor])
        np.testing.assert_array_equal(tensor.cpu().numpy(), data[4_999:])


def test_generated_text(checkpoint: Path) -> None:
    model = qa.load(checkpoint, device="cuda", dtype="float32")
    descriptions = model.describe(CLIPS, max_new_tokens=6, sampling_rate=16_000)
    alone = [model.describe(clip, max_new_tokens=6, sampling_rate=16_000) for clip in CLIPS]
    assert descriptions == alone


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-3), ("bfloat16", 0.1)])
def test_scores_of_choices_equal_those_of_each_alone(
    checkpoint: Path, dtype: str, tolerance: float
) -> None:
    """A tree's rows, which flash attention has no mask for."""
    model = qa.load(checkpoint, device="cuda", dtype=dtype)
    pipeline, choices = model.pipeline, [(5,), (6, 7), (6, 8, 9), (6, 8, 10), (11, 8)]
    prompt = pipeline.tokenizer.render("What plays?")
    rows = [[each] for each in pipeline.encode_audio([pipeline.log_mel(clip) for clip in CLIPS])]
    for audios, scores in zip(rows, pipeline.score(prompt, rows, choices), strict=True):
        context = CachedContext()
        (cached,) = pipeline.score(prompt, [audios], choices, context=context)
        (again,) = pipeline.score(prompt, [audios], choices, context=context)
        for number, choice in enumerate(choices):
            (alone,) = pipeline.score(prompt, [audios], [choice])
            for other in (scores, cached, again):
                error = abs(other.log_probability[number] - alone.log_probability[0])
                assert error < tolerance * abs(alone.log_probability[0])
