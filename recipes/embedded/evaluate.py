"""Accuracy of generated captions: `python -m recipes.embedded.evaluate --downloads DIR`.

Captions are parsed to attributes, which are compared with those of the clip. A caption outside the
grammar counts as wrong for every attribute.
"""

import argparse
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, Qwen2AudioForConditionalGeneration

from . import sounds
from .accuracy import EFFECT, FAMILY, MUSIC, OTHER, RECORDED, Accuracy, Measure
from .batches import Dialogue
from .captions import Attributes, answer, parse, reliable_attributes
from .clips import draw
from .dataset import log_mel
from .downloads import Downloads
from .evaluation_sounds import qt_resource
from .forward import greedy
from .render import RATE, Wave
from .tokenizer import END, token_id

Clip = tuple[Wave, Attributes]
EMBEDDED = Path(__file__).parents[2] / "src/qwen_audio/models/embedded"


class CaptionModel:
    """A checkpoint that describes clips, by transformers' model."""

    def __init__(self, folder: Path) -> None:
        self.model = Qwen2AudioForConditionalGeneration.from_pretrained(folder).float().eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self._dialogue = Dialogue(self.tokenizer)
        self._end = token_id(self.tokenizer, END)

    def describe(self, waves: list[Wave], question: str = "Describe the music:") -> list[str]:
        """Answers about clips of one length."""
        mel = torch.stack([log_mel(wave) for wave in waves])
        frames = -(-len(waves[0]) // 160)
        question_ids = self._dialogue.branch(question, "", chat=False)[0]
        prompt = [*self._dialogue.prefix(frames, chat=False), *question_ids]
        generated = greedy(self.model, mel, frames, prompt, (self._end,))
        return [str(self.tokenizer.decode(tokens)).strip() for tokens in generated]

    def evaluate(
        self, clips: Iterable[Clip], measures: tuple[Measure, ...], ask_tempo: bool = False
    ) -> tuple[list[Accuracy], int]:
        """Accuracy of each measure, and the number of captions outside the grammar.

        Args:
            ask_tempo: also ask about the tempo of each clip, and count right answers.
        """
        accuracies = [Accuracy(name) for name, _ in measures]
        tempo_accuracy, unparsed = Accuracy(TEMPO_ANSWER), 0
        by_length: dict[int, list[Clip]] = {}
        for clip in clips:
            by_length.setdefault(len(clip[0]), []).append(clip)
        for group in by_length.values():
            waves = [wave for wave, _ in group]
            for caption, (_, attributes) in zip(self.describe(waves), group, strict=True):
                parsed, expected = parse(caption), reliable_attributes(attributes)
                unparsed += parsed is None
                for accuracy, (_, value) in zip(accuracies, measures, strict=True):
                    if (label := value(expected)) is not None:
                        accuracy.add(label, parsed is not None and value(parsed) == label)
            replies = self.describe(waves, "How fast is it?") if ask_tempo else []
            for reply, (_, attributes) in zip(replies, group, strict=bool(replies)):
                if attributes.tempo is not None:
                    correct = reply == answer(attributes, "tempo")
                    tempo_accuracy.add(attributes.tempo, correct)
        return [*accuracies, tempo_accuracy], unparsed


TEMPO_ANSWER = "tempo, when asked for it"


def print_table(title: str, result: tuple[list[Accuracy], int], clips: int, classes: bool) -> None:
    """Print a table of accuracies, with a line per class if `classes`."""
    accuracies, unparsed = result
    print(f"\n### {title}\n\n{clips} clips, {unparsed} captions outside the grammar\n")
    print("| | share | 95 % | right |\n| --- | --- | --- | --- |")
    for accuracy in accuracies:
        for line in accuracy.lines(classes):
            print(line, flush=True)


def print_by_length(model: CaptionModel, downloads: Downloads, font: str, count: int) -> None:
    """Print the accuracies for clips of 2.5 to 30 s."""
    columns = []
    for seconds in SECONDS:
        clips = render_music(downloads, font, False, count, 105, (seconds, seconds))
        columns.append(model.evaluate(clips, MUSIC, ask_tempo=True)[0])
    print(f"\n### The same, by length ({font}, {count} clips each)\n")
    print("| | " + " | ".join(f"{seconds:g} s" for seconds in SECONDS) + " |")
    print("| --- " * (len(SECONDS) + 1) + "|")
    for rows in zip(*columns, strict=True):
        if any(accuracy.count for accuracy in rows):
            shares = " | ".join(accuracy.share() for accuracy in rows)
            print(f"| {rows[0].name} | {shares} |", flush=True)


SECONDS = (2.5, 5.0, 10.0, 20.0, 30.0)


def render_music(
    downloads: Downloads,
    font: str,
    held_out: bool,
    count: int,
    seed: int,
    seconds_range: tuple[float, float] = (3.0, 20.0),
) -> list[Clip]:
    """Random music of 3 to 20 s, in groups of eight clips of equal length."""
    rng = np.random.default_rng(seed)
    player, bank = downloads.test_player(font), downloads.bank()
    clips: list[Clip] = []
    while len(clips) < count:
        seconds = round(float(np.exp(rng.uniform(*np.log(seconds_range)))), 1)
        clips += [draw(rng, player, bank, seconds, "music", False, held_out) for _ in range(8)]
    return clips[:count]


def english_speech(downloads: Downloads, count: int, seed: int) -> list[Clip]:
    """English prompts by a voice that training does not use."""
    rng = np.random.default_rng(seed)
    files = sorted((downloads.folder / sounds.SPEECH_TEST_PACKAGE).rglob("*.wav"))
    waves = [sounds.load(files[i]) for i in rng.choice(len(files), 4 * count)]
    waves = [wave for wave in waves if 1.0 < len(wave) / RATE < 20 and np.abs(wave).max() > 0.05]
    return [(wave, Attributes("speech", speech=True)) for wave in waves[:count]]


def supertux_effects(downloads: Downloads) -> list[Clip]:
    """Effects of a game that training does not use, without its jingles and words."""
    musical = ("tada", "welldone", "excellent", "invincible", "upgrade", "empty", "savebell")
    folder = downloads.folder / "supertux-data/usr/share/games/supertux2/sounds"
    clips = []
    for path in sorted(folder.iterdir()):
        if path.suffix in (".wav", ".ogg") and not path.name.startswith(musical):
            wave = sounds.load(path)[: RATE * 20]
            if len(wave) > 0.25 * RATE and np.abs(wave).max() > 0.01:
                clips.append((wave, Attributes("effect")))
    return clips


# Recordings of real instruments, by the names of their files.
_REAL_INSTRUMENTS = {
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


def real_instruments(downloads: Downloads) -> list[Clip]:
    """Recordings of real instruments, from GCompris."""
    path = downloads.folder / "gcompris-qt-data/usr/share/gcompris-qt/rcc/instruments.rcc"
    files = qt_resource(path)
    clips = [
        (sounds.load(io.BytesIO(files[f"{name}.ogg"])), Attributes("music", lead=lead))
        for name, lead in _REAL_INSTRUMENTS.items()
    ]
    drums = Attributes("music", drums=True)
    return clips + [(sounds.load(io.BytesIO(files[f"{name}.ogg"])), drums) for name in _DRUMS]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--downloads", type=Path, required=True, help="folder that fetch filled")
    parser.add_argument("--checkpoint", type=Path, default=EMBEDDED)
    parser.add_argument("--clips", type=int, default=400, help="of rendered music in a table")
    parser.add_argument(
        "--freepats", type=int, default=0, help="clips played by timidity, which is slow"
    )
    parser.add_argument("--classes", action="store_true", help="also print a line per class")
    options = parser.parse_args()
    torch.set_num_threads(1)
    downloads, model = Downloads(options.downloads), CaptionModel(options.checkpoint)
    count, classes, font = options.clips, options.classes, "TimGM6mb"

    def report(
        title: str, clips: list[Clip], measures: tuple[Measure, ...], ask_tempo: bool = False
    ) -> None:
        result = model.evaluate(clips, measures, ask_tempo)
        print_table(title, result, len(clips), classes)

    music = render_music(downloads, font, False, count, seed=101)
    report(f"A SoundFont never trained on ({font})", music, MUSIC, ask_tempo=True)
    print_by_length(model, downloads, font, count // 4)
    held_out = render_music(downloads, font, True, count // 2, seed=102)
    report("Programs never trained on, on that SoundFont", held_out, FAMILY)
    # Checkpoints were selected by the table above, not by this one.
    others = render_music(downloads, font, True, count // 2, seed=902)
    report("The same, on other clips", others, FAMILY)
    if options.freepats:
        patches = render_music(downloads, "FreePats", False, options.freepats, seed=104)
        report("Patches never trained on (FreePats)", patches, MUSIC)
    report("Real instruments (GCompris)", real_instruments(downloads), RECORDED)
    report("English speech (Asterisk, Allison Smith)", english_speech(downloads, 200, 103), OTHER)
    report("Effects never trained on (SuperTux)", supertux_effects(downloads), EFFECT)


if __name__ == "__main__":
    main()
