"""Generate the clips of the tests: `python -m recipes.embedded.held_out --downloads DIR`.

Music played on FreePats, which training does not use and whose licence puts no terms on music made
with it; speech of eSpeak NG in languages that training does not have; synthetic effects; silence.
Writes one audio file with all clips end to end, and one JSON file with their attributes.
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
from .downloads import Downloads
from .effects import GROUPS, synthetic_effect
from .render import RATE, Wave, normalized

DATA = Path(__file__).parents[2] / "tests/data"
MUSIC, EFFECTS = 32, 8
_SENTENCES = {
    "tr": "Bugün hava çok güzel ve çocuklar parkta oynuyor",
    "cs": "Ráno jsme šli na trh a koupili čerstvý chléb",
    "el": "Το καλοκαίρι πηγαίνουμε στη θάλασσα με τους φίλους μας",
    "hi": "आज सुबह हम बाज़ार गए और ताज़े फल खरीदे",
    "id": "Kami berjalan di tepi sungai dan berbicara tentang cuaca",
    "ro": "Astăzi plecăm cu trenul să vedem munții și lacul",
    "da": "Vi gik en tur i skoven og talte om gamle dage",
    "hu": "Reggel elmentünk a piacra és friss gyümölcsöt vettünk",
}


def held_out_clips(downloads: Downloads, seed: int) -> list[tuple[Wave, Attributes]]:
    """Fifty clips of 3 to 5 s with their attributes; the same for the same seed."""
    rng = np.random.default_rng(seed)
    player, bank = downloads.test_player("FreePats"), downloads.bank()
    clips = []
    for _ in range(MUSIC):
        seconds = round(float(rng.uniform(3, 5)), 1)
        clips.append(draw(rng, player, bank, seconds, "music", vary=False))
    for language, sentence in _SENTENCES.items():
        voice = sounds.espeak((language, sentence, 50, int(rng.integers(130, 180))))
        clips.append((normalized(voice[: 4 * RATE]), Attributes("speech", speech=True)))
    for number in range(EFFECTS):
        effect = synthetic_effect(rng, GROUPS[number % len(GROUPS)], 3.0)
        clips.append((effect, Attributes("effect")))
    quiet = np.zeros(3 * RATE, dtype=np.float32)
    clips += [(quiet, Attributes("silence")), (quiet + np.float32(1e-5), Attributes("silence"))]
    return [(np.clip(wave, -0.99, 0.99), attributes) for wave, attributes in clips]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--downloads", type=Path, required=True, help="folder that fetch filled")
    parser.add_argument("--out", type=Path, default=DATA)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows, position = [], 0
    with soundfile.SoundFile(options.out / "held_out.ogg", "w", RATE, 1, "VORBIS") as file:
        for wave, attributes in held_out_clips(Downloads(options.downloads), seed=106):
            for start in range(
                0, len(wave), RATE
            ):  # libsndfile's Vorbis encoder fails on long blocks
                file.write(wave[start : start + RATE])
            values = {name: value for name, value in asdict(attributes).items() if value}
            rows.append({"start": position, "samples": len(wave), "true": values})
            position += len(wave)
    lines = ",\n".join(json.dumps(row) for row in rows)
    (options.out / "held_out.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
