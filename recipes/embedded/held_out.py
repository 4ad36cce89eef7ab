"""Make the clips that the tests describe: `python -m recipes.embedded.held_out --parts DIR`.

Music on FreePats' patches, which training never hears and whose licence lets music made with them
be anyone's; speech by eSpeak NG in languages that training does not have; effects made from
scratch; silence. One file of sound, for clips laid end to end, and one of what is true of each.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import soundfile

from . import sounds
from .captions import Attributes
from .clips import draw
from .downloads import Parts
from .effects import GROUPS, synthetic_effect
from .render import RATE, Wave, normalised

DATA = Path(__file__).parents[2] / "tests/data"
MUSIC, EFFECTS = 32, 8
_SPOKEN = {
    "tr": "Bugün hava çok güzel ve çocuklar parkta oynuyor",
    "cs": "Ráno jsme šli na trh a koupili čerstvý chléb",
    "el": "Το καλοκαίρι πηγαίνουμε στη θάλασσα με τους φίλους μας",
    "hi": "आज सुबह हम बाज़ार गए और ताज़े फल खरीदे",
    "id": "Kami berjalan di tepi sungai dan berbicara tentang cuaca",
    "ro": "Astăzi plecăm cu trenul să vedem munții și lacul",
    "da": "Vi gik en tur i skoven og talte om gamle dage",
    "hu": "Reggel elmentünk a piacra és friss gyümölcsöt vettünk",
}


def clips(parts: Parts, seed: int) -> list[tuple[Wave, Attributes]]:
    """Fifty clips of 3 to 5 s: the same ones every time."""
    rng = np.random.default_rng(seed)
    player, bank = parts.test_player("FreePats"), parts.bank()
    made = []
    for _ in range(MUSIC):
        seconds = round(float(rng.uniform(3, 5)), 1)
        made.append(draw(rng, player, bank, seconds, "music", vary=False))
    for language, words in _SPOKEN.items():
        voice = sounds.espeak((language, words, 50, int(rng.integers(130, 180))))
        made.append((normalised(voice[: 4 * RATE]), Attributes("speech", speech=True)))
    for number in range(EFFECTS):
        effect = synthetic_effect(rng, GROUPS[number % len(GROUPS)], 3.0)
        made.append((effect, Attributes("effect")))
    quiet = np.zeros(3 * RATE, dtype=np.float32)
    made += [(quiet, Attributes("silence")), (quiet + np.float32(1e-5), Attributes("silence"))]
    return [(np.clip(wave, -0.99, 0.99), truth) for wave, truth in made]


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=Path, required=True, help="the folder that fetch filled")
    parser.add_argument("--out", type=Path, default=DATA)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows, at = [], 0
    with soundfile.SoundFile(options.out / "held_out.ogg", "w", RATE, 1, "VORBIS") as file:
        for wave, truth in clips(Parts(options.parts), seed=106):
            for start in range(0, len(wave), RATE):  # its encoder takes a little at a time
                file.write(wave[start : start + RATE])
            stated = {name: value for name, value in asdict(truth).items() if value}
            rows.append({"start": at, "samples": len(wave), "true": stated})
            at += len(wave)
    lines = ",\n".join(json.dumps(row) for row in rows)
    (options.out / "held_out.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
