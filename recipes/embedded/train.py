"""Train the embedded checkpoint: `python -m recipes.embedded.train --store DIR --run DIR`.

Runs on a GPU where there is one, else on the CPU in a process for each core, on clips that `store`
draws (at the same time, if need be). It can be stopped at any time and goes on from the last state
in the run's folder; step n sees the same data whenever it comes.
"""

import argparse
import logging
import math
import os
import random
import shutil
import signal
import tempfile
import time
from collections import deque
from pathlib import Path

import numpy as np
import torch
from torch import distributed, multiprocessing, nn
from transformers import Qwen2AudioForConditionalGeneration

from qwen_audio.weights.device import resolve_dtype

from . import checkpoint
from .batches import Dialogue, Talk, audio_tokens, frames_of, varied
from .dataset import Heard, read
from .downloads import Parts
from .forward import Ears, listen, telling, text_loss

log = logging.getLogger("train")
ENCODER_RATE, EARS_RATE, TEXT_RATE = 3e-4, 1e-3, 1.5e-3
WARM_UP, COOL_DOWN = 100, 0.58  # steps; share of all steps
EARS_WEIGHT = 1.0
AVERAGE_OVER = 100  # steps that the published weights are an average of
FULL = 12  # clips for a process; a step of fewer, longer ones counts for less
POSITIONS = 1500  # of the audio tower


class Run:
    """Model, optimiser, average and step: all that a run is, and how it is kept."""

    def __init__(self, options: argparse.Namespace, device: str, leads: bool = True) -> None:
        parts = Parts(options.parts)
        self.folder, self.device, self.leads = options.run, device, leads
        self.steps, self.speak_at = options.steps, options.listen_first
        self._replays, self._rate = options.replays, options.rate
        self._half = resolve_dtype(None, torch.bfloat16, torch.device(device)) == torch.bfloat16
        self.stopping = False
        self.tokenizer = parts.tokenizer()
        self.dialogue = Dialogue(self.tokenizer)
        self.model = checkpoint.build(self.tokenizer, parts.whisper)
        if options.begin is not None:
            earlier = Qwen2AudioForConditionalGeneration.from_pretrained(options.begin)
            self.model.load_state_dict(earlier.float().state_dict())
        nn.Module.to(self.model, torch.device(device))
        self.ears = Ears(self.model.model.audio_tower.config.d_model).to(device)
        self._weights = telling(self.tokenizer, checkpoint.VOCABULARY).to(device)
        self._lately: deque[tuple[torch.Tensor, Talk]] = deque(maxlen=80)
        self.step = 0
        encoder = [p for p in self.model.model.audio_tower.parameters() if p.requires_grad]
        known = {id(p) for p in encoder}
        text = [p for p in self.model.parameters() if p.requires_grad and id(p) not in known]
        groups = [(encoder, ENCODER_RATE), (list(self.ears.parameters()), EARS_RATE)]
        self.optimiser = torch.optim.AdamW(
            [{"params": group, "base": base} for group, base in [*groups, (text, TEXT_RATE)]],
            betas=(0.9, 0.98),
            weight_decay=0.02,
        )
        self.average = {k: v.clone() for k, v in self._everything().items()}
        state = self.folder / "state.pt"
        if state.exists():
            kept = torch.load(state, map_location=device, weights_only=True)
            self.model.load_state_dict(kept["model"])
            self.ears.load_state_dict(kept["ears"])
            self.optimiser.load_state_dict(kept["optimiser"])
            self.average, self.step = kept["average"], kept["step"]

    def _everything(self) -> dict[str, torch.Tensor]:
        ears = {f"ears.{name}": value for name, value in self.ears.state_dict().items()}
        return self.model.state_dict() | ears

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
        if self.step >= self.speak_at:
            averaged = Qwen2AudioForConditionalGeneration(self.model.config)
            names = self.model.state_dict()
            averaged.load_state_dict({name: self.average[name] for name in names})
            checkpoint.save(averaged, self.tokenizer, self.folder / "checkpoint")

    def set_aside(self) -> None:
        """Keep the last state from before the rate falls: a longer run goes on from there."""
        self.keep()
        shutil.copyfile(self.folder / "state.pt", self.folder / "before_cool_down.pt")

    def cools_at(self) -> int:
        """The step at which the rate of learning begins to fall."""
        return self.steps - int(COOL_DOWN * self.steps)

    def _set_rates(self) -> None:
        # The text model starts later; each goes up, stays, and comes down to nothing at the end.
        begins = (0, 0, self.speak_at)
        for group, begin in zip(self.optimiser.param_groups, begins, strict=True):
            down = (self.steps - self.step) / (self.steps - max(begin, self.cools_at()))
            up = (self.step - begin + 1) / WARM_UP
            group["lr"] = self._rate * group["base"] * max(0.0, min(1.0, up, down))

    def _cast(self) -> torch.autocast:
        """bfloat16 where the processor multiplies it; elsewhere that would be ten times as slow."""
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=self._half)

    def learn(self, rng: np.random.Generator, batch: Heard) -> tuple[float, float]:
        """One step; the losses of the text (not a number before it speaks) and of the ears."""
        self._set_rates()
        frames = frames_of(batch.mel)
        mel = varied(rng, batch.mel).to(self.device)
        room = POSITIONS - 2 * audio_tokens(frames) - 1
        first = int(rng.integers(0, room)) if room > 0 and rng.random() < 0.4 else 0
        scale = min(1.0, len(mel) / FULL)
        speaks = self.step >= self.speak_at
        with self._cast():
            heard = listen(self.model, mel, frames, 0 if speaks else first)
            ears = self.ears(heard, batch.attributes)
            loss, told = EARS_WEIGHT * ears, math.nan
            if speaks:
                chat = bool(rng.random() < 0.2)
                talk = self.dialogue.talk(rng, batch.attributes, frames, chat, questions=1)
                talk = talk.to(self.device)
                text = text_loss(self.model, heard, talk, self._weights)
                loss, told = loss + text, text.item()
        self._descend(scale * loss)
        if speaks:
            self._remember(heard.detach().half(), talk)
        self.step += 1
        if self.leads:
            follow = 1 / min(self.step, AVERAGE_OVER)
            for name, value in self._everything().items():
                self.average[name].lerp_(value, follow)
        return told, ears.item()

    def _descend(self, loss: torch.Tensor) -> None:
        loss.backward()
        if distributed.is_initialized():
            self._share()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)

    def _share(self) -> None:
        """Average the gradients over all processes; they stop together when one is to."""
        every = [p for group in self.optimiser.param_groups for p in group["params"]]
        flat = [p.grad.flatten() for p in every if p.grad is not None]
        shared = torch.cat([*flat, torch.tensor([float(self.stopping)])])
        distributed.all_reduce(shared)
        self.stopping = bool(shared[-1] > 0)
        at = 0
        for parameter in every:
            if parameter.grad is not None:
                size = parameter.grad.numel()
                parameter.grad.copy_(shared[at : at + size].view_as(parameter.grad))
                parameter.grad /= distributed.get_world_size()
                at += size

    def _remember(self, heard: torch.Tensor, talk: Talk) -> None:
        """Let the text model alone go over what was heard lately: most of a step is listening."""
        self._lately.append((heard, talk))
        for _ in range(self._replays):
            earlier, about = random.choice(self._lately)
            with self._cast():
                loss = text_loss(self.model, earlier.float(), about, self._weights)
            self._descend(loss)


def train(rank: int, options: argparse.Namespace, meeting: str) -> None:
    """One process's part in the run: of each step's clips, every so-manieth is its own."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    device, count = "cuda" if torch.cuda.is_available() else "cpu", options.processes
    if count > 1:
        torch.set_num_threads(1)
        distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=count)
    torch.manual_seed(options.seed + rank)
    random.seed(options.seed)
    run = Run(options, device, rank == 0)
    signal.signal(signal.SIGTERM, lambda *_: setattr(run, "stopping", True))
    since, clips, recent = time.monotonic(), 0, []
    for whole in read(options.store, run.step, options.files):
        if run.step >= options.steps or run.stopping:
            break
        if run.leads and run.step == run.cools_at():
            run.set_aside()
        batch = Heard(whole.mel[rank::count], whole.attributes[rank::count])
        recent.append(run.learn(np.random.default_rng((options.seed, run.step, rank)), batch))
        clips += len(whole.attributes)
        if run.step % 25 == 0 and run.leads:
            text, ears = (sum(column) / len(recent) for column in zip(*recent, strict=True))
            speed = clips / (time.monotonic() - since)
            log.info("step %d text %.3f ears %.3f, %.1f clips/s", run.step, text, ears, speed)
            since, clips, recent = time.monotonic(), 0, []
        if run.step % options.keep_every == 0 and run.leads:
            run.keep()
    if run.leads:
        run.keep()


def main() -> None:
    """Train until `--steps`, or until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=Path, required=True, help="the folder that fetch filled")
    parser.add_argument("--store", type=Path, required=True, help="the folder that store fills")
    parser.add_argument("--run", type=Path, required=True, help="where state and weights are kept")
    parser.add_argument("--begin", type=Path, help="a checkpoint to go on from, not Whisper's ear")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--rate", type=float, default=1.0, help="times the rates of learning")
    parser.add_argument("--listen-first", type=int, default=14_000, help="steps without text")
    parser.add_argument("--replays", type=int, default=1, help="steps of the text model alone")
    parser.add_argument("--files", type=int, default=4000, help="files that the store will hold")
    cores = 1 if torch.cuda.is_available() else os.cpu_count() or 1
    parser.add_argument("--processes", type=int, default=cores)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--keep-every", type=int, default=200, help="steps")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        meeting = str(Path(folder) / "meeting")
        if options.processes == 1:
            train(0, options, meeting)
        else:
            started = multiprocessing.spawn(train, (options, meeting), options.processes, False)
            signal.signal(signal.SIGTERM, lambda *_: [p.terminate() for p in started.processes])
            while not started.join():
                pass


if __name__ == "__main__":
    main()
