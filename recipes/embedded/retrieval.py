"""Precision of similarity search by tap: `python -m recipes.embedded.retrieval --downloads DIR`.

Indexes clips of one SoundFont, which training does not use, in a collection per tap. The precision
of a clip is the share of its five nearest neighbours with a lead of the same instrument family.
"""

import argparse
import csv
import tempfile
from collections import Counter
from pathlib import Path

import soundfile

import qwen_audio as qa

from .downloads import Downloads
from .evaluate import EMBEDDED, render_music
from .instruments import family_of
from .render import RATE

NEIGHBOURS = 5


def write_clips(downloads: Downloads, count: int, folder: Path) -> Path:
    """Write clips of 3 to 10 s that have a lead. Returns their manifest, with a column `family`."""
    clips = [
        (wave, family_of(attributes.lead))
        for wave, attributes in render_music(
            downloads, "TimGM6mb", False, 2 * count, 107, (3.0, 10.0)
        )
        if attributes.lead is not None
    ][:count]
    manifest = folder / "clips.csv"
    with manifest.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["source", "family"])
        for number, (wave, family) in enumerate(clips):
            name = folder / f"{number:04d}.flac"
            soundfile.write(name, wave, RATE)
            rows.writerow([name, family])
    return manifest


def chance_precision(families: list[str]) -> float:
    """Precision of random neighbours."""
    count, others = Counter(families), len(families) - 1
    return sum(count[family] - 1 for family in families) / others / len(families)


def precision(collection: qa.Collection) -> float:
    """Share of nearest neighbours that have the query's family, over all clips."""
    rows = collection.table.search().select(["source", "family"]).limit(len(collection)).to_list()
    same_family = [
        result.columns["family"] == row["family"]
        for row in rows
        for result in collection.search(like=row["source"], limit=NEIGHBOURS)
    ]
    return sum(same_family) / len(same_family)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--downloads", type=Path, required=True, help="folder that fetch filled")
    parser.add_argument("--checkpoint", type=Path, default=EMBEDDED)
    parser.add_argument("--clips", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        manifest = write_clips(Downloads(options.downloads), options.clips, Path(folder))
        with manifest.open(newline="") as file:
            families = [row["family"] for row in csv.DictReader(file)]
        chance = chance_precision(families)
        print(f"{len(families)} clips of {len(set(families))} families; by chance {chance:.3f}\n")
        print(f"| tap | precision@{NEIGHBOURS} | against chance |\n| --- | --- | --- |")
        model = qa.load(options.checkpoint)
        for tap in model.taps:
            collection = qa.Collection.create(Path(folder) / f"{tap}.lance", model, tap=tap)
            collection.index(manifest)
            value = precision(collection)
            print(f"| `{tap}` | {value:.2f} | {value / chance:.1f}× |", flush=True)


if __name__ == "__main__":
    main()
