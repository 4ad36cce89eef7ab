"""Environments with the built wheel and the distributions that one of its extras needs, no others.

They are made without network: what is needed is linked from the environment that runs the tests.
`run_process` runs steps in them by `installed.py`. A step is a command, "$ taps", or an expression
and what it gives, "qa.load() -> AudioModel".
"""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Sequence
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROGRAM = Path(__file__).parent / "installed.py"
PROCESS_SECONDS = 240
"""Until a process hangs. A step that hangs ends it sooner."""

Outcomes = dict[str, Any]
"""By step: a command's status, output and so on, or what an expression gave."""


BUILD = """
import sys, zlib
zlib.Z_DEFAULT_COMPRESSION = 0  # the same files, two seconds sooner
from hatchling.build import build_wheel
build_wheel(sys.argv[1])
"""


def unpack_wheel(folder: Path) -> Path:
    """Build the package's wheel and unpack it in a new folder, as installers do."""
    command = [sys.executable, "-c", BUILD, str(folder)]
    built = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, timeout=200)
    assert built.returncode == 0, built.stderr.decode()
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def wheel_metadata(site: Path) -> Distribution:
    """The metadata of an unpacked wheel."""
    (info,) = site.glob("*.dist-info")
    return PathDistribution(info)


class Environment(NamedTuple):
    """A virtual environment: its Python, its folder of packages, and the distributions in it."""

    python: Path
    packages: Path
    distributions: set[str]


def make_environment(folder: Path, site: Path, extra: str) -> Environment:
    """Make an environment with an unpacked wheel and what it and an extra ("": none) depend on."""
    venv.create(folder, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    for entry in site.iterdir():
        (packages / entry.name).symlink_to(entry)
    distributions = required_distributions(wheel_metadata(site), extra)
    for name in distributions:
        for entry in entries(name):
            link = packages / entry.name
            if not link.is_symlink():  # several share a namespace, such as `nvidia`
                link.symlink_to(entry)
    return Environment(folder / "bin" / "python", packages, distributions)


@functools.cache
def entries(name: str) -> list[Path]:
    """The files and folders of an installed distribution beside which others are installed."""
    installed = distribution(name)
    names = {file.parts[0] for file in installed.files or ()} - {"..", "__pycache__"}
    return [Path(str(installed.locate_file(entry))) for entry in sorted(names)]


def required_distributions(package: Distribution, extra: str) -> set[str]:
    """Names of the distributions that a package with an extra ("": none) needs, directly or not."""
    own_name = canonical(package.metadata["Name"])
    seen = {(own_name, ""), (own_name, extra)}
    waiting = [*seen]
    while waiting:
        name, chosen = waiting.pop()
        lines = tuple(package.requires or ()) if name == own_name else requires(name)
        needed = requirements(lines, chosen)
        waiting.extend(needed - seen)
        seen |= needed
    return {name for name, _ in seen} - {own_name}


@functools.cache
def requires(name: str) -> tuple[str, ...]:
    """The lines of an installed distribution's requirements."""
    return tuple(distribution(name).requires or ())


@functools.cache
def requirements(lines: tuple[str, ...], extra: str) -> frozenset[tuple[str, str]]:
    """What lines of requirements ask for: names of distributions, each without and with extras."""
    found = set()
    for requirement in map(Requirement, lines):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            found |= {(canonical(requirement.name), chosen) for chosen in ("", *requirement.extras)}
    return frozenset(found)


def canonical(name: str) -> str:
    """A distribution's name as it is compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def is_command(step: str) -> bool:
    return step.startswith("$")


def call(step: str) -> str | list[str]:
    """A step as installed.py takes it: the arguments of a command, or an expression."""
    text = step.partition(" -> ")[0]
    return shlex.split(text[2:]) if is_command(text) else text


Stage = tuple[Environment, Path, Sequence[str]]
"""An environment, a working directory, and the steps that are run there."""


def run_process(stages: Sequence[Stage], folder: Path) -> list[Outcomes]:
    """What the steps of every stage do in one process, which begins in the first environment."""
    plan = [[str(e.packages), str(work), [*map(call, steps)]] for e, work, steps in stages]
    calls, log, found = folder / "calls.json", folder / "log.txt", folder / "outcomes.jsonl"
    calls.write_text(json.dumps(plan), encoding="utf-8")
    command = [str(stages[0][0].python), "-I", str(PROGRAM), str(found)]
    variables = {name: value for name, value in os.environ.items() if name[:6] != "PYTHON"}
    status: object
    with calls.open() as stdin, log.open("w") as output:  # no pipes, which a thread may keep open
        try:
            status = subprocess.run(
                command,
                stdin=stdin,
                stdout=output,
                stderr=output,
                env=variables,
                timeout=PROCESS_SECONDS,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired as error:
            status = error
    lines = found.read_text(encoding="utf-8").splitlines() if found.exists() else []
    steps = [step for stage in stages for step in stage[2]]
    stopped_at = steps[len(lines)] if len(lines) < len(steps) else "the end"
    assert status == 0, f"{stopped_at}: {status}\n{log.read_text(errors='replace')}"
    outcomes = iter([json.loads(line) for line in lines])
    return [dict(zip(steps, outcomes, strict=False)) for _, _, steps in stages]
