"""Recordings of speech and effects, synthesized speech, and clips made of them.

Recordings come from packages whose licences allow it (see NOTICE). They are decoded once into a
`Bank`, which `Downloads.bank` caches. Groups of effects are derived from file names.
"""

import contextlib
import io
import re
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from qwen_audio import AudioError, load_waveform

from .effects import GROUPS, synthetic_effect
from .fetch import GAMES
from .render import RATE, Wave, fit_length, normalized

# Asterisk's prompts, spoken by people. English is for evaluation, and Spanish has the same voice.
SPEECH_PACKAGES = tuple(f"asterisk-core-sounds-{code}-wav" for code in ("fr", "it", "ru"))
SPEECH_TEST_PACKAGE = "asterisk-core-sounds-en-wav"

_OPENSFX = {
    "machine": (*range(3, 12), 13, *range(24, 29), 33, 35, 40, 56, 59, 61, 65, 69, 70, 71),
    "impact": (2, 15, 16, 17, 18, 19, 20, 31, 32, 39, 53, 54, 55, 58),
    "creature": (36, 37, 38, 66, 67, 68, 72),
    "nature": (29, 46, 51, 52, 57),
    "electronic": (12, 21, 22),
    "": (14, 42, 43, 44, 48, 49, 60, 62, 63, 64),
}
# Prefixes of file names in sonic-pi-samples and in Minetest's game.
_NAMED = {
    "machine": "carts_cart|default_furnace",
    "impact": "perc_impact|perc_door|perc_snap|misc_cineboom|default_(dig|dug|place|break|chest"
    "|tool|hard|metal|wood|glass|ice_d)|doors_|tnt_explode|xpanes_",
    "creature": "misc_(crow|burp)",
    "nature": "perc_swash|perc_swoosh|vinyl_hiss|ambi_(swoosh|dark_woosh|sauna)|fire_|env_sounds"
    "|default_(cool_lava|water|grass|gravel|sand|snow|dirt|item_smoke)|tnt_(ignite|gunpowder)",
    "electronic": "elec_(beep|blip|blup|flip|ping|plip|pop|tick|twip)|mehackit_(phone|robot)"
    "|glitch_(robot|perc)",
    "": "vinyl_(backspin|rewind|scratch)|perc_till|elec_(wood|twang)",
}
# Freedoom's effects, by the names of their lumps; the rest are monsters. A few are words.
_DOOM_WORDS = ("DSSS", "DSRADIO", "DSKEEN")
_DOOM = {
    "impact": "DS(PISTOL|SHOTGN|SGCOCK|DSHTGN|DB|RXPLOD|BAREXP|FIRXPL|PUNCH|TINK|OOF|NOWAY|HOOF"
    "|METAL|SLOP|CLAW|BDOPN|BDCLS|SWTCH|SKESWG)",
    "machine": "DS(SAW|PSTART|PSTOP|DOR|STNMOV)",
    "nature": "DS(FIRSHT|RLAUNC|FLAM)",
    "electronic": "DS(ITEMUP|WPNUP|ITMBK|GETPOW|TELEPT|PLASMA|BFG)",
}
# Music, jingles and words in games, by folder and name. Other sounds are effects, of no group where
# no pattern of `_GAMES` matches.
_NOT_EFFECTS = re.compile(
    r"/music/|/announcer/|merchant|[/_-]music|menu\.ogg|tutorial|bonus|vo_teefault|level_up|warcry"
    r"|_heal|campaign|DesertAmbient",
    re.IGNORECASE,
)
_GAMES = {
    "impact": "hit|explo|crack|thud|land|clank|crate|stone|step|foot|break|broken|metal|staff|stab"
    "|switch|door|hammer|crunch|nuke|collide|impact|punch|splat|quake|click|gun_|shotty|tankshot",
    "machine": "engine|atomic|afterburner|machinery|plasma (tiny|small|medium|large|huge)~"
    "|ion (tiny|small|medium|large|huge)~|minecart|pump|flying|hyperdrive|rocket|torpedo",
    "nature": "wind|rain|water|fire|river|splash|whoosh|swish|rustle|burn|swing|skid|flame|droplets"
    "|thunder|noise|slice",
    "creature": "bark|growl|snarl|hawk|rabbit|bird|crow|bunny|frog|hen|pig|wolf|bee|chick|moo|owl"
    "|raven|antlion|goblin|minotaur|skeleton|wyvern|zombie|grave|npc-|mammut|_die|pain|_ko",
    "electronic": "laser|beam|blaster|alarm|teleport|pulse|scan|ionic|disruptor|robo|timestop"
    "|shock|particle|pickup|console|score|countdown|seeker|tracker",
}
_MINETEST = "usr/share/games/minetest/games/minetest_game/mods"
_SONIC_PI = "usr/share/sonic-pi/samples"

_SENTENCES = {
    "en": "The quick brown fox jumps over the lazy dog while seven old friends talk about rain",
    "de": "Heute scheint die Sonne und wir gehen mit den Kindern am Fluss entlang nach Hause",
    "fr": "Demain nous prendrons le train pour aller voir la mer et manger des fruits",
    "es": "La casa azul tiene una puerta pequeña y muchas ventanas abiertas al jardín",
    "it": "Questa sera mangiamo insieme e parliamo del viaggio che abbiamo fatto in montagna",
    "pt": "O menino abriu a janela e viu que a rua estava cheia de gente",
    "nl": "Wij lopen elke morgen langs het water en praten over het weer",
    "sv": "Det regnar ute men vi tar en promenad i skogen med hunden",
    "pl": "Dzisiaj rano poszedłem do sklepu i kupiłem chleb oraz mleko",
    "fi": "Talvella järvi jäätyy ja lapset luistelevat joka päivä koulun jälkeen",
}
# Shares of groups among synthetic effects. Electronic sounds of games are mistaken for music most.
_SYNTHETIC = (0.22, 0.12, 0.12, 0.1, 0.44)
_VARIANTS = ("", "+m1", "+m3", "+m5", "+m7", "+f1", "+f2", "+f4", "+f5", "+croak", "+whisper")


@dataclass(frozen=True)
class Bank:
    """Decoded recordings at 16 kHz.

    Attributes:
        voices: synthesized speech.
        spoken: recorded speech, in the order of the prompts.
        effects: with their groups, or "" for none.
    """

    voices: tuple[Wave, ...]
    spoken: tuple[Wave, ...]
    effects: tuple[tuple[Wave, str], ...]


def load(source: Path | io.BytesIO) -> Wave:
    """A recording as mono at 16 kHz."""
    wave, rate = soundfile.read(source, dtype="float32", always_2d=True)
    mono = wave.mean(axis=1)
    return (mono if rate == RATE else soxr.resample(mono, rate, RATE)).astype(np.float32)


def _usable(wave: Wave, least: float) -> bool:
    return len(wave) > least * RATE and float(np.abs(wave).max()) > 0.003


def espeak(job: tuple[str, str, int, int]) -> Wave:
    """Speech of eSpeak NG, given voice, text, pitch (0 to 99) and words per minute."""
    voice, text, pitch, speed = job
    command = ["espeak-ng", "-v", voice, "-p", str(pitch), "-s", str(speed), "--stdout", text]
    spoken = subprocess.run(command, capture_output=True, check=True).stdout
    return load(io.BytesIO(spoken))


def _synthesized_speech(rng: np.random.Generator, count: int) -> list[Wave]:
    jobs = []
    for _ in range(count):
        language = str(rng.choice(tuple(_SENTENCES)))
        words = _SENTENCES[language].split()
        text = " ".join(str(word) for word in rng.choice(words, rng.integers(4, 16)))
        voice = language + str(rng.choice(_VARIANTS))
        jobs.append((voice, text, int(rng.integers(15, 85)), int(rng.integers(110, 230))))
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(espeak, jobs))


def opensfx(cat: Path) -> list[tuple[Wave, str]]:
    """Effects in OpenTTD's container: a table of offsets, then a name and a WAV file for each."""
    data = cat.read_bytes()
    groups = {number: group for group, numbers in _OPENSFX.items() for number in numbers}
    effects = []
    for number, group in sorted(groups.items()):
        offset, size = struct.unpack_from("<II", data, 8 * number)
        start = (offset & 0x7FFFFFFF) + 1 + data[offset & 0x7FFFFFFF]
        effects.append((load(io.BytesIO(data[start : start + size])), group))
    return effects


def freedoom(wad: Path) -> list[tuple[Wave, str]]:
    """Effects in a Doom archive: 8-bit samples after a header with rate and length."""
    data = wad.read_bytes()
    count, directory = struct.unpack_from("<II", data, 4)
    effects = []
    for entry in range(count):
        at, size, padded = struct.unpack_from("<II8s", data, directory + 16 * entry)
        name = padded.rstrip(b"\0").decode("latin-1")
        if not name.startswith("DS") or size < 1000 or name.startswith(_DOOM_WORDS):
            continue
        rate, length = struct.unpack_from("<HI", data, at + 2)
        steps = np.frombuffer(data, np.uint8, min(length, size - 8), at + 8).astype(np.float32)
        wave = soxr.resample((steps[16:-16] - 128) / 128, rate, RATE)
        group = next((g for g, names in _DOOM.items() if re.match(names, name)), "creature")
        effects.append((wave, group))
    return effects


def _named_effects(folder: Path) -> list[tuple[Wave, str]]:
    effects = []
    for path in sorted([*folder.rglob("*.ogg"), *folder.rglob("*.flac")]):
        for group, names in _NAMED.items():
            if re.match(names, path.name):
                effects.append((load(path), group))
                break
    return effects


def game_effects(package: Path) -> list[tuple[Wave, str]]:
    """Effects of a game's package, with their groups."""
    kinds = (".wav", ".ogg", ".wv", ".mp3")
    effects = []
    for path in sorted(path for path in package.rglob("*") if path.suffix in kinds):
        if _NOT_EFFECTS.search(str(path.relative_to(package))):
            continue
        groups = (g for g, names in _GAMES.items() if re.search(names, path.stem, re.IGNORECASE))
        with contextlib.suppress(AudioError):  # some files are too short to be decoded
            effects.append((np.array(load_waveform(path).samples), next(groups, "")))
    return effects


def build_bank(downloads: Path, seed: int) -> Bank:
    """Decode all recordings for training; takes minutes."""
    rng = np.random.default_rng(seed)
    spoken = [
        load(path)
        for package in SPEECH_PACKAGES
        for path in sorted((downloads / package).rglob("*.wav"))
    ]
    effects = opensfx(
        downloads / "openttd-opensfx/usr/share/games/openttd/baseset/opensfx/opensfx.cat"
    )
    effects += _named_effects(downloads / "minetest-data" / _MINETEST)
    effects += _named_effects(downloads / "sonic-pi-samples" / _SONIC_PI)
    effects += freedoom(downloads / "freedoom/usr/share/games/doom/freedoom2.wad")
    for package in GAMES:
        effects += game_effects(downloads / package)
    return Bank(
        tuple(_synthesized_speech(rng, 1200)),
        tuple(wave for wave in spoken if _usable(wave, 0.6)),
        tuple((wave, group) for wave, group in effects if _usable(wave, 0.04)),
    )


def concatenate(rng: np.random.Generator, waves: list[Wave], seconds: float, gap: float) -> Wave:
    """Random recordings in sequence, with pauses of `gap` seconds on average, cut to `seconds`."""
    total = np.zeros(round(seconds * RATE), dtype=np.float32)
    start = int(rng.uniform(0, 0.15) * len(total))
    while start < len(total):
        wave = normalized(waves[rng.integers(len(waves))])[: len(total) - start]
        total[start : start + len(wave)] += wave
        start += len(wave) + int(RATE * rng.exponential(gap)) + 1
    return total


def speech(rng: np.random.Generator, bank: Bank, seconds: float) -> Wave:
    """A clip of speech of one voice, at a random speed of 0.9 to 1.12."""
    if rng.random() < 0.6 or not bank.voices:
        start = int(rng.integers(len(bank.spoken)))
        waves = bank.spoken[start : start + 6]
    else:
        waves = (bank.voices[rng.integers(len(bank.voices))],)
    speed = float(rng.uniform(0.9, 1.12))
    voice = [soxr.resample(wave, RATE * speed, RATE, quality="QQ") for wave in waves]
    return concatenate(rng, voice, seconds, 0.25)


def effect(rng: np.random.Generator, bank: Bank, seconds: float) -> tuple[Wave, str | None]:
    """A clip of one effect, and its group or None.

    The effect is synthetic or a recording: one of the clip's length, or one of a random group,
    repeated or not.
    """
    if rng.random() < 0.45:
        group = str(rng.choice(GROUPS, p=_SYNTHETIC))
        return synthetic_effect(rng, group, seconds), group
    speed = float(2 ** rng.uniform(-0.35, 0.35))
    samples = seconds * RATE * speed
    of_length = [item for item in bank.effects if 0.6 * samples <= len(item[0]) <= 1.6 * samples]
    chosen_group = str(rng.choice(sorted({group for _, group in bank.effects})))
    of_group = [item for item in bank.effects if item[1] == chosen_group]
    by_length = len(of_length) >= 20 and rng.random() < 0.5
    candidates = of_length if by_length else of_group
    wave, group = candidates[rng.integers(len(candidates))]
    resampled = soxr.resample(wave, RATE * speed, RATE, quality="QQ")
    if by_length:
        return fit_length(normalized(resampled), seconds), group or None
    pause = seconds if rng.random() < 0.35 else float(rng.uniform(0.1, 2.0))
    return concatenate(rng, [resampled], seconds, pause), group or None
