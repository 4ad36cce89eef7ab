"""Two thousand clips of 5 s, none of whose sounds the checkpoint was trained on, and their labels.

Music on TimGM6mb; speech by the English voice that training leaves out; both together; and effects
of a game that training never heard. Each is labelled with what it was made of.
"""

import copy
import csv
from pathlib import Path

import numpy as np
import soundfile
from recipes.embedded import score, sounds
from recipes.embedded.instruments import family_of
from recipes.embedded.parts import Parts
from recipes.embedded.render import RATE, Player, UnplayableError, Wave, normalised, render

SECONDS = 5.0
SHARES = {"music": 0.7, "speech over music": 0.12, "speech": 0.12, "effect": 0.06}
LEVELS = (-40.0, -12.0)  # dBFS (RMS over the clip), whatever it holds
EFFECTS = "supertux-data/usr/share/games/supertux2/sounds"

Labels = dict[str, str | float | int | None]


def make(parts: Path, folder: Path, count: int, seed: int) -> Path:
    """Write the clips that are not there yet, and the manifest. Returns the manifest's path."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "labels.csv"
    if manifest.exists() and len(manifest.read_text(encoding="utf-8").splitlines()) == count + 1:
        return manifest
    opened = Parts(parts)
    player, voices, effects = opened.test_player("TimGM6mb"), _voices(parts), _effects(parts)
    rows: list[Labels] = []
    for number in range(count):
        rng = np.random.default_rng((seed, number))  # a clip depends on its number alone
        wave, labels = _clip(rng, player, voices, effects)
        name = f"{number:04}.flac"
        soundfile.write(folder / name, wave, RATE)
        rows.append({"source": name, **labels})
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return manifest


def _clip(
    rng: np.random.Generator,
    player: Player,
    voices: list[tuple[str, Wave]],
    effects: list[tuple[str, Wave]],
) -> tuple[Wave, Labels]:
    kind = str(rng.choice(tuple(SHARES), p=tuple(SHARES.values())))
    labels: Labels = {
        "instrument": None,
        "family": None,
        "tempo": None,
        "bpm": None,
        "drums": None,
        "loudness": None,
        "speech": int("speech" in kind),
    }
    spoken = [str(number) for number in rng.integers(len(voices), size=8)]
    if "music" in kind:
        wave, bpm, made = _music(rng, player)
        labels["drums"] = int(made.drums)
        if made.lead is not None and kind == "music":
            labels["instrument"], labels["family"] = made.lead, family_of(made.lead)
        if made.tempo is not None:
            labels["tempo"], labels["bpm"] = made.tempo, round(bpm, 1)
    elif kind == "effect":
        wave = sounds.laid_out(rng, [effects[rng.integers(len(effects))][1]], SECONDS, 0.4)
    else:
        wave = np.zeros(round(SECONDS * RATE), np.float32)
    if "speech" in kind:
        voice = sounds.laid_out(rng, [voices[int(k)][1] for k in spoken], SECONDS, 0.25)
        wave = normalised(wave) + normalised(voice) * np.float32(10 ** (rng.uniform(-3, 9) / 20))
    level = float(rng.uniform(*LEVELS))
    wave = np.clip(normalised(wave) * np.float32(10 ** (level / 20) / 0.1), -1, 1)
    labels["loudness"] = round(20 * float(np.log10(np.sqrt(np.mean(wave**2)) + 1e-9)), 2)
    return wave, labels


def _music(rng: np.random.Generator, player: Player) -> tuple[Wave, float, "score.Attributes"]:
    while True:
        before = copy.deepcopy(rng)
        made = score.compose(rng, SECONDS)
        try:
            wave = render(rng, player, made, SECONDS, vary=False)
        except UnplayableError:
            continue
        if np.abs(wave).max() > 1e-4:
            return wave, _beats_per_minute(before, made.attributes.tempo), made.attributes


def _beats_per_minute(rng: np.random.Generator, tempo: str | None) -> float:
    """The first two things that `compose` draws: the class of tempo, and the tempo."""
    drawn = str(rng.choice(tuple(score.BEATS_PER_MINUTE)))
    if tempo not in (None, drawn):
        raise RuntimeError("compose draws something else first: see _beats_per_minute")
    return float(rng.uniform(*score.BEATS_PER_MINUTE[drawn]))


def _voices(parts: Path) -> list[tuple[str, Wave]]:
    files = sorted((parts / sounds.SPEECH_TEST_PACKAGE).rglob("*.wav"))
    waves = [(path.stem, sounds.load(path)) for path in files]
    return [(name, wave) for name, wave in waves if 1 < len(wave) / RATE < 20]


def _effects(parts: Path) -> list[tuple[str, Wave]]:
    musical = ("tada", "welldone", "excellent", "invincible", "upgrade", "empty", "savebell")
    files = sorted(path for path in (parts / EFFECTS).iterdir() if path.suffix in (".wav", ".ogg"))
    waves = [(path.stem, sounds.load(path)) for path in files if not path.stem.startswith(musical)]
    return [(name, wave) for name, wave in waves if np.abs(wave).max() > 0.01]
