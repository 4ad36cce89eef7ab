"""Parity at the 7B's width: its whole ear (32 layers of 1280) and two layers of its language model
(4096 wide) with random weights in float32, ours against transformers' composite model, per tap."""

from __future__ import annotations

import json
import platform
import sys
import tempfile
import time
from pathlib import Path

import torch
import transformers

import qwen_audio as qa

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from checkpoints import random_checkpoint  # noqa: E402
from reference import Reference, relative_error, sound  # noqa: E402

SECONDS = 5.0


def main() -> None:
    clip = sound(SECONDS)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = random_checkpoint(
            Path(folder),
            mel_bins=128,
            width=1280,
            encoder_layers=32,
            encoder_heads=20,
            lm_width=4096,
            lm_layers=2,
            heads=32,
            kv_heads=32,
            shards=5,
        )
        model = qa.load(checkpoint, device="cpu", dtype="float32")
        taps = [str(tap) for tap in model.taps]
        model.activations(clip, taps=taps, sampling_rate=16_000)  # reads the weights
        start = time.perf_counter()
        ours = model.activations(clip, taps=taps, sampling_rate=16_000)
        our_seconds = time.perf_counter() - start
        parameters = model.cost(None).parameters
        reference = Reference(checkpoint)
        start = time.perf_counter()
        theirs = reference.taps(clip)
        their_seconds = time.perf_counter() - start
    errors = {tap: relative_error(ours[tap].data, theirs[tap]) for tap in taps}
    result = {
        "what": "largest relative error per tap, float32, random weights, 7B's ear at full size "
        "and two of its LM's layers at full width",
        "parameters": parameters,
        "clip_seconds": SECONDS,
        "errors": {tap: float(f"{error:.2g}") for tap, error in errors.items()},
        "largest": float(f"{max(errors.values()):.2g}"),
        "ours_seconds": round(our_seconds, 2),
        "transformers_seconds": round(their_seconds, 2),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    target = ROOT / "benchmarks" / "results" / "full_width.json"
    target.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
