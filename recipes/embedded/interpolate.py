"""Average two checkpoints: `python -m recipes.embedded.interpolate --of A B --into DIR`.

Weights that were trained on from others lie near them, and half-way between is often righter about
what neither was trained on than both are (Wortsman et al. 2022, arXiv:2109.01903).
"""

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def blend(earlier: Path, later: Path, share: float, into: Path) -> None:
    """Write `later` with its weights drawn towards `earlier`'s: `share` of them is its own."""
    files = [
        (load_file(earlier / p.name), load_file(p), p) for p in sorted(later.glob("*.safetensors"))
    ]
    for before, after, path in files:
        if before.keys() != after.keys():
            raise ValueError(f"{earlier} and {later} are not of one model: {path.name} differs")
    shutil.copytree(later, into)
    for before, after, path in files:
        mixed = {name: before[name].float().lerp(after[name].float(), share) for name in after}
        halved = {name: tensor.to(torch.bfloat16) for name, tensor in mixed.items()}
        save_file(halved, into / path.name, metadata={"format": "pt"})
        (into / path.name).chmod(0o644)


def main() -> None:
    """Average."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--of", type=Path, nargs=2, required=True, metavar=("EARLIER", "LATER"))
    parser.add_argument("--share", type=float, default=0.5, help="of the later one's weights")
    parser.add_argument("--into", type=Path, required=True, help="a folder that is not there yet")
    options = parser.parse_args()
    earlier, later = options.of
    blend(earlier, later, options.share, options.into)


if __name__ == "__main__":
    main()
