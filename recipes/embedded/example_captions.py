"""Captions of the examples, beside a checkpoint: `python -m recipes.embedded.example_captions`.

The playground shows them before the model has run, and only for weights of the revision they were
made with. Run it after the weights have changed; tests/playground/test_ask.py compares.
"""

import argparse
import json
from pathlib import Path

import qwen_audio as qa
from qwen_audio.audio.examples import example_paths
from qwen_audio.playground.examples import CAPTIONS_NAME

EMBEDDED = Path(__file__).parents[2] / "src/qwen_audio/models/embedded"


def write_captions(folder: Path) -> Path:
    """Write what a checkpoint says about each example, computed in float32, into its folder."""
    model = qa.load(folder, dtype="float32")
    captions = {name: str(model.describe(path)) for name, path in example_paths().items()}
    content = {"revision": model.spec().revision, "captions": captions}
    path = folder / CAPTIONS_NAME
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=EMBEDDED, help="its folder")
    print(write_captions(parser.parse_args().checkpoint))


if __name__ == "__main__":
    main()
