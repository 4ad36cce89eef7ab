"""Tables of how true the captions are: `python -m recipes.embedded.evaluate --parts DIR`.

Everything is read off generated captions: each is parsed back to attributes and held against what
is known of the clip. A caption outside the grammar counts as wrong in every column.
"""

import argparse
import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, Qwen2AudioForConditionalGeneration

from . import sounds
from .batches import Dialogue, log_mel
from .captions import Attributes, answer, cautious, parse
from .clips import draw
from .forward import greedy
from .instruments import family_of
from .parts import Parts
from .render import Wave
from .testing import qt_resource
from .text import END, token_id

Clip = tuple[Wave, Attributes]
EMBEDDED = Path(__file__).parents[2] / "src/qwen_audio/embedded"


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a share."""
    if count == 0:
        return 0.0, 1.0
    z, share = 1.96, right / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + (z / count / 2) ** 2)
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass
class Tally:
    """Right and all, for each class of one question."""

    name: str
    right: dict[str, int]
    count: dict[str, int]

    def add(self, label: object, right: bool) -> None:
        """Count one clip."""
        key = str(label)
        self.right[key] = self.right.get(key, 0) + right
        self.count[key] = self.count.get(key, 0) + 1

    def lines(self, classes: bool) -> Iterator[str]:
        """The share over everything, then one line a class."""
        right, count = sum(self.right.values()), sum(self.count.values())
        if not count:
            return
        yield _line(self.name, right, count)
        if classes and len(self.count) > 1:
            for key in sorted(self.count):
                yield _line(f"— {key}", self.right[key], self.count[key])


def _line(name: str, right: int, count: int) -> str:
    low, high = wilson(right, count)
    return f"| {name} | {right / count:.2f} | {low:.2f}–{high:.2f} | {right} / {count} |"


Question = tuple[str, Callable[[Attributes], object]]


def _family(a: Attributes) -> object:
    return family_of(a.lead) if a.lead else None


def _alone(a: Attributes) -> object:
    if a.kind != "music" or a.texture is None:
        return None
    return "accompanied" if a.texture == "accompanied" else "solo"


def _drums_alone(a: Attributes) -> object:
    return a.kind == "music" and a.lead is None


MUSIC: tuple[Question, ...] = (
    ("kind", lambda a: a.kind),
    ("speech", lambda a: a.speech),
    ("family", _family),
    ("lead", lambda a: a.lead),
    ("drums", lambda a: a.drums),
    ("solo or accompanied", _alone),
    ("register", lambda a: a.register),
    ("loudness", lambda a: a.loudness),
)
FAMILY: tuple[Question, ...] = (MUSIC[0], MUSIC[2])
RECORDED: tuple[Question, ...] = (*FAMILY, MUSIC[3], ("drums alone", _drums_alone))
OTHER: tuple[Question, ...] = (MUSIC[0], MUSIC[1], MUSIC[7])


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


def table(
    describer: Describer,
    title: str,
    clips: list[Clip],
    questions: tuple[Question, ...],
    classes: bool,
    with_tempo: bool = False,
) -> None:
    """Describe the clips and print what was right."""
    tallies = {name: Tally(name, {}, {}) for name, _ in questions}
    by_length: dict[int, list[Clip]] = {}
    for clip in clips:
        by_length.setdefault(len(clip[0]), []).append(clip)
    tempo = Tally("tempo, when asked for it", {}, {})
    outside = 0
    for group in by_length.values():
        waves = [wave for wave, _ in group]
        for said, (_, truth) in zip(describer.describe(waves), group, strict=True):
            heard, known = parse(said), cautious(truth)
            outside += heard is None
            for name, of in questions:
                if (label := of(known)) is not None:
                    tallies[name].add(label, heard is not None and of(heard) == label)
        if with_tempo:
            answers = describer.describe(waves, "How fast is it?")
            for said, (_, truth) in zip(answers, group, strict=True):
                tempo.add(truth.tempo, said == answer(truth, "tempo"))
    print(f"\n### {title}\n\n{len(clips)} clips, {outside} captions outside the grammar\n")
    print("| | share | 95 % | right |\n| --- | --- | --- | --- |")
    for tally in [*tallies.values(), tempo]:
        for line in tally.lines(classes):
            print(line)


def rendered(parts: Parts, sounds_of: str, held_out: bool, count: int, seed: int) -> list[Clip]:
    """Music of 3 to 20 s, in groups of equal length."""
    rng = np.random.default_rng(seed)
    player, bank = parts.test_player(sounds_of), parts.bank()
    clips: list[Clip] = []
    while len(clips) < count:
        seconds = round(float(np.exp(rng.uniform(np.log(3), np.log(20)))), 1)
        clips += [draw(rng, player, bank, seconds, "music", False, held_out) for _ in range(8)]
    return clips[:count]


def spoken(parts: Parts, count: int, seed: int) -> list[Clip]:
    """English prompts by a voice that the recipe does not train on."""
    rng = np.random.default_rng(seed)
    files = sorted((parts.folder / sounds.SPEECH_TEST_PACKAGE).rglob("*.wav"))
    waves = [sounds.load(files[i]) for i in rng.choice(len(files), 4 * count)]
    waves = [wave for wave in waves if 1.0 < len(wave) / 16000 < 20 and np.abs(wave).max() > 0.05]
    return [(wave, Attributes("speech", speech=True)) for wave in waves[:count]]


def effects(parts: Parts) -> list[Clip]:
    """The effects of a game that training never heard; its jingles and words are left out."""
    musical = ("tada", "welldone", "excellent", "invincible", "upgrade", "empty", "savebell")
    folder = parts.folder / "supertux-data/usr/share/games/supertux2/sounds"
    clips = []
    for path in sorted(folder.iterdir()):
        if path.suffix in (".wav", ".ogg") and not path.name.startswith(musical):
            wave = sounds.load(path)[: 16000 * 20]
            if len(wave) > 0.25 * 16000 and np.abs(wave).max() > 0.01:
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
    count, classes = options.clips, options.classes
    font = "TimGM6mb"
    music = rendered(parts, font, False, count, seed=101)
    table(
        describer, f"A SoundFont never trained on ({font})", music, MUSIC, classes, with_tempo=True
    )
    held = rendered(parts, font, True, count // 2, seed=102)
    table(describer, "Programs never trained on, on that SoundFont", held, FAMILY, classes)
    if options.freepats:
        patches = rendered(parts, "FreePats", False, options.freepats, seed=104)
        table(describer, "Patches never trained on (FreePats)", patches, MUSIC, False)
    table(describer, "Real instruments (GCompris)", recorded(parts), RECORDED, classes)
    table(
        describer,
        "English speech (Asterisk, Allison Smith)",
        spoken(parts, 200, 103),
        OTHER,
        classes,
    )
    table(describer, "Effects never trained on (SuperTux)", effects(parts), OTHER[:2], classes)


if __name__ == "__main__":
    main()
