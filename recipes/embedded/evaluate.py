"""Tables of how true the captions are: `python -m recipes.embedded.evaluate --parts DIR`.

Everything is read off generated captions: each is parsed back to attributes and held against what
is known of the clip. A caption outside the grammar counts as wrong in every column.
"""

import argparse
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, Qwen2AudioForConditionalGeneration

from . import sounds
from .accuracy import EFFECT, FAMILY, MUSIC, OTHER, RECORDED, Question, Tally
from .batches import Dialogue
from .captions import Attributes, answer, cautious, parse
from .clips import draw
from .dataset import log_mel
from .downloads import Parts
from .evaluation_sounds import qt_resource
from .forward import greedy
from .render import RATE, Wave
from .tokenizer import END, token_id

Clip = tuple[Wave, Attributes]
EMBEDDED = Path(__file__).parents[2] / "src/qwen_audio/models/embedded"


class Describer:
    """A checkpoint, and its captions for clips."""

    def __init__(self, folder: Path) -> None:
        self.model = Qwen2AudioForConditionalGeneration.from_pretrained(folder).float().eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self._dialogue = Dialogue(self.tokenizer)
        self._end = token_id(self.tokenizer, END)

    def describe(self, waves: list[Wave], question: str = "Describe the music:") -> list[str]:
        """Captions for clips of one length."""
        mel = torch.stack([log_mel(wave) for wave in waves])
        frames = -(-len(waves[0]) // 160)
        asked = self._dialogue.branch(question, "", chat=False)[0]
        prompt = [*self._dialogue.prefix(frames, chat=False), *asked]
        said = greedy(self.model, mel, frames, prompt, (self._end,))
        return [str(self.tokenizer.decode(tokens)).strip() for tokens in said]

    def judge(
        self, clips: Iterable[Clip], questions: tuple[Question, ...], fast: bool = False
    ) -> tuple[list[Tally], int]:
        """Right and wrong for each question, and how many captions were outside the grammar.

        `fast` asks of each clip how fast it is, besides.
        """
        tallies, tempo, outside = [Tally(name) for name, _ in questions], Tally(ASKED), 0
        by_length: dict[int, list[Clip]] = {}
        for clip in clips:
            by_length.setdefault(len(clip[0]), []).append(clip)
        for group in by_length.values():
            waves = [wave for wave, _ in group]
            for said, (_, truth) in zip(self.describe(waves), group, strict=True):
                heard, known = parse(said), cautious(truth)
                outside += heard is None
                for tally, (_, of) in zip(tallies, questions, strict=True):
                    if (label := of(known)) is not None:
                        tally.add(label, heard is not None and of(heard) == label)
            replies = self.describe(waves, "How fast is it?") if fast else []
            for said, (_, truth) in zip(replies, group, strict=bool(replies)):
                if truth.tempo is not None:
                    tempo.add(truth.tempo, said == answer(truth, "tempo"))
        return [*tallies, tempo], outside


ASKED = "tempo, when asked for it"


def table(title: str, judged: tuple[list[Tally], int], clips: int, classes: bool) -> None:
    """Print what was right, and of how many."""
    tallies, outside = judged
    print(f"\n### {title}\n\n{clips} clips, {outside} captions outside the grammar\n")
    print("| | share | 95 % | right |\n| --- | --- | --- | --- |")
    for tally in tallies:
        for line in tally.lines(classes):
            print(line, flush=True)


def lengths(describer: Describer, parts: Parts, font: str, count: int) -> None:
    """Print the same measures for clips of 2.5 to 30 s: do they depend on the length?"""
    columns = []
    for seconds in LENGTHS:
        clips = rendered(parts, font, False, count, 105, (seconds, seconds))
        columns.append(describer.judge(clips, MUSIC, fast=True)[0])
    print(f"\n### The same, by length ({font}, {count} clips each)\n")
    print("| | " + " | ".join(f"{seconds:g} s" for seconds in LENGTHS) + " |")
    print("| --- " * (len(LENGTHS) + 1) + "|")
    for rows in zip(*columns, strict=True):
        if any(tally.count for tally in rows):
            shares = " | ".join(tally.share() for tally in rows)
            print(f"| {rows[0].name} | {shares} |", flush=True)


LENGTHS = (2.5, 5.0, 10.0, 20.0, 30.0)


def rendered(
    parts: Parts,
    sounds_of: str,
    held_out: bool,
    count: int,
    seed: int,
    between: tuple[float, float] = (3.0, 20.0),
) -> list[Clip]:
    """Music of 3 to 20 s, in groups of equal length."""
    rng = np.random.default_rng(seed)
    player, bank = parts.test_player(sounds_of), parts.bank()
    clips: list[Clip] = []
    while len(clips) < count:
        seconds = round(float(np.exp(rng.uniform(*np.log(between)))), 1)
        clips += [draw(rng, player, bank, seconds, "music", False, held_out) for _ in range(8)]
    return clips[:count]


def spoken(parts: Parts, count: int, seed: int) -> list[Clip]:
    """English prompts by a voice that the recipe does not train on."""
    rng = np.random.default_rng(seed)
    files = sorted((parts.folder / sounds.SPEECH_TEST_PACKAGE).rglob("*.wav"))
    waves = [sounds.load(files[i]) for i in rng.choice(len(files), 4 * count)]
    waves = [wave for wave in waves if 1.0 < len(wave) / RATE < 20 and np.abs(wave).max() > 0.05]
    return [(wave, Attributes("speech", speech=True)) for wave in waves[:count]]


def effects(parts: Parts) -> list[Clip]:
    """The effects of a game that training never heard; its jingles and words are left out."""
    musical = ("tada", "welldone", "excellent", "invincible", "upgrade", "empty", "savebell")
    folder = parts.folder / "supertux-data/usr/share/games/supertux2/sounds"
    clips = []
    for path in sorted(folder.iterdir()):
        if path.suffix in (".wav", ".ogg") and not path.name.startswith(musical):
            wave = sounds.load(path)[: RATE * 20]
            if len(wave) > 0.25 * RATE and np.abs(wave).max() > 0.01:
                clips.append((wave, Attributes("effect")))
    return clips


# Phrases on real instruments, by the names of their files.
_RECORDED = {
    "accordion": "accordion",
    "banjo": "banjo",
    "cello": "cello",
    "clarinet": "clarinet",
    "electric_guitar": "clean electric guitar",
    "flute_traversiere": "flute",
    "guitar": "acoustic guitar",
    "harmonica": "harmonica",
    "harp": "harp",
    "horn": "French horn",
    "organ": "organ",
    "piano": "piano",
    "saxophone": "saxophone",
    "trombone": "trombone",
    "trumpet": "trumpet",
    "tuba": "tuba",
    "violin": "violin",
}
_DRUMS = ("bongo", "castanets", "cymbal", "drum_kit", "maracas", "snare_drum", "tambourine")


def recorded(parts: Parts) -> list[Clip]:
    """Real instruments, played by people: GCompris' activity on instruments."""
    path = parts.folder / "gcompris-qt-data/usr/share/gcompris-qt/rcc/instruments.rcc"
    files = qt_resource(path)
    clips = [
        (sounds.load(io.BytesIO(files[f"{name}.ogg"])), Attributes("music", lead=lead))
        for name, lead in _RECORDED.items()
    ]
    drums = Attributes("music", drums=True)
    return clips + [(sounds.load(io.BytesIO(files[f"{name}.ogg"])), drums) for name in _DRUMS]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=Path, required=True, help="the folder that fetch filled")
    parser.add_argument("--checkpoint", type=Path, default=EMBEDDED)
    parser.add_argument("--clips", type=int, default=400, help="of rendered music in a table")
    parser.add_argument("--freepats", type=int, default=0, help="clips played by timidity, slowly")
    parser.add_argument("--classes", action="store_true", help="a line for each class too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    parts, describer = Parts(options.parts), Describer(options.checkpoint)
    count, classes, font = options.clips, options.classes, "TimGM6mb"

    def judge(title: str, clips: list[Clip], of: tuple[Question, ...], fast: bool = False) -> None:
        table(title, describer.judge(clips, of, fast), len(clips), classes)

    music = rendered(parts, font, False, count, seed=101)
    judge(f"A SoundFont never trained on ({font})", music, MUSIC, fast=True)
    lengths(describer, parts, font, count // 4)
    held = rendered(parts, font, True, count // 2, seed=102)
    judge("Programs never trained on, on that SoundFont", held, FAMILY)
    # Weights were chosen by looking at the table above, not at this one.
    others = rendered(parts, font, True, count // 2, seed=902)
    judge("The same, on other clips", others, FAMILY)
    if options.freepats:
        patches = rendered(parts, "FreePats", False, options.freepats, seed=104)
        judge("Patches never trained on (FreePats)", patches, MUSIC)
    judge("Real instruments (GCompris)", recorded(parts), RECORDED)
    judge("English speech (Asterisk, Allison Smith)", spoken(parts, 200, 103), OTHER)
    judge("Effects never trained on (SuperTux)", effects(parts), EFFECT)


if __name__ == "__main__":
    main()
