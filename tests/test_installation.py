"""The wheel, installed alone and with each extra alone: everything works, or names what to install.

In every environment, all that needs something missing must say so before anything is loaded or
written, and all that the environment's own extra is for must work.
"""

from __future__ import annotations

import argparse
import itertools
import re
import sysconfig
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import qwen_audio as qa
from environments import (
    ROOT,
    Environment,
    Outcomes,
    Stage,
    entries,
    is_command,
    make_environment,
    run_process,
    unpack_wheel,
)
from qwen_audio.cli.main import build_parser
from recordings import sound, write_wav

SOURCE = Path(qa.__file__).parent
EXTRAS = (
    *("collections", "datasets", "int4", "map", "pandas", "parquet", "playground", "plot"),
    *("probe", "serve", "xarray"),
)
"""Those whose distributions the test tools include."""

OUTSIDE_ALL = ("lm-eval", "mteb", "ray")
"""Those that `all` doesn't have."""

STEPS: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "collections datasets int4 map pandas parquet playground plot probe serve xarray"): (
        "$ describe tones/0.wav",
        "$ encode tones/0.wav -o v.npz",
        "$ encode tones/0.wav -o v.safetensors",
        "$ inspect tones/0.wav",
        "$ models",
        "$ taps",
        "$ completion bash",
        "$ quantize embedded small",
        "$ describe tones/0.wav -o captions.srt",
        "$ lens tones/0.wav",
        "$ lens tones/0.wav -o lens.csv",
        "$ classify tones/0.wav --labels labels.txt -o classes.csv",
        "$ ablate tones/0.wav tones/1.wav -o ablation.csv",
        "$ occlude tones/0.wav --window 0.2 --hop 0.2 -o map.csv",
        "$ trace tones/0.wav tones/1.wav -o trace.csv",
        "$ plot tones/0.wav -o plot.json",
        "$ plot --layers tones/0.wav tones/1.wav -o layers.npz",
        "names() -> list",
        "qa.plot('a.wav') -> OptionError: str can't be plotted: give one of View, LogitLens, "
        "LayerSimilarity, Comparison, Scores, Classification, Reliability, AttentionWeights, "
        "Occlusion, Trace",
        "module('integrations.hear') -> module",
        "module('integrations.xares') -> module",
        "$ parity tones/0.wav -o parity.json",
    ),
    ("int4", "map"): ("module('weights.int4_kernel') -> module",),
    ("parquet", "collections datasets map"): ("$ encode tones/0.wav -o v.parquet",),
    ("pandas", "datasets playground probe xarray"): ("frame() -> DataFrame",),
    ("xarray", ""): ("array() -> DataArray",),
    ("plot", "playground probe"): (
        "$ plot tones/0.wav --panel norms",
        "$ lens tones/0.wav -o lens.svg",
        "$ occlude tones/0.wav --window 0.2 --hop 0.2 -o map.svg",
        "$ plot --layers tones/0.wav tones/1.wav -o layers.pdf",
        "$ compare tones/0.wav tones/1.wav --tap mel",
        "$ trace tones/0.wav tones/1.wav",
        "qa.plot(view()) -> Figure",
        "qa.save_plot(view(), 'view.png') -> PosixPath",
    ),
    ("plot", "map probe"): (
        "$ lens tones/0.wav -o lens.html",
        "$ plot tones/0.wav --panel norms --html",
        "qa.plot_interactive(view()) -> Figure",
        "qa.save_plot(view(), 'view.html') -> PosixPath",
    ),
    ("collections", "datasets map"): (
        "$ index tones -o c.lance --describe",
        "$ search c.lance tones/0.wav",
        "$ search c.lance --caption music",
        "$ search c.lance --like tones/0.wav",
        "$ collection info c.lance",
        "$ collection list c.lance",
        "$ collection failures c.lance",
        "$ collection prune c.lance",
        "$ collection remove c.lance tones/1.wav",
        "$ collection verify c.lance --sample 1",
        "$ collection export c.lance -o c.parquet",
        "$ collection export c.lance -o c.npz",
        "qa.Collection.open('c.lance') -> Collection",
        "qa.Collection('c.lance') -> OptionError: Collection('c.lance'): use Collection.open for "
        "one that exists, and Collection.create for a new one",
        "qa.Collection.create('new.lance', qa.load()) -> Collection",
    ),
    ("datasets", ""): ("$ collection export c.lance -o dataset",),
    ("map", ""): ("$ map c.lance",),
    ("map", "plot probe"): (
        "qa.Projection('', 'pca', points(0), (), ()).write_html('p.html') -> MapPage",
    ),
    ("probe", ""): (
        "$ probe labels.csv --tap mel --folds 2 --probe knn",
        "qa.probe('labels.csv', taps=['mel'], folds=2, probes=['knn']) -> DataFrame",
    ),
    ("playground", ""): ("$ play",),
    ("playground,collections", ""): ("$ play --collection c.lance",),
    ("serve", ""): ("$ serve",),
    ("lm-eval", ""): ("module('integrations.lm_eval') -> module",),
    ("mteb", ""): ("module('integrations.mteb') -> module",),
    ("ray", ""): (
        "$ index tones -o ray.lance --engine ray",
        "qa.map_dataset(['tones/0.wav']) -> Dataset",
    ),
}
"""Commands, and expressions with the type or text of their value, or their error: by the extra that
is to be installed, and others with which they work too. All but the last work with `all`."""

PACKAGE_DATA = (
    "py.typed",
    "models/embedded/config.json",
    "models/embedded/suggested_questions.json",
    "models/embedded/example_captions.json",
    "playground/static/style.css",
)

REFUSED_ONLY = {
    "$ lens tones/0.wav -o lens.svg",
    "$ plot --layers tones/0.wav tones/1.wav -o layers.pdf",
    "qa.save_plot(view(), 'view.png') -> PosixPath",
    "qa.probe('labels.csv', taps=['mel'], folds=2, probes=['knn']) -> DataFrame",
}
"""Steps run only where they need something missing: they are slow, and others work as they do."""

CHAINS = (
    ("parquet", "collections", "map"),  # first, as its collection is used by all others
    ("pandas", "datasets"),
    ("", "playground", "all"),
    ("plot", "probe"),
    ("xarray",),
    ("int4",),
    ("serve",),
)
"""Environments, each with all distributions of the one before. One process runs the steps of all,
as importing torch takes longer than most."""

STARTED_WITHOUT_TORCH = {"pandas", "datasets", "xarray", "int4"}
"""Where no public name is used, as that imports torch."""


def works(key: tuple[str, str], extra: str) -> bool:
    """Whether steps with this key work in the environment of an extra."""
    return extra in (key[0], *key[1].split()) or (extra == "all" and key[0] not in OUTSIDE_ALL)


def refused(extra: str) -> dict[str, str]:
    """What must name an extra in the environment of another, and the one it must name."""
    return {step: key[0] for key, steps in STEPS.items() for step in steps if not works(key, extra)}


def steps_to_run(extra: str, environments: Mapping[str, Environment]) -> list[str]:
    """What works in an environment, and in none that has only a part of its distributions."""
    distributions = environments[extra].distributions
    smaller = [name for name, other in environments.items() if other.distributions < distributions]
    return [
        step
        for key, steps in STEPS.items()
        for step in steps
        if step not in REFUSED_ONLY
        and works(key, extra)
        and not any(works(key, name) for name in smaller)
    ]


def make_folder(folder: Path, collection: Path) -> Path:
    """A working directory with recordings of two classes, and maybe a link to a collection."""
    (folder / "tones").mkdir(parents=True)
    rows = ["source,class"]
    for number in range(4):
        recording = write_wav(sound(0.4, 16_000, seed=number), 16_000)
        (folder / "tones" / f"{number}.wav").write_bytes(recording)
        rows.append(f"tones/{number}.wav,{'ab'[number % 2]}")
    (folder / "labels.csv").write_text("\n".join(rows), encoding="utf-8")
    (folder / "labels.txt").write_text("A piano\nDrums\n", encoding="utf-8")
    if collection.parent != folder:
        (folder / collection.name).symlink_to(collection)
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel, unpacked."""
    return unpack_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def environments(site: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Environment]:
    """An environment for each extra."""
    root = tmp_path_factory.mktemp("environments")
    extras = [extra for chain in CHAINS for extra in chain]
    return {extra: make_environment(root / f"{extra}.env", site, extra) for extra in extras}


@pytest.fixture(scope="module")
def outcomes(
    environments: dict[str, Environment], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Outcomes]:
    """What the steps did in every environment."""
    root = tmp_path_factory.mktemp("outcomes")
    found: dict[str, Outcomes] = {}
    for chain in CHAINS:
        stages: list[Stage] = []
        for extra in chain:
            environment = environments[extra]
            folder = make_folder(root / f"{extra}.work", root / "collections.work" / "c.lance")
            lacking = refused(extra)
            commands = [foreign(environment), *filter(is_command, lacking)]
            steps = steps_to_run(extra, environments)
            if extra not in STARTED_WITHOUT_TORCH:
                steps += [step for step in lacking if not is_command(step)]
            found[extra] = {}
            if extra == chain[0]:
                steps = [*commands, *steps]
            else:
                (found[extra],) = run_process([(environment, folder, commands)], folder)
            stages.append((environment, folder, steps))
        chain_folder = root / f"{chain[-1]}.chain"
        chain_folder.mkdir()
        for extra, outcome in zip(chain, run_process(stages, chain_folder), strict=True):
            found[extra] |= outcome
    return found


def foreign(environment: Environment) -> str:
    """A step which finds none of the modules that are installed here and not there."""
    here = Path(sysconfig.get_path("purelib")).iterdir()
    there = {entry.name for name in environment.distributions for entry in entries(name)}
    names = {entry.name.partition(".")[0] for entry in here if entry.name not in there}
    names = {name for name in names if name.isidentifier()} - {"qwen_audio", "__pycache__"}
    assert "pytest" in names
    return f"importable({sorted(names)}) -> "


@pytest.mark.slow
@pytest.mark.parametrize(
    "extra", [extra for chain in CHAINS for extra in chain], ids=lambda extra: extra or "none"
)
def test_everything_works_or_names_the_extra(
    extra: str, outcomes: dict[str, Outcomes], environments: dict[str, Environment]
) -> None:
    needed = refused(extra)
    for step, outcome in outcomes[extra].items():
        if step in needed:
            check_names_extra(step, needed[step], outcome)
        else:
            check_works(step, outcome)
    tried = set(outcomes[extra])
    assert tried >= {*filter(is_command, needed), *steps_to_run(extra, environments)}
    assert extra in STARTED_WITHOUT_TORCH or tried >= needed.keys()


def check_works(step: str, outcome: Any) -> None:
    """Assert that a command succeeded, or that an expression has the value."""
    if not is_command(step):
        assert outcome == step.partition(" -> ")[2], step
        return
    assert outcome["status"] == 0, (step, outcome)
    if step.startswith("$ play"):
        shown = r"The playground is open at \S+ \(Ctrl-C closes it\)\nTrue\n"
        assert re.fullmatch(shown, outcome["output"]), outcome
    if step == "$ serve":
        shown = r"The model is served at \S+ \(Ctrl-C stops the server\)\nTrue\n"
        assert re.fullmatch(shown, outcome["output"]), outcome


def check_names_extra(step: str, extra: str, outcome: Any) -> None:
    """Assert that it ended in one line that names an extra, before loading or writing anything."""
    command = re.escape(f"pip install 'qwen-audio-playground[{extra}]'")
    if not is_command(step):
        assert re.fullmatch(rf"MissingExtraError: .+: (uv )?{command}", outcome), (step, outcome)
        return
    error = outcome.pop("error")
    assert re.fullmatch(rf"qwen-audio: .+: (uv )?{command}\n", error), (step, error)
    assert outcome == {"status": 1, "output": "", "written": [], "torch": False}, step


@pytest.mark.slow
def test_environments_of_a_chain_grow(environments: dict[str, Environment]) -> None:
    for chain in CHAINS:
        sizes = [environments[extra].distributions for extra in chain]
        assert all(one < next_one for one, next_one in itertools.pairwise(sizes)), chain


@pytest.mark.slow
def test_all_is_every_extra(environments: dict[str, Environment]) -> None:
    assert environments["all"].distributions == set().union(
        *(environments[extra].distributions for extra in EXTRAS)
    )


def commands(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The names of all commands, also of actions such as `collection info`."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from [f"{name} {inner}" for inner in commands(child)] or [name]


def test_every_command_and_every_extra_is_tried() -> None:
    steps = [step for steps in STEPS.values() for step in steps]
    tried = [f"{step} " for step in steps if step not in REFUSED_ONLY]
    for name in commands(build_parser()):
        assert any(step.startswith(f"$ {name} ") for step in tried), name
    assert set(steps) >= REFUSED_ONLY
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {*EXTRAS, "all", *OUTSIDE_ALL} == {*project["optional-dependencies"]}
    assert {*EXTRAS, "", *OUTSIDE_ALL} == {
        extra for names, _ in STEPS for extra in names.split(",")
    }
    assert sorted(extra for chain in CHAINS for extra in chain) == sorted(["", "all", *EXTRAS])


def test_the_readme_says_what_works_without_extras() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (sentence,) = re.findall(r"The first command installs no extras: (.*?)\.", readme, re.S)
    bare = {
        step.split()[1] for key in STEPS if not key[0] for step in STEPS[key] if is_command(step)
    }
    assert set(re.findall(r"`(\w+)`", sentence)) == bare


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(site: Path) -> None:
    source = {path.relative_to(SOURCE.parent) for path in SOURCE.rglob("*") if path.is_file()}
    source = {path for path in source if "__pycache__" not in path.parts}
    source |= {
        Path("qwen_audio/examples", path.name)
        for path in (ROOT / "examples").iterdir()
        if path.suffix in (".flac", ".md")
    }
    assert {Path("qwen_audio", name) for name in PACKAGE_DATA} <= source
    (wheel,) = site.parent.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        files = {Path(name) for name in archive.namelist()}
    metadata = {path for path in files if path.parts[0].endswith(".dist-info")}
    assert files - metadata == source
    assert {"METADATA", "entry_points.txt", "LICENSE", "NOTICE"} <= {path.name for path in metadata}
