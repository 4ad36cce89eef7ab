"""Figures of each family, at a released model's widths: plans, and the encoder's speed."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from .benchmark import Result, Settings, Target, log_progress
from .family_checkpoints import CASES, FamilyCheckpoints, write_family
from .machine import require_linux
from .released_models import RELEASED
from .resources import EMBEDDED, peak_bytes
from .rounds import Rounds, run_interleaved
from .synthetic_audio import SAMPLING_RATE, synthetic_clip
from .this_package import load_model
from .worker import Workload

__all__ = ["family_plans", "planned_and_encoded", "transformers_tower"]

DTYPE = "bfloat16"
SECONDS = 5.0
MB, GB = 1e6, 1e9


def family_plans(settings: Settings) -> Result:
    require_linux()
    settings.work.mkdir(parents=True, exist_ok=True)
    _silence_transformers()
    rows, errors, cosines = {}, [], []
    for model_type, released in RELEASED.items():
        log_progress(f"  {released.name}")
        with tempfile.TemporaryDirectory(prefix="family-", dir=settings.work) as folder:
            written = write_family(Path(folder), model_type, None if settings.quick else released)
            rounds = _rounds(settings, model_type, written)
        ours = rounds.outputs("ours")[0]
        ratios = [
            ours[name][tap] / count
            for name in ("whole", "two_layers")
            for tap, count in getattr(written, name).tap_bytes.items()
        ]
        errors += [abs(ratio - 1) for ratio in ratios]
        a, b = (np.array(rounds.outputs(name)[0]["first"]) for name in rounds.names)
        cosines.append(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
        rows[model_type] = {
            "model": released.name,
            "parameters_billion": written.whole.parameters / 1e9,
            **{f"{tap}_gb": count / GB for tap, count in ours["whole"].items()},
            "planned_ratio": max(ratios),
            "read_ratio": ours["read"] / written.two_layers.tap_bytes["audio_tower"],
            "open_ms": 1000 * ours["open_seconds"],
            "open_again_ms": 1000 * ours["open_again_seconds"],
            "open_read_mb": ours["open_read"] / MB,
            "open_peak_mb": ours["open_peak"] / MB,
            "two_layers_ours_ms": 1000 * rounds.median_seconds("ours"),
            "two_layers_transformers_ms": 1000 * rounds.median_seconds("transformers"),
            "two_layers_speed_ratio": rounds.median_ratio("transformers", "ours"),
        }
    return Result(
        what="a row for each family, with the sizes of a released model: bytes that `cost` plans "
        "for audio_tower, projector, lm.1 and text, against transformers' parameters, and bytes "
        "that audio_tower reads (the largest ratio). Files have headers of all tensors, and holes; "
        "only the headers are read. With two layers of the encoder in random weights: one clip of "
        f"{SECONDS:g} s at audio_tower against transformers' model, from samples",
        dtype=DTYPE,
        figures={"largest_planned_error": max(errors), "least_cosine": min(cosines)},
        rows=rows,
        ratio=max(max(row["planned_ratio"], row["read_ratio"]) for row in rows.values()),
        target=Target(1.02, at_most=True),
        conditions={
            "plan_leaves_nothing_out": max(errors) < 0.01,
            "same_vectors_as_transformers": min(cosines) > 0.999,
        },
    )


def _rounds(settings: Settings, model_type: str, written: FamilyCheckpoints) -> Rounds:
    options = {"seconds": SECONDS, "dtype": DTYPE, "threads": settings.threads}
    ours = {"whole": str(written.whole.folder), "two_layers": str(written.two_layers.folder)}
    taps = list(written.whole.tap_bytes)
    return run_interleaved(
        settings,
        {
            "transformers": (
                "family_plans:transformers_tower",
                {"folder": str(written.peer), "model_type": model_type, **options},
            ),
            "ours": ("family_plans:planned_and_encoded", {**ours, "taps": taps, **options}),
        },
    )


def planned_and_encoded(
    whole: str, two_layers: str, taps: list[str], seconds: float, dtype: str, threads: int
) -> Workload:
    """Mean of `audio_tower` of a clip; also what opening the whole checkpoint takes, and plans."""
    clip = synthetic_clip(seconds)
    embedded = load_model(EMBEDDED, dtype, threads)  # imports what all families need
    embedded.encode(clip, tap="audio_tower", sampling_rate=SAMPLING_RATE)
    embedded.cost()

    def plan(model: Any) -> dict[str, int]:
        return {tap: model.cost(tap).read_bytes for tap in taps}

    read, resident, start = _bytes_read(), _reset_peak(), perf_counter()
    model = load_model(whole, dtype, threads)
    figures = {
        "open_seconds": perf_counter() - start,
        "whole": plan(model),
        "open_read": _bytes_read() - read,
        "open_peak": peak_bytes() - resident,
    }
    start = perf_counter()
    load_model(whole, dtype, threads)
    figures["open_again_seconds"] = perf_counter() - start
    model = load_model(two_layers, dtype, threads)
    figures["two_layers"] = plan(model)

    def run() -> dict[str, Any]:
        vector = model.encode(clip, tap="audio_tower", pooling="mean", sampling_rate=SAMPLING_RATE)
        return {"first": np.round(vector, 5).tolist(), **figures}

    read = _bytes_read()
    run()
    figures["read"] = _bytes_read() - read
    return run


def transformers_tower(
    folder: str, model_type: str, seconds: float, dtype: str, threads: int
) -> Workload:
    """The same of transformers' model of the family."""
    from families import TransformersReference

    _silence_transformers()
    torch.set_num_threads(threads)
    case = CASES[model_type]
    reference = TransformersReference(case, Path(folder), getattr(torch, dtype))
    model, clip, seen = reference.model, synthetic_clip(seconds), list[torch.Tensor]()
    if model_type == "qwen2_5_omni":  # its processor pads to 300 s, and its encoder cuts that again
        reference.processor.feature_extractor.n_samples = clip.size

    def stop(rows: torch.Tensor) -> None:
        seen.append(rows)
        raise _TowerEnd

    if case.language_model:
        prompt = reference.processor.audio_token
        projector = model.get_submodule(case.projector)
        projector.register_forward_pre_hook(lambda _, args: stop(args[0]))
    else:
        prompt, model = "", model.get_submodule(case.tower)
        model.layer_norm.register_forward_hook(lambda _, __, output: stop(output))

    @torch.inference_mode()
    def run() -> dict[str, Any]:
        inputs = reference.inputs(clip, prompt)
        inputs["input_features"] = inputs["input_features"].to(model.dtype)
        with suppress(_TowerEnd):
            model(**inputs)
        rows = seen.pop()
        count = reference.row_counts(inputs, clip)["audio_tower"]
        mean = rows.reshape(-1, rows.shape[-1])[:count].float().mean(0)
        return {"first": np.round(mean.numpy(), 5).tolist()}

    run()
    return run


class _TowerEnd(Exception):  # noqa: N818 (no error: what follows isn't timed)
    """The rows of `audio_tower` are there."""


def _silence_transformers() -> None:
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _bytes_read() -> int:
    """Bytes that this process has read from files, in the page cache or not."""
    pairs = (line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return next(int(count) for name, count in pairs if name == "rchar")


def _reset_peak() -> int:
    """Let the peak of this process's memory begin anew. Returns its resident memory in bytes."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return peak_bytes()
