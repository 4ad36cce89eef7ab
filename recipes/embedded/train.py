"""Train the embedded checkpoint: `python -m recipes.embedded.train`, with options as in README.md.

Runs on a GPU where there is one, else on the CPU with one process per core. The clips come from
`dataset`, which may run at the same time. Training can be stopped at any time and resumes from the
last state in the run's folder; step n has the same data in every run.
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
from .batches import Dialogue, TokenBatch, audio_tokens, augment, mel_frames
from .dataset import LabelledBatch, read
from .downloads import Downloads
from .forward import AttributeClassifiers, encode_audio, text_loss, token_weights

log = logging.getLogger("train")
ENCODER_LR, CLASSIFIER_LR, TEXT_LR = 3e-4, 1e-3, 1.5e-3
WARM_UP_STEPS = 100
COOL_DOWN = 0.58  # share of all steps
CLASSIFIER_WEIGHT = 1.0
AVERAGE_STEPS = 100  # over which the published weights are averaged
FULL_BATCH = 12  # clips of a process; the loss of smaller batches is scaled down
POSITIONS = 1500  # of the audio tower


class Run:
    """State of a training run: model, classifiers, optimizer, averaged weights and step.

    Args:
        main: whether this process averages weights and writes the state.
    """

    def __init__(self, options: argparse.Namespace, device: str, main: bool = True) -> None:
        downloads = Downloads(options.downloads)
        self.folder, self.device, self.main = options.run, device, main
        self.steps, self.text_start = options.steps, options.encoder_steps
        self._replays, self._lr_factor = options.replays, options.lr_factor
        self._bfloat16 = resolve_dtype(None, torch.bfloat16, torch.device(device)) == torch.bfloat16
        self.stopping = False
        self.tokenizer = downloads.tokenizer()
        self.dialogue = Dialogue(self.tokenizer)
        self.model = checkpoint.build(self.tokenizer, downloads.whisper)
        if options.init is not None:
            initial = Qwen2AudioForConditionalGeneration.from_pretrained(options.init)
            self.model.load_state_dict(initial.float().state_dict())
        nn.Module.to(self.model, torch.device(device))
        self.classifiers = AttributeClassifiers(self.model.model.audio_tower.config.d_model).to(
            device
        )
        self._token_weights = token_weights(self.tokenizer, checkpoint.VOCABULARY).to(device)
        self._recent: deque[tuple[torch.Tensor, TokenBatch]] = deque(maxlen=80)
        self.step = 0
        encoder = [p for p in self.model.model.audio_tower.parameters() if p.requires_grad]
        in_encoder = {id(p) for p in encoder}
        text = [p for p in self.model.parameters() if p.requires_grad and id(p) not in in_encoder]
        groups = [(encoder, ENCODER_LR), (list(self.classifiers.parameters()), CLASSIFIER_LR)]
        self.optimizer = torch.optim.AdamW(
            [{"params": group, "base_lr": lr} for group, lr in [*groups, (text, TEXT_LR)]],
            betas=(0.9, 0.98),
            weight_decay=0.02,
        )
        self.average = {k: v.clone() for k, v in self._all_weights().items()}
        state = self.folder / "state.pt"
        if state.exists():
            stored = torch.load(state, map_location=device, weights_only=True)
            self.model.load_state_dict(stored["model"])
            self.classifiers.load_state_dict(stored["classifiers"])
            self.optimizer.load_state_dict(stored["optimizer"])
            self.average, self.step = stored["average"], stored["step"]

    def _all_weights(self) -> dict[str, torch.Tensor]:
        classifiers = {
            f"classifiers.{name}": value for name, value in self.classifiers.state_dict().items()
        }
        return self.model.state_dict() | classifiers

    def save(self) -> None:
        """Write the state and, from the second stage on, the averaged weights as a checkpoint."""
        state = {
            "model": self.model.state_dict(),
            "classifiers": self.classifiers.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "step": self.step,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / "state.draft"
        torch.save(state, partial)
        partial.rename(self.folder / "state.pt")
        if self.step >= self.text_start:
            averaged = Qwen2AudioForConditionalGeneration(self.model.config)
            names = self.model.state_dict()
            averaged.load_state_dict({name: self.average[name] for name in names})
            checkpoint.save(averaged, self.tokenizer, self.folder / "checkpoint")

    def save_before_cool_down(self) -> None:
        """Copy the state from before the cool-down, from which a longer run can resume."""
        self.save()
        shutil.copyfile(self.folder / "state.pt", self.folder / "before_cool_down.pt")

    def cool_down_start(self) -> int:
        """Step at which learning rates begin to fall."""
        return self.steps - int(COOL_DOWN * self.steps)

    def _set_learning_rates(self) -> None:
        # Warm-up, constant, linear cool-down to zero; the text model starts later.
        starts = (0, 0, self.text_start)
        for group, start in zip(self.optimizer.param_groups, starts, strict=True):
            down = (self.steps - self.step) / (self.steps - max(start, self.cool_down_start()))
            up = (self.step - start + 1) / WARM_UP_STEPS
            group["lr"] = self._lr_factor * group["base_lr"] * max(0.0, min(1.0, up, down))

    def _autocast(self) -> torch.autocast:
        """bfloat16 where the processor has it; elsewhere it would be ten times as slow."""
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=self._bfloat16)

    def train_step(self, rng: np.random.Generator, batch: LabelledBatch) -> tuple[float, float]:
        """Train on one batch.

        Returns:
            The losses of the text model (NaN before it is trained) and of the classifiers.
        """
        self._set_learning_rates()
        frames = mel_frames(batch.mel)
        mel = augment(rng, batch.mel).to(self.device)
        free = POSITIONS - 2 * audio_tokens(frames) - 1
        first = int(rng.integers(0, free)) if free > 0 and rng.random() < 0.4 else 0
        scale = min(1.0, len(mel) / FULL_BATCH)
        train_text = self.step >= self.text_start
        with self._autocast():
            audio_rows = encode_audio(self.model, mel, frames, 0 if train_text else first)
            classifier_loss = self.classifiers(audio_rows, batch.attributes)
            loss, text_loss_value = CLASSIFIER_WEIGHT * classifier_loss, math.nan
            if train_text:
                chat = bool(rng.random() < 0.2)
                tokens = self.dialogue.build(rng, batch.attributes, frames, chat, questions=1)
                tokens = tokens.to(self.device)
                text = text_loss(self.model, audio_rows, tokens, self._token_weights)
                loss, text_loss_value = loss + text, text.item()
        self._optimize(scale * loss)
        if train_text:
            self._replay(audio_rows.detach().half(), tokens)
        self.step += 1
        if self.main:
            weight = 1 / min(self.step, AVERAGE_STEPS)
            for name, value in self._all_weights().items():
                self.average[name].lerp_(value, weight)
        return text_loss_value, classifier_loss.item()

    def _optimize(self, loss: torch.Tensor) -> None:
        loss.backward()
        if distributed.is_initialized():
            self._average_gradients()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _average_gradients(self) -> None:
        """Average gradients over all processes. If one is stopping, all are."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        flat = [p.grad.flatten() for p in parameters if p.grad is not None]
        shared = torch.cat([*flat, torch.tensor([float(self.stopping)])])
        distributed.all_reduce(shared)
        self.stopping = bool(shared[-1] > 0)
        offset = 0
        for parameter in parameters:
            if parameter.grad is not None:
                size = parameter.grad.numel()
                parameter.grad.copy_(shared[offset : offset + size].view_as(parameter.grad))
                parameter.grad /= distributed.get_world_size()
                offset += size

    def _replay(self, audio_rows: torch.Tensor, tokens: TokenBatch) -> None:
        """Train the text model alone on recent batches: most of a step's time is the encoder's."""
        self._recent.append((audio_rows, tokens))
        for _ in range(self._replays):
            recent_rows, recent_tokens = random.choice(self._recent)
            with self._autocast():
                loss = text_loss(
                    self.model, recent_rows.float(), recent_tokens, self._token_weights
                )
            self._optimize(loss)


def train(rank: int, options: argparse.Namespace, rendezvous: str) -> None:
    """One process of the run: trains on every `options.processes`-th clip, from clip `rank`."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    device, count = "cuda" if torch.cuda.is_available() else "cpu", options.processes
    if count > 1:
        torch.set_num_threads(1)
        distributed.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=count)
    torch.manual_seed(options.seed + rank)
    random.seed(options.seed)
    run = Run(options, device, rank == 0)
    signal.signal(signal.SIGTERM, lambda *_: setattr(run, "stopping", True))
    start, clips, losses = time.monotonic(), 0, []
    for step_batch in read(options.dataset, run.step, options.files):
        if run.step >= options.steps or run.stopping:
            break
        if run.main and run.step == run.cool_down_start():
            run.save_before_cool_down()
        batch = LabelledBatch(step_batch.mel[rank::count], step_batch.attributes[rank::count])
        losses.append(run.train_step(np.random.default_rng((options.seed, run.step, rank)), batch))
        clips += len(step_batch.attributes)
        if run.step % 25 == 0 and run.main:
            text, classifiers = (sum(column) / len(losses) for column in zip(*losses, strict=True))
            speed = clips / (time.monotonic() - start)
            log.info(
                "step %d text %.3f classifiers %.3f, %.1f clips/s",
                run.step,
                text,
                classifiers,
                speed,
            )
            start, clips, losses = time.monotonic(), 0, []
        if run.step % options.save_every == 0 and run.main:
            run.save()
    if run.main:
        run.save()


def main() -> None:
    """Train until `--steps`, or until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--downloads", type=Path, required=True, help="folder that fetch filled")
    parser.add_argument("--dataset", type=Path, required=True, help="folder that dataset writes")
    parser.add_argument(
        "--run", type=Path, required=True, help="folder of the state and the checkpoint"
    )
    parser.add_argument(
        "--init", type=Path, help="checkpoint to start from, instead of Whisper's encoder"
    )
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument(
        "--lr-factor", type=float, default=1.0, help="multiplies all learning rates"
    )
    parser.add_argument(
        "--encoder-steps", type=int, default=14_000, help="steps before the text model"
    )
    parser.add_argument(
        "--replays", type=int, default=1, help="more steps of the text model per step"
    )
    parser.add_argument("--files", type=int, default=4000, help="number of files of the dataset")
    cores = 1 if torch.cuda.is_available() else os.cpu_count() or 1
    parser.add_argument("--processes", type=int, default=cores)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--save-every", type=int, default=200, help="steps")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rendezvous = str(Path(folder) / "rendezvous")
        if options.processes == 1:
            train(0, options, rendezvous)
        else:
            processes = multiprocessing.spawn(
                train, (options, rendezvous), options.processes, False
            )
            signal.signal(signal.SIGTERM, lambda *_: [p.terminate() for p in processes.processes])
            while not processes.join():
                pass


if __name__ == "__main__":
    main()
