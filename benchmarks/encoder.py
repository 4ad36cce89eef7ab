"""Speed of the audio encoder against other implementations: clips of 5 s, windows of 30 s."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .benchmark import Result, Settings, Target, log_progress
from .checkpoints import FULL_ENCODER, SMALL, random_checkpoint
from .machine import require_packages
from .rounds import Rounds, run_interleaved, run_once

__all__ = ["ctranslate2", "five_seconds", "int8_encoder", "openvino", "thirty_seconds"]

DTYPE = "bfloat16"


def five_seconds(settings: Settings) -> Result:
    clips = 4 if not settings.quick else 2
    batch = _against_composite(settings, 5.0, clips)
    single = _against_composite(settings, 5.0, 1)
    return Result(
        what=f"{clips} clips of 5 s, tap audio_tower: this package against transformers' "
        "composite model, padded to 30 s and masked, all clips in one batch; and one clip alone",
        dtype=DTYPE,
        figures={
            "ours_seconds": batch.median_seconds("ours"),
            "transformers_seconds": batch.median_seconds("transformers"),
            "one_clip_ours_seconds": single.median_seconds("ours"),
            "one_clip_transformers_seconds": single.median_seconds("transformers"),
            "one_clip_ratio": single.median_ratio("transformers", "ours"),
            "cosine": _cosine(batch, "transformers"),
        },
        ratio=batch.median_ratio("transformers", "ours"),
        target=Target(7.5),
    )


def thirty_seconds(settings: Settings) -> Result:
    rounds = _against_composite(settings, 30.0, 1)
    return Result(
        what="one window of 30 s, tap audio_tower: this package against transformers' "
        "composite model",
        dtype=DTYPE,
        figures={
            "ours_seconds": rounds.median_seconds("ours"),
            "transformers_seconds": rounds.median_seconds("transformers"),
            "cosine": _cosine(rounds, "transformers"),
        },
        ratio=rounds.median_ratio("transformers", "ours"),
        target=Target(1.15),
    )


def int8_encoder(settings: Settings) -> Result:
    count = 4 if not settings.quick else 2
    figures: dict[str, float] = {}
    for name, seconds, clips in (("five_seconds", 5.0, count), ("thirty_seconds", 30.0, 1)):
        options = {
            "checkpoint": str(_checkpoint(settings)),
            "seconds": seconds,
            "count": clips,
            "dtype": DTYPE,
            "threads": settings.threads,
        }
        quantized = {"quantize": "int8", "cache": str(settings.work / "hub")}
        rounds = run_interleaved(
            settings,
            {
                DTYPE: ("this_package:encode_clips", options),
                "int8": ("this_package:encode_clips", options | quantized),
            },
        )
        figures |= {f"{name}_{kind}_seconds": rounds.median_seconds(kind) for kind in rounds.names}
        figures |= {
            f"{name}_ratio": rounds.median_ratio("int8", DTYPE),
            f"{name}_cosine": _cosine(rounds, "int8", DTYPE),
        }
    return Result(
        what=f"{count} clips of 5 s, and one window of 30 s, tap audio_tower: weights and "
        "activations in 8 bits against bfloat16; the larger ratio, and the cosines of mean vectors "
        "(those of single layers are in `quantization`)",
        dtype=f"int8 against {DTYPE}",
        figures=figures,
        ratio=max(figures["five_seconds_ratio"], figures["thirty_seconds_ratio"]),
        target=Target(0.7, at_most=True),
    )


def ctranslate2(settings: Settings) -> Result:
    require_packages("ctranslate2")
    checkpoint = _checkpoint(settings)
    model = _converted(settings, checkpoint, "ctranslate2", "")
    count = 4 if not settings.quick else 2
    common = {"checkpoint": str(checkpoint), "seconds": 5.0, "count": count}
    rounds = run_interleaved(
        settings,
        {
            "ctranslate2": (
                "peers:ctranslate2_int8",
                {**common, "model": str(model), "threads": settings.threads},
            ),
            "ours": (
                "this_package:encode_clips",
                {**common, "dtype": DTYPE, "threads": settings.threads},
            ),
        },
    )
    return Result(
        what=f"{count} clips of 5 s: this package, bfloat16, against CTranslate2's Whisper encoder "
        "with the same layers (large-v3's), int8, over windows of 30 s in one batch",
        dtype=f"{DTYPE} against {rounds.outputs('ctranslate2')[0]['compute_type']}",
        figures={
            "ours_seconds": rounds.median_seconds("ours"),
            "ctranslate2_seconds": rounds.median_seconds("ctranslate2"),
        },
        ratio=rounds.median_ratio("ctranslate2", "ours"),
        target=Target(8),
        packages=("ctranslate2",),
    )


def openvino(settings: Settings) -> Result:
    require_packages("openvino")
    checkpoint = _checkpoint(settings)
    model = _converted(settings, checkpoint, "openvino", "tower.xml")
    common = {
        "checkpoint": str(checkpoint),
        "seconds": 30.0,
        "count": 1,
        "dtype": DTYPE,
        "threads": settings.threads,
    }
    rounds = run_interleaved(
        settings,
        {
            "openvino": ("peers:openvino_tower", {**common, "model": str(model)}),
            "ours": ("this_package:encode_clips", common),
        },
    )
    return Result(
        what="one window of 30 s, tap audio_tower: this package against OpenVINO's conversion "
        "of transformers' encoder",
        dtype=DTYPE,
        figures={
            "ours_seconds": rounds.median_seconds("ours"),
            "openvino_seconds": rounds.median_seconds("openvino"),
            "cosine": _cosine(rounds, "openvino"),
        },
        ratio=rounds.median_ratio("openvino", "ours"),
        target=Target(0.95),
        packages=("openvino",),
    )


def _checkpoint(settings: Settings) -> Path:
    return random_checkpoint(settings.work, SMALL if settings.quick else FULL_ENCODER)


def _converted(settings: Settings, checkpoint: Path, engine: str, file: str) -> Path:
    """The encoder in a peer's format, converted unless a complete copy exists.

    Args:
        file: what the peer opens, relative to the converted model's folder.
    """
    folder = checkpoint.with_name(f"{checkpoint.name}_{engine}")
    stamp = folder / "shape.json"  # written last
    shape = (checkpoint / "shape.json").read_text(encoding="utf-8")
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != shape:
        log_progress(f"  converting for {engine}")
        options = {"checkpoint": str(checkpoint), "target": str(folder / file)}
        run_once(settings, (f"peers:write_{engine}", options))
        stamp.write_text(shape, encoding="utf-8")
    return folder / file


def _against_composite(settings: Settings, seconds: float, count: int) -> Rounds:
    options = {
        "checkpoint": str(_checkpoint(settings)),
        "seconds": seconds,
        "count": count,
        "dtype": DTYPE,
        "threads": settings.threads,
    }
    return run_interleaved(
        settings,
        {
            "transformers": ("peers:composite_tower", options),
            "ours": ("this_package:encode_clips", options),
        },
    )


def _cosine(rounds: Rounds, peer: str, name: str = "ours") -> float:
    """Cosine of both mean vectors of the first clip: 1 where both compute the same."""
    a, b = (np.array(rounds.outputs(each)[0]["first"]) for each in (name, peer))
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
