"""Dependencies and extras: exactly what the code of each imports, everywhere by the same names."""

from __future__ import annotations

import ast
import functools
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import qwen_audio as qa
from environments import canonical
from qwen_audio import errors

ROOT = Path(__file__).parent.parent
SOURCE = Path(qa.__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]

SHARED_BY_SERVERS = tuple(
    f"serve.{name}"
    for name in (
        *("asgi", "body", "connections", "decoding", "hosts", "json_body", "limits", "listen"),
        *("middleware", "server"),
    )
)
"""What the playground uses of `serve`."""

CODE = {
    "collections": (
        *("collection.engines.engine", "collection.engines.local"),
        *(
            f"collection.{path.stem}"
            for path in (SOURCE / "collection").glob("*.py")
            if path.stem not in ("dimension_reduction", "export", "map_page", "projection")
        ),
    ),
    "datasets": ("collection.export", "api.activation_dataset"),
    "int4": ("weights.llvm_vectors", "weights.compiled_int4"),
    "map": tuple(
        f"collection.{name}" for name in ("dimension_reduction", "map_page", "projection")
    ),
    "lm-eval": ("integrations.lm_eval",),
    "mteb": ("integrations.mteb",),
    "pandas": ("inference.data_frame",),
    "parquet": ("api.export", "api.vector_reader"),
    "playground": ("playground", *SHARED_BY_SERVERS, "analysis.plots.matplotlib_renderer"),
    "plot": ("analysis.plots",),
    "probe": ("probing", "analysis.plots"),
    "ray": (
        *("collection.engines.ray", "collection.engines.ray_cluster"),
        *("collection.engines.ray_pool", "collection.engines.ray_worker"),
        "integrations.ray_dataset",
    ),
    "serve": ("serve",),
    "xarray": ("inference.data_array",),
}
"""The modules and packages that each extra is for."""

DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn", "umap": "umap-learn"}
"""Distributions that aren't called what is imported."""

INDIRECT = {"jinja2"}
"""Dependencies that are imported by another one, and only for this package: chat templates."""


def imports(path: Path) -> Iterator[str]:
    """The distributions that a module imports anywhere but for type checkers."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting.extend(node.orelse)
            continue
        waiting.extend(ast.iter_child_nodes(node))
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        for name in {name.partition(".")[0] for name in names}:
            if name not in {*sys.stdlib_module_names, "qwen_audio"}:
                yield canonical(DISTRIBUTIONS.get(name, name))


def module_name(path: Path) -> str:
    """A module's name below qwen_audio; "" for the package itself."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@functools.cache
def imports_of_modules() -> dict[str, set[str]]:
    """Module → the distributions that it imports."""
    return {module_name(path): set(imports(path)) for path in SOURCE.rglob("*.py")}


def is_in(module: str, code: Iterable[str]) -> bool:
    """Whether it is one of these modules, or in one of these packages."""
    return any(f"{module}.".startswith(f"{name}.") for name in code)


def declared(requirements: list[str]) -> set[str]:
    """The distributions that requirements name, those of the package's own extras included."""
    names = set()
    for requirement in requirements:
        name = canonical(re.split(r"[<>=~\[ ]", requirement)[0])
        if name == PROJECT["project"]["name"]:
            for extra in re.findall(r"[\w-]+", requirement.partition("[")[2]):
                names |= declared(EXTRAS[extra])
        else:
            names.add(name)
    return names


BASE = declared(PROJECT["project"]["dependencies"])


@pytest.mark.parametrize("extra", CODE)
def test_an_extra_declares_what_its_code_imports(extra: str) -> None:
    modules = imports_of_modules().items()
    imported = set().union(*(names for module, names in modules if is_in(module, CODE[extra])))
    included = declared([line for line in EXTRAS[extra] if line.startswith("qwen-audio")])
    assert declared(EXTRAS[extra]) == (imported - BASE) | included


def test_the_dependencies_are_what_all_other_code_imports() -> None:
    special = {name for code in CODE.values() for name in code}
    others = [names for module, names in imports_of_modules().items() if not is_in(module, special)]
    assert set().union(*others) | INDIRECT == BASE


def test_one_extra_has_all_but_adapters_for_benchmarks_and_clusters() -> None:
    assert declared(EXTRAS["all"]) == set().union(
        *(
            declared(lines)
            for extra, lines in EXTRAS.items()
            if extra not in ("all", "lm-eval", "mteb", "ray")
        )
    )
    tools = declared(PROJECT["dependency-groups"]["dev"])
    assert declared(EXTRAS["all"]) - BASE <= tools  # so that tests have them
    assert set(CODE) | {"all"} == set(EXTRAS)


def test_every_extra_that_is_named_is_declared() -> None:
    """By the code, in brackets and as an argument of `check_extra`, and by the documentation."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.*")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in pages if path.suffix != ".flac")
    named = set(re.findall(r"extras? `\[?([\w-]+)\]?`", text))
    for group in re.findall(r"playground\[([\w,-]+)\]|`\[([\w,-]+)\]`", text):
        named |= set("".join(group).split(","))
    named |= set(re.findall(r"--extra ([\w-]+)", text))
    for path in SOURCE.rglob("*.py"):
        for group in re.findall(r"extra \[([\w,-]+)\]", path.read_text("utf-8")):
            named |= set(group.split(","))
        for group in re.findall(r'check_extra\(\s*"[^"]+", "([\w,-]+)"', path.read_text("utf-8")):
            named |= set(group.split(","))
    assert named == set(EXTRAS)


def test_the_readme_says_what_every_extra_is_for() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^\| extra \|.*?\n\n", readme, re.M | re.S)
    assert set(re.findall(r"^\| `([\w-]+)`", table, re.M)) == set(EXTRAS)


def test_the_message_names_the_installer_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module, command in ((None, "uv pip install"), (errors, "pip install")):
        monkeypatch.setitem(sys.modules, "pip", module)
        message = str(errors.MissingExtraError("a map", "map"))
        assert message == (
            "a map needs the extra [map], which is not installed: "
            f"{command} 'qwen-audio-playground[map]'"
        )


def test_a_folder_of_the_same_name_is_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "some_recordings").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(errors.MissingExtraError, match=r"\[datasets\]"):
        errors.check_extra("a dataset's folder", "datasets", "some_recordings")
