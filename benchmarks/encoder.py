"""The ear against everyone else's: 5 s clips, and windows of 30 s."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .benchmark import Result, Settings, Target, say
from .checkpoints import EAR, SMALL, checkpoint
from .machine import need
from .rounds import Rounds, in_turns, once

__all__ = ["ctranslate2", "five_seconds", "openvino", "thirty_seconds"]

DTYPE = "bfloat16"


def five_seconds(settings: Settings) -> Result:
    clips, alone = (4, 1) if not settings.quick else (2, 1)
    batch = _against_composite(settings, 5.0, clips)
    single = _against_composite(settings, 5.0, alone)
    return Result(
        what=f"{clips} clips of 5 s, tap audio_tower: ours against transformers' composite model, "
        "padded to 30 s and masked, all clips in one batch; and one clip alone",
        dtype=DTYPE,
        figures={
            "ours_seconds": batch.seconds("ours"),
            "transformers_seconds": batch.seconds("transformers"),
            "one_clip_ours_seconds": single.seconds("ours"),
            "one_clip_transformers_seconds": single.seconds("transformers"),
            "one_clip_ratio": single.ratio("transformers", "ours"),
            "cosine": _cosine(batch, "transformers"),
        },
        ratio=batch.ratio("transformers", "ours"),
        target=Target(7.5),
    )


def thirty_seconds(settings: Settings) -> Result:
    rounds = _against_composite(settings, 30.0, 1)
    return Result(
        what="one window of 30 s, tap audio_tower: ours against transformers' composite model",
        dtype=DTYPE,
        figures={
            "ours_seconds": rounds.seconds("ours"),
            "transformers_seconds": rounds.seconds("transformers"),
            "cosine": _cosine(rounds, "transformers"),
        },
        ratio=rounds.ratio("transformers", "ours"),
        target=Target(1.15),
    )


def ctranslate2(settings: Settings) -> Result:
    need("ctranslate2")
    folder = _ear(settings)
    model = _converted(settings, folder, "ctranslate2", "")
    count = 4 if not settings.quick else 2
    common = {"checkpoint": str(folder), "seconds": 5.0, "count": count}
    rounds = in_turns(
        settings,
        {
            "ctranslate2": (
                "peers:ctranslate2_int8",
                {**common, "model": str(model), "threads": settings.threads},
            ),
            "ours": ("this_package:tower", {**common, "dtype": DTYPE, "threads": settings.threads}),
        },
    )
    return Result(
        what=f"{count} clips of 5 s: ours, bfloat16, against CTranslate2's Whisper encoder of the "
        "same layers (large-v3's), int8, over windows of 30 s in one batch",
        dtype=f"{DTYPE} against {rounds.facts('ctranslate2')[0]['compute_type']}",
        figures={
            "ours_seconds": rounds.seconds("ours"),
            "ctranslate2_seconds": rounds.seconds("ctranslate2"),
        },
        ratio=rounds.ratio("ctranslate2", "ours"),
        target=Target(8),
        packages=("ctranslate2",),
    )


def openvino(settings: Settings) -> Result:
    need("openvino")
    folder = _ear(settings)
    model = _converted(settings, folder, "openvino", "tower.xml")
    common = {
        "checkpoint": str(folder),
        "seconds": 30.0,
        "count": 1,
        "dtype": DTYPE,
        "threads": settings.threads,
    }
    rounds = in_turns(
        settings,
        {
            "openvino": ("peers:openvino_tower", {**common, "model": str(model)}),
            "ours": ("this_package:tower", common),
        },
    )
    return Result(
        what="one window of 30 s, tap audio_tower: ours against OpenVINO's conversion of "
        "transformers' encoder",
        dtype=DTYPE,
        figures={
            "ours_seconds": rounds.seconds("ours"),
            "openvino_seconds": rounds.seconds("openvino"),
            "cosine": _cosine(rounds, "openvino"),
        },
        ratio=rounds.ratio("openvino", "ours"),
        target=Target(0.95),
        packages=("openvino",),
    )


def _ear(settings: Settings) -> Path:
    return checkpoint(settings.work, SMALL if settings.quick else EAR)


def _converted(settings: Settings, ear: Path, engine: str, file: str) -> Path:
    """The ear in a peer's own format, made unless it is there whole. `file` is what to open."""
    folder = ear.with_name(f"{ear.name}_{engine}")
    stamp, wanted = folder / "shape.json", (ear / "shape.json").read_text(encoding="utf-8")
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
        say(f"  converting for {engine}")
        options = {"checkpoint": str(ear), "target": str(folder / file)}
        once(settings, (f"peers:write_{engine}", options))
        stamp.write_text(wanted, encoding="utf-8")
    return folder / file


def _against_composite(settings: Settings, seconds: float, count: int) -> Rounds:
    options = {
        "checkpoint": str(_ear(settings)),
        "seconds": seconds,
        "count": count,
        "dtype": DTYPE,
        "threads": settings.threads,
    }
    return in_turns(
        settings,
        {
            "transformers": ("peers:composite_tower", options),
            "ours": ("this_package:tower", options),
        },
    )


def _cosine(rounds: Rounds, peer: str) -> float:
    """Whether both computed the same: of the first clip's mean vectors."""
    ours, theirs = (np.array(rounds.facts(name)[0]["first"]) for name in ("ours", peer))
    return float(ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs))
