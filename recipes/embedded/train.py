"""Train the embedded checkpoint: `python -m recipes.embedded.train --parts DIR --run DIR`.

Runs on one CPU thread beside one process that draws data, or on a GPU where there is one. It can be
stopped at any time and goes on from the last state in the run's folder; step n sees the same data
whenever it comes.
"""

import argparse
import logging
import math
import random
import signal
import time
from collections import deque
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import Qwen2AudioForConditionalGeneration

from . import checkpoint
from .batches import Batch, Stream
from .forward import Ears, listen, telling, text_loss
from .parts import Parts

log = logging.getLogger("train")
TEXT_RATE, ENCODER_RATE = 1.5e-3, 2.5e-4
WARM_UP, COOL_DOWN = 100, 0.35  # steps; share of all steps
EARS_WEIGHT = 0.5
REPLAYS = 2  # steps of the text model on what was heard lately, after each that listens
AVERAGE_OVER = 60  # steps that the published weights are an average of


def rate(step: int, steps: int) -> float:
    """Warm up, hold, then down to nothing over the last part of the run."""
    left = (steps - step) / max(1.0, COOL_DOWN * steps)
    return min(1.0, (step + 1) / WARM_UP, max(0.0, left))


class Run:
    """Model, optimiser, average and step: all that a run is, and how it is kept."""

    def __init__(self, parts: Parts, folder: Path, device: str) -> None:
        self.folder, self.device = folder, device
        self.tokenizer = parts.tokenizer()
        self.model = checkpoint.build(self.tokenizer, parts.whisper)
        nn.Module.to(self.model, torch.device(device))
        self.average = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.ears = Ears(self.model.model.audio_tower.config.d_model).to(device)
        self._weights = telling(self.tokenizer, checkpoint.VOCABULARY).to(device)
        self._lately: deque[tuple[torch.Tensor, Batch]] = deque(maxlen=200)
        self.step = 0
        encoder = [p for p in self.model.model.audio_tower.parameters() if p.requires_grad]
        known = {id(p) for p in encoder}
        every = [*self.model.parameters(), *self.ears.parameters()]
        rest = [p for p in every if p.requires_grad and id(p) not in known]
        self.optimiser = torch.optim.AdamW(
            [{"params": encoder, "base": ENCODER_RATE}, {"params": rest, "base": TEXT_RATE}],
            betas=(0.9, 0.98),
            weight_decay=0.01,
        )
        state = folder / "state.pt"
        if state.exists():
            kept = torch.load(state, map_location=device, weights_only=True)
            self.model.load_state_dict(kept["model"])
            self.ears.load_state_dict(kept["ears"])
            self.optimiser.load_state_dict(kept["optimiser"])
            self.average, self.step = kept["average"], kept["step"]

    def keep(self) -> None:
        """Write the state, and the averaged weights as a checkpoint that can be used."""
        state = {
            "model": self.model.state_dict(),
            "ears": self.ears.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average,
            "step": self.step,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / "state.draft"
        torch.save(state, draft)
        draft.rename(self.folder / "state.pt")
        averaged = Qwen2AudioForConditionalGeneration(self.model.config)
        averaged.load_state_dict(self.average)
        checkpoint.save(averaged, self.tokenizer, self.folder / "checkpoint")

    def learn(self, batch: Batch, steps: int, speak: bool) -> tuple[float, float]:
        """One step; the losses of the text (not a number unless it is to `speak`) and the ears."""
        share = rate(self.step, steps)
        for group in self.optimiser.param_groups:
            group["lr"] = group["base"] * share
        with torch.autocast(self.device, dtype=torch.bfloat16):
            heard = listen(self.model, batch.mel.float(), batch.frames)
            ears = self.ears(heard, batch.attributes)
            text = text_loss(self.model, heard, batch, self._weights) if speak else None
        self._descend(EARS_WEIGHT * ears if text is None else text + EARS_WEIGHT * ears)
        if speak:
            self._remember(heard.detach().half(), batch)
        self.step += 1
        follow = 1 / AVERAGE_OVER if self.step > AVERAGE_OVER else 0.1
        for name, value in self.model.state_dict().items():
            self.average[name].lerp_(value, follow)
        return (math.nan if text is None else text.item()), ears.item()

    def _descend(self, loss: torch.Tensor) -> None:
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)

    def _remember(self, heard: torch.Tensor, batch: Batch) -> None:
        """Let the text model alone go over what was heard lately: most of a step is listening."""
        self._lately.append((heard, batch))
        for _ in range(REPLAYS):
            earlier, about = random.choice(self._lately)
            with torch.autocast(self.device, dtype=torch.bfloat16):
                loss = text_loss(self.model, earlier.float(), about, self._weights)
            self._descend(loss)


def main() -> None:
    """Train until `--steps`, or until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=Path, required=True, help="the folder that fetch filled")
    parser.add_argument("--run", type=Path, required=True, help="where state and weights are kept")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--listen-first", type=int, default=1_500, help="steps without text")
    parser.add_argument("--seconds", type=float, default=60.0, help="of audio in each step")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw data")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--keep-every", type=int, default=200, help="steps")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.manual_seed(options.seed)
    random.seed(options.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        torch.set_num_threads(1)
    parts = Parts(options.parts)
    run = Run(parts, options.run, device)
    stream = Stream(parts, options.seed, run.step, options.seconds, options.listen_first)
    loader = DataLoader(stream, batch_size=None, num_workers=options.workers, prefetch_factor=8)
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop.append(number))
    since, clips, recent = time.monotonic(), 0, []
    for batch in loader:
        if run.step >= options.steps or stop:
            break
        recent.append(run.learn(batch.to(device), options.steps, run.step >= options.listen_first))
        clips += len(batch.attributes)
        if run.step % 25 == 0:
            text, ears = (sum(column) / len(recent) for column in zip(*recent, strict=True))
            speed = clips / (time.monotonic() - since)
            log.info("step %d text %.3f ears %.3f, %.1f clips/s", run.step, text, ears, speed)
            since, clips, recent = time.monotonic(), 0, []
        if run.step % options.keep_every == 0:
            run.keep()
    run.keep()


if __name__ == "__main__":
    main()
