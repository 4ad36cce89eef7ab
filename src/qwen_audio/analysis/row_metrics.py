"""Similarity and distance of rows, pair by pair: the metrics of a comparison."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Float, Float32

from qwen_audio.errors import OptionError

__all__ = ["METRICS", "METRIC_NAMES", "Metric", "check_metric", "row_metric"]

Metric: TypeAlias = Literal["cosine", "correlation", "centred_cosine", "relative_distance"]
METRICS: tuple[Metric, ...] = get_args(Metric)
METRIC_NAMES: dict[Metric, str] = {
    "cosine": "Cosine",
    "correlation": "Correlation",
    "centred_cosine": "Centred cosine",
    "relative_distance": "Relative distance",
}
_LEAST_NORM = 1e-12
"""Below it a row has no direction: its cosine with any other is 0."""


def check_metric(metric: str) -> Metric:
    """The metric of this name.

    Raises:
        OptionError: for any other name.
    """
    for known in METRICS:
        if metric == known:
            return known
    raise OptionError(f"metric={metric!r:.80}: use {', '.join(METRICS)}")


def row_metric(
    one: Float[np.ndarray, "rows width"],
    other: Float[np.ndarray, "rows width"],
    metric: Metric,
    centres: tuple[Float[np.ndarray, "width"], Float[np.ndarray, "width"]] | None = None,
) -> Float32[np.ndarray, "rows"]:
    """Shape (rows,): of each row with that of the same number.

    - cosine: of the angle between both.
    - correlation: Pearson's over the dimensions, as in representational similarity analysis
      (Kriegeskorte et al., 2008) and `scipy.spatial.distance.correlation`: the cosine after
      subtracting from each row the mean over its dimensions.
    - centred_cosine: the cosine after subtracting each recording's own mean row from its rows, as
      centred kernel alignment does (Kornblith et al., 2019): whether both change in the same way.
      What stays the same in a recording, as what all rows of a tap share, does not count.
    - relative_distance: Euclidean distance over the mean of both norms: 0 of equal rows, 2 of
      opposite ones.

    Args:
        centres: mean rows of both recordings, for centred_cosine.
    """
    if metric == "relative_distance":
        norms = np.linalg.norm(one, axis=1) + np.linalg.norm(other, axis=1)
        distances = np.linalg.norm(one - other, axis=1)
        return np.asarray(2 * distances / np.maximum(norms, _LEAST_NORM), np.float32)
    if metric == "correlation":
        one, other = (rows - rows.mean(1, keepdims=True) for rows in (one, other))
    elif metric == "centred_cosine":
        if centres is None:
            raise ValueError("centred_cosine takes the mean rows of both")
        one, other = one - centres[0], other - centres[1]
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray((one * other).sum(1) / np.maximum(norms, _LEAST_NORM), np.float32)
