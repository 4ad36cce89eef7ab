"""Environments with the built wheel and the distributions that its extras need, and no others.

They are made without network: what is needed is linked from the environment that runs the tests.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent


def unpack_wheel(folder: Path) -> Path:
    """Build the package's wheel and unpack it in a new folder, as installers do."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def wheel_metadata(site: Path) -> Distribution:
    """The metadata of an unpacked wheel."""
    (info,) = site.glob("*.dist-info")
    return PathDistribution(info)


def make_environment(folder: Path, site: Path) -> tuple[Path, Path]:
    """A virtual environment with an unpacked wheel and what it depends on.

    Returns:
        Its Python, and the folder of its packages.
    """
    venv.create(folder, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    for entry in site.iterdir():
        (packages / entry.name).symlink_to(entry)
    link_distributions(packages, required_distributions(wheel_metadata(site)))
    return folder / "bin" / "python", packages


def link_distributions(packages: Path, distributions: Iterable[Distribution]) -> Path:
    """Add installed distributions to a folder of packages, which is returned."""
    packages.mkdir(parents=True, exist_ok=True)
    for installed in distributions:
        for name in {file.parts[0] for file in installed.files or ()} - {"..", "__pycache__"}:
            link = packages / name
            if not link.exists():  # several share `nvidia`
                link.symlink_to(str(installed.locate_file(name)))
    return packages


def required_distributions(package: Distribution, extra: str = "") -> Iterator[Distribution]:
    """The installed distributions that a package with one of its extras needs, directly or not.

    Raises:
        PackageNotFoundError: if one of them isn't installed here.
    """
    own_name = canonical(package.metadata["Name"])
    seen: set[tuple[str, str]] = set()
    waiting = [(package, ""), *([(package, extra)] if extra else [])]
    while waiting:
        dependent, chosen = waiting.pop()
        for line in dependent.requires or ():
            requirement = Requirement(line)
            if requirement.marker and not requirement.marker.evaluate({"extra": chosen}):
                continue
            name = canonical(requirement.name)
            needed = package if name == own_name else None
            for wanted in ("", *requirement.extras):
                if (name, wanted) not in seen:
                    seen.add((name, wanted))
                    needed = needed or distribution(name)
                    waiting.append((needed, wanted))
                    if not wanted and needed is not package:
                        yield needed


def canonical(name: str) -> str:
    """A distribution's name as it is compared."""
    return re.sub(r"[-_.]+", "-", name).lower()
