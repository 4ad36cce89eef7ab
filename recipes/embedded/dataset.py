"""Draw clips ahead of training: `python -m recipes.embedded.dataset --parts DIR --store DIR`.

Playing and recording a clip takes a sixth of the time that learning from it does, and needs no
step to wait for it. So clips are drawn into files, some 2 MB each, of log-mels of one length: a
file is one step's worth. File n holds the same whenever it is drawn, whatever was drawn before.
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
from .downloads import Parts
from .render import Wave

HOP = 160
_WINDOW = 400
SPARE = 2  # mel frames past the end that the convolutions still see
_EXTRACTOR = WhisperFeatureExtractor(feature_size=80)
_FILTERS = torch.from_numpy(_EXTRACTOR.mel_filters.T.astype(np.float32))
_HANN = torch.hann_window(_WINDOW)
# Lengths in seconds, and the share of files that each range has. A tempo wants to be heard for some
# seconds; the effects of games are over in less than one.
_LENGTHS = ((0.25, 2.0), (2.0, 4.0), (4.0, 8.0), (8.0, 20.0), (20.0, 30.0))
_SHARES = (0.16, 0.28, 0.33, 0.19, 0.04)
_FEWEST, _MOST = 6, 64  # clips in a file
_GRAIN = 20  # mel frames: so few different lengths that their kernels are made only once


def log_mel(wave: Wave) -> torch.Tensor:
    """What WhisperFeatureExtractor gives for the clip, and `SPARE` frames of what follows it."""
    frames = -(-len(wave) // HOP)
    padded = np.pad(wave, (0, (frames + 4) * HOP - len(wave)))
    spectrum = torch.stft(torch.from_numpy(padded), _WINDOW, HOP, window=_HANN, return_complex=True)
    power = spectrum[:, : frames + SPARE].abs().square()
    mel = (_FILTERS @ power).clamp(min=1e-10).log10()
    return (mel.maximum(mel.max() - 8.0) + 4.0) / 4.0


@dataclass(frozen=True)
class Heard:
    """Clips of one length: float16 log-mels (clips, 80, frames and `SPARE`) and what is true."""

    mel: torch.Tensor
    attributes: tuple[Attributes, ...]


def _seconds(rng: np.random.Generator) -> float:
    shortest, longest = _LENGTHS[rng.choice(len(_LENGTHS), p=_SHARES)]
    return round(float(np.exp(rng.uniform(np.log(shortest), np.log(longest)))), 2)


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.pt"


def _write(parts: Parts, folder: Path, seed: int, budget: float, numbers: range) -> None:
    torch.set_num_threads(1)
    player, bank = parts.player(), parts.bank()
    for number in numbers:
        if _path(folder, number).exists():
            continue
        rng = np.random.default_rng((seed, number))
        seconds = _seconds(rng)
        count = min(_MOST, max(_FEWEST, round(budget / seconds)))
        clips = [draw(rng, player, bank, seconds) for _ in range(count)]
        mel = torch.stack([log_mel(wave) for wave, _ in clips]).half()
        draft = folder / f".{number}.draft"
        torch.save({"mel": mel, "attributes": [asdict(a) for _, a in clips]}, draft)
        draft.rename(_path(folder, number))


def read(folder: Path, start: int, size: int) -> Iterator[Heard]:
    """The files for steps `start`, `start + 1`, …: over and over, waiting for what is not drawn."""
    step = start
    while True:
        path = _path(folder, step % size)
        while not path.exists():
            time.sleep(1)
        kept = torch.load(path, weights_only=True)
        attributes = tuple(Attributes(**fields) for fields in kept["attributes"])
        spare = (kept["mel"].shape[-1] - SPARE) % _GRAIN
        yield Heard(kept["mel"][..., : kept["mel"].shape[-1] - spare], attributes)
        step += 1


def main() -> None:
    """Draw what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=Path, required=True, help="the folder that fetch filled")
    parser.add_argument("--store", type=Path, required=True, help="the folder to fill")
    parser.add_argument("--files", type=int, default=4000)
    parser.add_argument("--seconds", type=float, default=120.0, help="of audio in a file")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--seed", type=int, default=20)
    options = parser.parse_args()
    options.store.mkdir(parents=True, exist_ok=True)
    parts, budget = Parts(options.parts), options.seconds
    parts.bank()  # once, and not in every process
    shares = [range(i, options.files, options.workers) for i in range(options.workers)]
    context = get_context("spawn")
    workers = [
        context.Process(target=_write, args=(parts, options.store, options.seed, budget, share))
        for share in shares
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main()
