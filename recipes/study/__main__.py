"""Reproduce docs/study.md: `python -m recipes.study --downloads DIR`.

Renders the clips (once), runs `qwen-audio probe` on every tap, and writes the figure and the
tables between the markers of the page.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from recipes.embedded import checkpoint
from recipes.embedded.downloads import Downloads

from .clips import write_dataset
from .page import fill_page, save_figure

ROOT = Path(__file__).parents[2]
PAGE, FIGURES = ROOT / "docs/study.md", ROOT / "docs/study"
ENCODER_TAPS = ["mel", *(f"encoder.{k}" for k in range(5)), "audio_tower"]
LM_TAPS = [*(f"lm.{k}" for k in range(5)), "lm.norm"]


def write_untrained_checkpoint(downloads_folder: Path, work: Path) -> Path:
    """The embedded checkpoint before training, with Whisper tiny.en's encoder weights."""
    folder = work / "whisper"
    if not folder.exists():
        downloads = Downloads(downloads_folder)
        tokenizer = downloads.tokenizer()
        checkpoint.save(checkpoint.build(tokenizer, downloads.whisper), tokenizer, folder)
    return folder


def _tap_options(taps: list[str]) -> list[str]:
    return [part for tap in taps for part in ("--tap", tap)]


def main() -> None:
    """Render missing clips, probe, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--downloads", type=Path, required=True, help="folder that recipes.embedded.fetch filled"
    )
    parser.add_argument(
        "--work", type=Path, default=ROOT / "study", help="folder for clips and embeddings"
    )
    parser.add_argument("--model", default=None, help="checkpoint to study (default: embedded)")
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=2025)
    options = parser.parse_args()
    manifest = write_dataset(options.downloads, options.work / "clips", options.clips, options.seed)
    model = ["--model", options.model] if options.model else []
    results = {}
    runs = {
        "mean": model,  # all taps, mean pooling
        "spread": [*model, "--pooling", "mean+std", *_tap_options(ENCODER_TAPS)],
        "last": [*model, "--span", "last", *_tap_options(LM_TAPS)],
        "before": [
            "--model",
            str(write_untrained_checkpoint(options.downloads, options.work)),
            *_tap_options(ENCODER_TAPS),
        ],
    }
    for name, arguments in runs.items():
        output = options.work / name
        probes = ["--probe", "logistic", "--probe", "ridge"]
        shown = ["qwen-audio", "probe", str(manifest), *arguments, *probes]
        print(" ".join(shown), flush=True)
        command = [*shown[1:], "--cache", str(options.work / "cache"), "-o", str(output)]
        process = subprocess.run([sys.executable, "-m", "qwen_audio", *command], check=False)
        if not (output / "scores.json").exists():
            sys.exit(process.returncode or 1)
        results[name] = json.loads((output / "scores.json").read_text(encoding="utf-8"))
    FIGURES.mkdir(exist_ok=True)
    save_figure(results, FIGURES)
    PAGE.write_text(fill_page(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")


if __name__ == "__main__":
    main()
