"""How long a newcomer waits: a whole warm `qwen-audio describe` of 5 s of audio, as a process,
against `python -c "import torch, transformers"`, turn by turn."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
import transformers

ROOT = Path(__file__).parent.parent
SECONDS = 5.0


def timed(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def five_seconds(folder: Path) -> Path:
    """The first example, repeated or cut to 5 s."""
    samples, rate = soundfile.read(ROOT / "examples" / "guitar.flac")
    path = folder / "five_seconds.flac"
    soundfile.write(path, np.resize(samples, round(SECONDS * rate)), rate)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=7)
    turns = parser.parse_args().turns
    with tempfile.TemporaryDirectory() as folder:
        clip = five_seconds(Path(folder))
        describe = [sys.executable, "-m", "qwen_audio.cli", "describe", str(clip)]
        imports = [sys.executable, "-c", "import torch, transformers"]
        timed(describe), timed(imports)  # warm: files in the page cache, bytecode compiled
        pairs = [(timed(imports), timed(describe)) for _ in range(turns)]
    result = {
        "what": f"describe {SECONDS:g} s of audio, warm, against importing torch and transformers",
        "import_seconds": round(statistics.median(pair[0] for pair in pairs), 3),
        "describe_seconds": round(statistics.median(pair[1] for pair in pairs), 3),
        "ratio": round(statistics.median(b / a for a, b in pairs), 3),
        "target": "at most 2",
        "turns": turns,
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    target = ROOT / "benchmarks" / "results" / "start.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
