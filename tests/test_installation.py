"""The wheel, installed alone and with each extra alone: everything works, or names what to install.

In every environment all that needs something missing is tried first, which must load and write
nothing, and then all that its own extra is for.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import socket
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import qwen_audio as qa
from environments import (
    ROOT,
    link_distributions,
    make_environment,
    required_distributions,
    unpack_wheel,
    wheel_metadata,
)
from qwen_audio.cli.main import build_parser
from recordings import sound, write_wav

SOURCE = Path(qa.__file__).parent
PROGRAM = Path(__file__).parent / "installed.py"
RATE = 16_000

STEPS: dict[tuple[str, str], tuple[str, ...]] = {
    ("", ""): (
        "$ describe tones/0.wav",
        "$ encode tones/0.wav -o v.npz",
        "$ encode tones/0.wav -o v.safetensors",
        "$ inspect tones/0.wav",
        "$ taps",
        "$ parity --audio tones/0.wav -o parity.json",
        "$ lens tones/0.wav",
        "$ lens tones/0.wav -o lens.csv",
        "$ plot tones/0.wav -o plot.json",
        "$ plot --layers tones/0.wav tones/1.wav -o layers.npz",
        "[getattr(qa, name) for name in qa.__all__] -> list",
        "qa.plot('a.wav') -> OptionError: str can't be plotted: give a result of `view`, `lens`, "
        "`layer_similarity` or `Comparison.of`",
    ),
    ("parquet", "pyarrow"): ("$ encode tones/0.wav -o v.parquet",),
    ("plot", "matplotlib"): (
        "$ lens tones/0.wav -o lens.svg",
        "$ plot tones/0.wav",
        "$ plot --layers tones/0.wav tones/1.wav -o layers.pdf",
        "qa.plot(view()) -> Figure",
        "qa.save_plot(view(), 'view.png') -> PosixPath",
    ),
    ("plot", "plotly"): (
        "$ lens tones/0.wav -o lens.html",
        "$ plot tones/0.wav --html",
        "qa.plot_interactive(view()) -> Figure",
        "qa.save_plot(view(), 'view.html') -> PosixPath",
    ),
    ("collections", "lancedb pyarrow"): (
        "$ index tones --into c.lance --describe",
        "$ search c.lance --audio tones/0.wav",
        "$ search c.lance --text music",
        "$ search c.lance --id tones/0.wav",
        "$ collection info c.lance",
        "$ collection list c.lance",
        "$ collection failures c.lance",
        "$ collection prune c.lance",
        "$ collection verify c.lance --sample 1",
        "$ collection export c.lance -o c.parquet",
        "$ collection export c.lance -o c.npz",
        "qa.Collection.open('c.lance') -> Collection",
        "qa.Collection('c.lance') -> OptionError: Collection('c.lance'): use Collection.open for "
        "one that exists, and Collection.create for a new one",
        "qa.Collection.create('new.lance', qa.load()) -> Collection",
    ),
    ("datasets", "datasets lancedb"): ("$ collection export c.lance -o dataset",),
    ("map", "plotly lancedb"): (
        "$ map c.lance",
        "qa.Projection('', 'pca', no_points(), (), ()).write_html('p.html') -> MapPage",
    ),
    ("probe", "sklearn scipy pandas matplotlib plotly"): (
        "$ probe labels.csv --tap mel --folds 2 --probe knn",
        "qa.probe('labels.csv', taps=['mel'], folds=2, probes=['knn']) -> DataFrame",
    ),
    ("playground", "gradio matplotlib"): ("$ play --port {port}",),
    ("playground,collections", "gradio matplotlib lancedb"): (
        "$ play --collection c.lance --port {port}",
    ),
    ("mteb", "mteb"): ("module('integrations.mteb') -> module",),
}
"""What needs an extra and its modules: commands, and expressions with the type of their value, or
their error."""

TRIED_WITHOUT = {
    "$ plot tones/0.wav",
    "$ plot tones/0.wav --html",
    "$ plot --layers tones/0.wav tones/1.wav -o layers.pdf",
    "qa.save_plot(view(), 'view.png') -> PosixPath",
    "qa.probe('labels.csv', taps=['mel'], folds=2, probes=['knn']) -> DataFrame",
}
"""Steps tried only where they need something missing: they are slow, and others are like them."""

EXTRAS = ("", "collections", "datasets", "map", "parquet", "playground", "plot", "probe")
"""Those tried: none, and each that the test tools include."""


def lacks(extra: str, packages: list[Path]) -> list[str]:
    """The steps for which these folders of packages lack a module; expressions in the base only."""
    names = {entry.name for folder in packages for entry in folder.iterdir()}
    return [
        step
        for (_, modules), steps in STEPS.items()
        for step in steps
        if not names.issuperset(modules.split()) and (step[0] == "$" or not extra)
    ]


def own_steps(extra: str) -> list[str]:
    """The steps that an extra is for."""
    mine = [step for (needed, _), steps in STEPS.items() if needed == extra for step in steps]
    return [step for step in mine if step not in TRIED_WITHOUT]


def call(step: str, port: int) -> str | list[str]:
    """A step as installed.py takes it: the arguments of a command, or an expression."""
    text = step.partition(" -> ")[0].replace("{port}", str(port))
    return shlex.split(text[2:]) if step[0] == "$" else text


def make_folder(folder: Path) -> Path:
    """A working directory with recordings of two classes."""
    (folder / "tones").mkdir(parents=True)
    rows = ["source,class"]
    for number in range(4):
        recording = write_wav(sound(0.4, RATE, seed=number), RATE)
        (folder / "tones" / f"{number}.wav").write_bytes(recording)
        rows.append(f"tones/{number}.wav,{'ab'[number % 2]}")
    (folder / "labels.csv").write_text("\n".join(rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel, unpacked."""
    return unpack_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def outcomes(site: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What every step did, by extra: first all that lack something, then the extra's own."""
    root = tmp_path_factory.mktemp("environments")
    python, base = make_environment(root / "base", site)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    plans: dict[str, tuple[list[str], list[str]]] = {}
    calls: tuple[list[Any], list[Any]] = ([], [])
    for extra in EXTRAS:
        needed = required_distributions(wheel_metadata(site), extra)
        packages = link_distributions(root / f"{extra}.extra" / "site-packages", needed)
        folder = make_folder(root / f"{extra}.work")
        if extra in ("datasets", "map"):  # which need no model, but a collection
            (folder / "c.lance").symlink_to(root / "collections.work" / "c.lance")
        lacking = lacks(extra, [base, packages])
        commands = [step for step in lacking if step[0] == "$"]
        plans[extra] = commands, [*own_steps(extra), *(s for s in lacking if s[0] != "$")]
        for steps, stage in zip(plans[extra], calls, strict=True):
            stage.append([str(packages), str(folder), [call(step, port) for step in steps]])
    done = subprocess.run(
        [python, "-I", PROGRAM],
        input=json.dumps(calls),
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, dict[str, Any]] = {extra: {} for extra in EXTRAS}
    for stage_number, stage_outcomes in enumerate(json.loads(done.stdout)):
        for extra, results in zip(EXTRAS, stage_outcomes, strict=True):
            found[extra] |= zip(plans[extra][stage_number], results, strict=True)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("extra", EXTRAS)
def test_everything_works_or_names_the_extra(
    extra: str, outcomes: dict[str, dict[str, Any]]
) -> None:
    own = own_steps(extra)
    assert own
    assert len(outcomes[extra]) > len(own)
    needed = {step: key[0] for key, steps in STEPS.items() for step in steps}
    for step, outcome in outcomes[extra].items():
        if step in own:
            check_works(step, outcome)
        else:
            check_names_extra(step, needed[step], outcome)


def check_works(step: str, outcome: Any) -> None:
    """Assert that a command succeeded, or that an expression's value has the type."""
    if step[0] != "$":
        assert outcome == step.partition(" -> ")[2], step
        return
    assert outcome["status"] == 0, (step, outcome)
    if step.startswith("$ play"):
        shown = r"The playground is open at \S+ \(Ctrl-C closes it\)\n[1-9]\d* times its name\n"
        assert re.fullmatch(shown, outcome["output"]), outcome


def check_names_extra(step: str, extra: str, outcome: Any) -> None:
    """Assert that it ended in one line that names an extra, before loading or writing anything."""
    command = f"pip install 'qwen-audio-playground[{extra}]'"
    if step[0] != "$":
        assert (outcome[:19], outcome[-len(command) :]) == ("MissingExtraError: ", command), step
        return
    error = outcome.pop("error")
    assert outcome == {"status": 1, "output": "", "written": [], "torch": False}, step
    assert re.fullmatch(f"qwen-audio: .+{re.escape(command)}\n", error), (step, error)


def commands(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The names of all commands, also of actions such as `collection info`."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from [f"{name} {inner}" for inner in commands(child)] or [name]


def test_every_command_and_every_extra_is_tried() -> None:
    tried = " ".join(step for steps in STEPS.values() for step in steps)
    assert [name for name in commands(build_parser()) if f"$ {name} " not in f"{tried} "] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {*EXTRAS, "all", "mteb"} == {"", *project["optional-dependencies"]}


@pytest.mark.slow
def test_the_wheel_holds_all_files(site: Path) -> None:
    source = {path.relative_to(SOURCE) for path in SOURCE.rglob("*") if path.is_file()}
    packed = {path.relative_to(site / "qwen_audio") for path in site.rglob("qwen_audio/**/*")}
    assert {path for path in source if "__pycache__" not in path.parts} <= packed
    examples = (ROOT / "examples").glob("*.flac")
    assert {Path("playground/examples", path.name) for path in examples} <= packed
