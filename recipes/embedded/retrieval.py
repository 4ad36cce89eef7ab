"""Does what sounds alike lie near? `python -m recipes.embedded.retrieval --parts DIR`.

A collection is made of rendered clips for each tap, and every clip looks for its five nearest:
how many of them are led by an instrument of the same family? The SoundFont is kept for testing.
"""

import argparse
import csv
import tempfile
from collections import Counter
from pathlib import Path

import soundfile

import qwen_audio as qa

from .downloads import Parts
from .evaluate import EMBEDDED, rendered
from .instruments import family_of
from .render import RATE

NEAREST = 5


def written(parts: Parts, count: int, folder: Path) -> Path:
    """Clips of 3 to 10 s, each with a lead, and a manifest that names its family."""
    clips = [
        (wave, family_of(truth.lead))
        for wave, truth in rendered(parts, "TimGM6mb", False, 2 * count, 107, (3.0, 10.0))
        if truth.lead is not None
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


def by_chance(families: list[str]) -> float:
    """Precision of any others, drawn blindly."""
    count, among = Counter(families), len(families) - 1
    return sum(count[family] - 1 for family in families) / among / len(families)


def precision(collection: qa.Collection) -> float:
    """The share of the nearest that have the family of what was asked with."""
    rows = collection.table.search().select(["source", "family"]).limit(len(collection)).to_list()
    right = [
        hit.columns["family"] == row["family"]
        for row in rows
        for hit in collection.search(id=row["source"], limit=NEAREST)
    ]
    return sum(right) / len(right)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=Path, required=True, help="the folder that fetch filled")
    parser.add_argument("--checkpoint", type=Path, default=EMBEDDED)
    parser.add_argument("--clips", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        manifest = written(Parts(options.parts), options.clips, Path(scratch))
        with manifest.open(newline="") as file:
            families = [row["family"] for row in csv.DictReader(file)]
        chance = by_chance(families)
        print(f"{len(families)} clips of {len(set(families))} families; by chance {chance:.3f}\n")
        print(f"| tap | precision@{NEAREST} | against chance |\n| --- | --- | --- |")
        model = qa.load(options.checkpoint)
        for tap in model.taps:
            collection = qa.Collection.create(Path(scratch) / f"{tap}.lance", model, tap=tap)
            collection.index(manifest)
            found = precision(collection)
            print(f"| `{tap}` | {found:.2f} | {found / chance:.1f}× |", flush=True)


if __name__ == "__main__":
    main()
