"""Makes the plots of docs/plots.md: `python examples/plots.py` writes them to docs/plots."""

from __future__ import annotations

from pathlib import Path

import qwen_audio as qa

EXAMPLES = Path(__file__).parent
OUTPUT = EXAMPLES.parent / "docs" / "plots"


def save(
    plottable: qa.View | qa.LogitLens | qa.LayerSimilarity,
    name: str,
    panels: list[str] | None = None,
) -> None:
    """Save a plot 760 pixels wide, with a palette of 256 colours: a tenth of the bytes."""
    from PIL import Image

    path = OUTPUT / name
    qa.plot(plottable, panels).savefig(path, dpi=76)
    Image.open(path).convert("RGB").quantize(256).save(path, optimize=True)


if __name__ == "__main__":
    OUTPUT.mkdir(exist_ok=True)
    model = qa.load()
    guitar = str(EXAMPLES / "guitar.flac")
    clips = [str(EXAMPLES / f"{name}.flac") for name in ("guitar", "djembe", "speech")]
    save(model.lens(guitar, tokens=["guitar", "organ"]), "lens.png")
    panels = ["waveform", "mel", "colours", "novelty", "similarity"]
    save(model.view(guitar), "plot.png", panels)
    save(model.layer_similarity(clips), "layers.png")
