"""Training data: `python -m recipes.embedded.dataset --downloads DIR --dataset DIR`.

Clips are generated ahead of training, into files of about 2 MB with log-mels of one length: one
file per training step. File n has the same content whenever it is generated. Generating a clip
takes a sixth of the time of training on it.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from transformers import WhisperFeatureExtractor

from .captions import Attributes
from .clips import draw
from .downloads import Downloads
from .render import Wave

HOP = 160
_WINDOW = 400
EXTRA_FRAMES = 2  # mel frames past the end that the encoder's convolutions depend on
_EXTRACTOR = WhisperFeatureExtractor(feature_size=80)
_FILTERS = torch.from_numpy(_EXTRACTOR.mel_filters.T.astype(np.float32))
_HANN = torch.hann_window(_WINDOW)
# Ranges of seconds, and their shares of the files: tempo needs some seconds, effects of games take
# less than one.
_SECONDS_RANGES = ((0.25, 2.0), (2.0, 4.0), (4.0, 8.0), (8.0, 20.0), (20.0, 30.0))
_SHARES = (0.16, 0.28, 0.33, 0.19, 0.04)
_MIN_CLIPS, _MAX_CLIPS = 6, 64  # of a file
_FRAME_MULTIPLE = 20  # of all lengths: libraries compile kernels for each length


def log_mel(wave: Wave) -> torch.Tensor:
    """WhisperFeatureExtractor's log-mel [80, frames + EXTRA_FRAMES] of a clip."""
    frames = -(-len(wave) // HOP)
    padded = np.pad(wave, (0, (frames + 4) * HOP - len(wave)))
    spectrum = torch.stft(torch.from_numpy(padded), _WINDOW, HOP, window=_HANN, return_complex=True)
    power = spectrum[:, : frames + EXTRA_FRAMES].abs().square()
    mel = (_FILTERS @ power).clamp(min=1e-10).log10()
    return (mel.maximum(mel.max() - 8.0) + 4.0) / 4.0


@dataclass(frozen=True)
class LabelledBatch:
    """Clips of one length: float16 log-mels [clips, 80, frames + EXTRA_FRAMES], and attributes."""

    mel: torch.Tensor
    attributes: tuple[Attributes, ...]


def _seconds(rng: np.random.Generator) -> float:
    shortest, longest = _SECONDS_RANGES[rng.choice(len(_SECONDS_RANGES), p=_SHARES)]
    return round(float(np.exp(rng.uniform(np.log(shortest), np.log(longest)))), 2)


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.pt"


def _write(downloads: Downloads, folder: Path, seed: int, budget: float, numbers: range) -> None:
    torch.set_num_threads(1)
    player, bank = downloads.player(), downloads.bank()
    for number in numbers:
        if _path(folder, number).exists():
            continue
        rng = np.random.default_rng((seed, number))
        seconds = _seconds(rng)
        count = min(_MAX_CLIPS, max(_MIN_CLIPS, round(budget / seconds)))
        clips = [draw(rng, player, bank, seconds) for _ in range(count)]
        mel = torch.stack([log_mel(wave) for wave, _ in clips]).half()
        partial = folder / f".{number}.draft"
        torch.save({"mel": mel, "attributes": [asdict(a) for _, a in clips]}, partial)
        partial.rename(_path(folder, number))


def read(folder: Path, start: int, size: int) -> Iterator[LabelledBatch]:
    """Yield the batches of steps `start`, `start + 1`, …, cycling through `size` files.

    Waits for files that have not been generated yet.
    """
    step = start
    while True:
        path = _path(folder, step % size)
        while not path.exists():
            time.sleep(1)
        stored = torch.load(path, weights_only=True)
        attributes = tuple(Attributes(**fields) for fields in stored["attributes"])
        excess = (stored["mel"].shape[-1] - EXTRA_FRAMES) % _FRAME_MULTIPLE
        yield LabelledBatch(stored["mel"][..., : stored["mel"].shape[-1] - excess], attributes)
        step += 1


def main() -> None:
    """Generate the files that are missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--downloads", type=Path, required=True, help="folder that fetch filled")
    parser.add_argument("--dataset", type=Path, required=True, help="folder to write")
    parser.add_argument("--files", type=int, default=4000)
    parser.add_argument("--seconds", type=float, default=120.0, help="of audio in a file")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--seed", type=int, default=20)
    options = parser.parse_args()
    options.dataset.mkdir(parents=True, exist_ok=True)
    downloads, budget = Downloads(options.downloads), options.seconds
    downloads.bank()  # decoded once, not in every process
    shares = [range(i, options.files, options.workers) for i in range(options.workers)]
    context = get_context("spawn")
    workers = [
        context.Process(
            target=_write, args=(downloads, options.dataset, options.seed, budget, share)
        )
        for share in shares
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main()
