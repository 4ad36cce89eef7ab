"""The pictures of docs/look.md: `python examples/pictures.py` writes them to docs/pictures."""

from __future__ import annotations

from pathlib import Path

import qwen_audio as qa

HERE = Path(__file__).parent
TARGET = HERE.parent / "docs" / "pictures"


def save(
    thing: qa.View | qa.LogitLens | qa.LayerSimilarity, name: str, panels: list[str] | None = None
) -> None:
    """At 760 pixels, in 256 colours: a tenth of the bytes."""
    from PIL import Image

    draft = TARGET / name
    qa.plot(thing, panels).savefig(draft, dpi=76)
    Image.open(draft).convert("RGB").quantize(256).save(draft, optimize=True)


if __name__ == "__main__":
    TARGET.mkdir(exist_ok=True)
    model = qa.load()
    guitar = str(HERE / "guitar.flac")
    clips = [str(HERE / f"{name}.flac") for name in ("guitar", "djembe", "speech")]
    save(model.lens(guitar, tokens=["guitar", "organ"]), "lens.png")
    panels = ["waveform", "mel", "colours", "novelty", "similarity"]
    save(model.view(guitar), "plot.png", panels)
    save(model.layer_similarity(clips), "layers.png")
