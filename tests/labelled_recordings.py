"""Synthetic recordings with known labels, for tests of probes."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

RATE = 16_000


def write_tones(folder: Path, count: int = 24) -> list[dict[str, Any]]:
    """Write half-second tones; returns their labels: pitch (three classes), level (dB), bright.

    Bright tones are square waves, the others sines.
    """
    random = np.random.default_rng(0)
    time = np.arange(RATE // 2) / RATE
    rows = []
    for number in range(count):
        pitch = ("low", "middle", "high")[number % 3]
        hertz = {"low": 150, "middle": 500, "high": 1700}[pitch] * 2 ** random.uniform(-0.2, 0.2)
        wave = np.sin(2 * np.pi * hertz * time)
        bright = number % 2
        level = round(float(random.uniform(-20, 0)), 2)
        wave = (np.sign(wave) if bright else wave) * 0.5 * 10 ** (level / 20)
        wave += 0.001 * random.standard_normal(time.size)
        soundfile.write(folder / f"{number:02}.wav", wave, RATE)
        rows.append(
            {"source": f"{number:02}.wav", "pitch": pitch, "level": level, "bright": bright}
        )
    return rows


def write_manifest(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as a CSV file; None becomes an empty cell."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV file, as text."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
