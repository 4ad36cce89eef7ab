"""Interpolate two checkpoints: `python -m recipes.embedded.interpolate --of A B --into DIR`.

Between a checkpoint and one fine-tuned from it, interpolated weights are often more accurate than
both on data that neither was trained on (Wortsman et al. 2022, arXiv:2109.01903).
"""

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def interpolate_checkpoints(earlier: Path, later: Path, share: float, into: Path) -> None:
    """Write a checkpoint with weights (1 - share) · earlier + share · later, in bfloat16.

    Raises:
        ValueError: if they have different tensors.
    """
    files = [
        (load_file(earlier / p.name), load_file(p), p) for p in sorted(later.glob("*.safetensors"))
    ]
    for before, after, path in files:
        if before.keys() != after.keys():
            raise ValueError(f"{earlier} and {later} are not of one model: {path.name} differs")
    shutil.copytree(later, into)
    for before, after, path in files:
        weights = {name: before[name].float().lerp(after[name].float(), share) for name in after}
        half = {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}
        save_file(half, into / path.name, metadata={"format": "pt"})
        (into / path.name).chmod(0o644)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--of", type=Path, nargs=2, required=True, metavar=("EARLIER", "LATER"))
    parser.add_argument("--share", type=float, default=0.5, help="weight of the later checkpoint")
    parser.add_argument("--into", type=Path, required=True, help="a new folder")
    options = parser.parse_args()
    earlier, later = options.of
    interpolate_checkpoints(earlier, later, options.share, options.into)


if __name__ == "__main__":
    main()
