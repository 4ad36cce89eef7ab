"""A sparse dictionary of the rows of a tap, and where its features are strongest.

    qwen-audio encode examples --tap lm.2 --pooling none -o lm2.dataset
    python examples/sparse_features.py lm2.dataset lm.2

A TopK autoencoder with its own short loop, to show how the rows are read; for more than a look,
give the folder to a library such as SAELens. Three clips are too few for features that mean much.
"""

import argparse

import numpy as np
import torch
from torch import Tensor, nn


class TopK(nn.Module):
    """Each row as a sum of at most k of `features` directions."""

    def __init__(self, width: int, features: int, k: int) -> None:
        super().__init__()
        self.k = k
        self.encode_rows = nn.Linear(width, features)
        self.decode_rows = nn.Linear(features, width)
        with torch.no_grad():
            self.encode_rows.weight.copy_(self.decode_rows.weight.T)

    def encode(self, rows: Tensor) -> Tensor:
        """How strong each feature is in each row; all but k are 0."""
        strengths = self.encode_rows(rows - self.decode_rows.bias).relu()
        top = strengths.topk(self.k, dim=-1)
        return torch.zeros_like(strengths).scatter(-1, top.indices, top.values)

    def forward(self, rows: Tensor) -> Tensor:
        """The rows again, from their features."""
        restored: Tensor = self.decode_rows(self.encode(rows))
        return restored


def train(rows: Tensor, features: int, k: int, steps: int, seed: int = 0) -> tuple[TopK, float]:
    """A dictionary, and the share of the rows' variance that it explains."""
    torch.manual_seed(seed)
    dictionary = TopK(rows.shape[1], features, k)
    with torch.no_grad():
        dictionary.decode_rows.bias.copy_(rows.mean(0))
    optimizer = torch.optim.Adam(dictionary.parameters(), 3e-3)
    for _ in range(steps):
        batch = rows[torch.randint(len(rows), (256,))]
        loss = (dictionary(batch) - batch).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        error = (dictionary(rows) - rows).square().sum()
        return dictionary, float(1 - error / (rows - rows.mean(0)).square().sum())


def main() -> None:
    """Train, and print the features that are strongest, each with its top moments."""
    import datasets

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("tap")
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--k", type=int, default=4)
    parser.add_argument("--steps", type=int, default=1000)
    options = parser.parse_args()
    dataset = datasets.load_from_disk(options.folder)
    rows = torch.from_numpy(np.asarray(dataset.with_format("numpy")[options.tap][:])[:, 0].copy())
    rows = rows / rows.square().mean().sqrt()
    dictionary, explained = train(rows, options.features, options.k, options.steps)
    print(f"{len(rows)} rows: {explained:.0%} of the variance by {options.k} features a row")
    with torch.no_grad():
        strengths = dictionary.encode(rows)
    sources, seconds = np.array(dataset["source"]), np.array(dataset["start_seconds"])
    for feature in strengths.sum(0).argsort(descending=True)[:8].tolist():
        top = strengths[:, feature].topk(3).indices.numpy()
        share = float((strengths[:, feature] > 0).float().mean())
        moments = ", ".join(f"{sources[row]} {seconds[row]:.2f} s" for row in top)
        print(f"feature {feature} ({share:.0%} of the rows): {moments}")


if __name__ == "__main__":
    main()
