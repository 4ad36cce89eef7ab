"""Labelled clips of 5 s for the study, made of sounds that are not in the training data.

Music rendered with the SoundFont TimGM6mb, speech of the English voice excluded from training, both
mixed, and sound effects of a game excluded from training. Labels come from the synthesis.
"""

import copy
import csv
from pathlib import Path

import numpy as np
import soundfile
from recipes.embedded import composition, sounds
from recipes.embedded.captions import Attributes
from recipes.embedded.downloads import Downloads
from recipes.embedded.instruments import family_of
from recipes.embedded.render import RATE, Player, UnplayableError, Wave, normalized, render

_SECONDS = 5.0
_SHARES = {"music": 0.7, "speech over music": 0.12, "speech": 0.12, "effect": 0.06}
_LEVELS_DBFS = (-40.0, -12.0)  # dBFS (RMS over the clip), for every kind of clip
_EFFECTS = "supertux-data/usr/share/games/supertux2/sounds"

Labels = dict[str, str | float | int | None]


def write_dataset(downloads_folder: Path, folder: Path, count: int, seed: int) -> Path:
    """Write clips and manifest unless the manifest is complete. Returns the manifest's path."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "labels.csv"
    if manifest.exists() and len(manifest.read_text(encoding="utf-8").splitlines()) == count + 1:
        return manifest
    player = Downloads(downloads_folder).test_player("TimGM6mb")
    voices, effects = _load_voices(downloads_folder), _load_effects(downloads_folder)
    rows: list[Labels] = []
    for number in range(count):
        rng = np.random.default_rng((seed, number))  # a clip depends only on seed and number
        wave, labels = _make_clip(rng, player, voices, effects)
        name = f"{number:04}.flac"
        soundfile.write(folder / name, wave, RATE)
        rows.append({"source": name, **labels})
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return manifest


def _make_clip(
    rng: np.random.Generator,
    player: Player,
    voices: list[tuple[str, Wave]],
    effects: list[tuple[str, Wave]],
) -> tuple[Wave, Labels]:
    kind = str(rng.choice(tuple(_SHARES), p=tuple(_SHARES.values())))
    labels: Labels = {
        "instrument": None,
        "family": None,
        "tempo": None,
        "bpm": None,
        "drums": None,
        "loudness": None,
        "speech": int("speech" in kind),
    }
    utterances = rng.integers(len(voices), size=8)
    if "music" in kind:
        wave, bpm, attributes = _render_music(rng, player)
        labels["drums"] = int(attributes.drums)
        if attributes.lead is not None and kind == "music":
            labels["instrument"] = attributes.lead
            labels["family"] = family_of(attributes.lead)
        if attributes.tempo is not None:
            labels["tempo"], labels["bpm"] = attributes.tempo, round(bpm, 1)
    elif kind == "effect":
        wave = sounds.concatenate(rng, [effects[rng.integers(len(effects))][1]], _SECONDS, 0.4)
    else:
        wave = np.zeros(round(_SECONDS * RATE), np.float32)
    if "speech" in kind:
        voice = sounds.concatenate(rng, [voices[k][1] for k in utterances], _SECONDS, 0.25)
        wave = normalized(wave) + normalized(voice) * np.float32(10 ** (rng.uniform(-3, 9) / 20))
    level = float(rng.uniform(*_LEVELS_DBFS))
    wave = np.clip(normalized(wave) * np.float32(10 ** (level / 20) / 0.1), -1, 1)
    labels["loudness"] = round(20 * float(np.log10(np.sqrt(np.mean(wave**2)) + 1e-9)), 2)
    return wave, labels


def _render_music(rng: np.random.Generator, player: Player) -> tuple[Wave, float, Attributes]:
    while True:
        rng_before = copy.deepcopy(rng)
        score = composition.compose(rng, _SECONDS)
        try:
            wave = render(rng, player, score, _SECONDS, vary=False)
        except UnplayableError:
            continue
        if np.abs(wave).max() > 1e-4:
            attributes = score.attributes
            return wave, _beats_per_minute(rng_before, attributes.tempo), attributes


def _beats_per_minute(rng: np.random.Generator, tempo: str | None) -> float:
    """The tempo that `compose` drew from a copy of its generator.

    Its first two draws are the tempo class and the tempo.

    Raises:
        RuntimeError: if `compose` draws in another order.
    """
    tempo_class = str(rng.choice(tuple(composition.BEATS_PER_MINUTE)))
    if tempo not in (None, tempo_class):
        raise RuntimeError("compose no longer draws the tempo class first: adapt _beats_per_minute")
    return float(rng.uniform(*composition.BEATS_PER_MINUTE[tempo_class]))


def _load_voices(downloads_folder: Path) -> list[tuple[str, Wave]]:
    files = sorted((downloads_folder / sounds.SPEECH_TEST_PACKAGE).rglob("*.wav"))
    waves = [(path.stem, sounds.load(path)) for path in files]
    return [(name, wave) for name, wave in waves if 1 < len(wave) / RATE < 20]


def _load_effects(downloads_folder: Path) -> list[tuple[str, Wave]]:
    musical = ("tada", "welldone", "excellent", "invincible", "upgrade", "empty", "savebell")
    files = sorted(
        path for path in (downloads_folder / _EFFECTS).iterdir() if path.suffix in (".wav", ".ogg")
    )
    waves = [(path.stem, sounds.load(path)) for path in files if not path.stem.startswith(musical)]
    return [(name, wave) for name, wave in waves if np.abs(wave).max() > 0.01]
