"""The study of docs/study.md, anew: `python -m recipes.study --parts DIR`.

Renders the clips (once), asks `qwen-audio probe` for every tap, and writes the figure and the
tables between the marks of the page. Everything below the clips is the package's own commands.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from recipes.embedded import checkpoint
from recipes.embedded.parts import Parts

from .clips import make
from .page import figures, filled

ROOT = Path(__file__).parents[2]
PAGE, FIGURES = ROOT / "docs/study.md", ROOT / "docs/study"
EAR = ["mel", *(f"encoder.{k}" for k in range(5)), "audio_tower"]


def untrained(parts: Path, work: Path) -> Path:
    """The embedded checkpoint as it was before its first step: with Whisper tiny.en's own ear."""
    folder = work / "whisper"
    if not folder.exists():
        opened = Parts(parts)
        tokenizer = opened.tokenizer()
        checkpoint.save(checkpoint.build(tokenizer, opened.whisper), tokenizer, folder)
    return folder


def main() -> None:
    """Make what is missing, probe, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=Path, required=True, help="the embedded recipe's parts")
    parser.add_argument("--work", type=Path, default=ROOT / "study", help="for clips and vectors")
    parser.add_argument("--model", default=None, help="another checkpoint")
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=2025)
    options = parser.parse_args()
    manifest = make(options.parts, options.work / "clips", options.clips, options.seed)
    model = ["--model", options.model] if options.model else []
    found = {}
    runs = {
        "mean": model,  # every tap, the mean of its rows
        "spread": [*model, "--pooling", "mean+std", "--tap", *EAR],
        "last": [*model, "--span", "last", "--tap", *(f"lm.{k}" for k in range(5)), "lm.norm"],
        "before": ["--model", str(untrained(options.parts, options.work)), "--tap", *EAR],
    }
    for name, given in runs.items():
        out = options.work / name
        shown = ["qwen-audio", "probe", str(manifest), *given, "--probe", "logistic", "ridge"]
        print(" ".join(shown), flush=True)
        command = [*shown[1:], "--cache", str(options.work / "cache"), "-o", str(out)]
        done = subprocess.run([sys.executable, "-m", "qwen_audio.cli.main", *command], check=False)
        if not (out / "scores.json").exists():
            sys.exit(done.returncode or 1)
        found[name] = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    FIGURES.mkdir(exist_ok=True)
    figures(found, FIGURES)
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main()
