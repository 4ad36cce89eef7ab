"""L-BFGS by gradients alone: for smooth losses, in single precision too."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

__all__ = ["descend"]

Point = Float[np.ndarray, "n"]


def descend(
    gradient: Callable[[Point], Point],
    start: Point,
    tolerance: float,
    steps: int = 500,
    memory: int = 10,
) -> Point:
    """Where the gradient vanishes, coming downhill from `start`.

    Nocedal and Wright, Numerical Optimization (2006), algorithm 7.4. How far to go along a
    direction is told by the slope there, not by the loss, whose last digits single precision
    loses long before the gradient's. Scale the loss's variables so that it bends alike along all.

    Args:
        tolerance: near enough once no number of the gradient is larger.
        steps: gradients taken at most.
    """
    here, slopes, taken = start, gradient(start), 1
    pairs: deque[tuple[Point, Point]] = deque(maxlen=memory)
    while taken < steps and np.abs(slopes).max() > tolerance:
        direction = _direction(slopes, pairs)
        falls = float(slopes @ direction)
        if falls >= 0:  # rounding is all that is left
            break
        step, near, near_falls, far = 1.0, 0.0, falls, None
        for _ in range(20):
            there = here + step * direction
            slopes_there = gradient(there)
            taken += 1
            still = float(slopes_there @ direction)
            if still > -0.9 * falls:  # beyond the valley
                share = near_falls / (near_falls - still)
                far = step
                step = near + (far - near) * min(max(share, 0.1), 0.9)
            elif still < 0.9 * falls:  # as steep as before
                near, near_falls = step, still
                step = 2 * step if far is None else (near + far) / 2
            else:
                break
        moved, bent = there - here, slopes_there - slopes
        here, slopes = there, slopes_there
        if moved @ bent > 1e-10 * (bent @ bent):
            pairs.append((moved, bent))
        else:
            pairs.clear()
    return here


def _direction(slopes: Point, pairs: deque[tuple[Point, Point]]) -> Point:
    """Downhill, by how the loss bent on the last steps."""
    direction, shares = -slopes, []
    for moved, bent in reversed(pairs):
        share = (moved @ direction) / (moved @ bent)
        direction = direction - share * bent
        shares.append(share)
    if pairs:
        moved, bent = pairs[-1]
        direction = direction * ((moved @ bent) / (bent @ bent))
    for (moved, bent), share in zip(pairs, reversed(shares), strict=True):
        direction = direction + (share - (bent @ direction) / (moved @ bent)) * moved
    return direction
