"""Confidence intervals of shares."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

__all__ = ["wilson_interval"]

_Z = 1.959964
"""The standard normal distribution has 95 % between −z and z."""


def wilson_interval(
    successes: Float64[np.ndarray, " shares"], trials: Float64[np.ndarray, " shares"]
) -> tuple[Float64[np.ndarray, " shares"], Float64[np.ndarray, " shares"]]:
    """Ends of Wilson's 95 % interval of binomial proportions (Wilson, Probable Inference, the Law
    of Succession, and Statistical Inference, JASA 22, 1927)."""
    share, spread = successes / trials, _Z**2 / trials
    middle = (share + spread / 2) / (1 + spread)
    half = np.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    # Of none and of all, rounding would put the end beyond 0 and 1.
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)
