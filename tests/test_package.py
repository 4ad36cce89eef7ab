"""The package: public names, order of imports between packages, cost of importing."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import TypeCheckError

import qwen_audio as qa
from qwen_audio.analysis.structure import standardised

SOURCE = Path(qa.__file__).parent
ARCHITECTURE = Path(__file__).parent.parent / "docs" / "architecture.md"
HEAVY = {"torch", "transformers", "av", "soxr", "rich", "numpy", "lancedb", "pyarrow", "fsspec"}
HEAVY |= {"fastapi", "gradio", "matplotlib", "plotly", "umap", "sklearn", "scipy", "pandas", "ray"}


def test_public_names() -> None:
    assert set(dir(qa)) == {
        "Answer",
        "AttentionWeights",
        "AudioError",
        "AudioWarning",
        "CheckpointError",
        "Classification",
        "Collection",
        "CollectionError",
        "DecodeLimits",
        "Comparison",
        "CostEstimate",
        "Description",
        "Direction",
        "Trace",
        "direction",
        "edits",
        "Embeddings",
        "TrackedToken",
        "HiddenStates",
        "ModelDimensions",
        "SearchResult",
        "SearchResults",
        "ShapeTrace",
        "LayerSimilarity",
        "LogitLens",
        "AudioSession",
        "LogMel",
        "Projection",
        "MissingExtraError",
        "OptionError",
        "OutOfMemoryError",
        "ActivationDataset",
        "AudioAblation",
        "Occlusion",
        "AudioModel",
        "RemoteModel",
        "connect",
        "QwenAudioError",
        "Reliability",
        "ScoreWarning",
        "Scores",
        "Span",
        "EmbeddingSpec",
        "Stage",
        "Tap",
        "TapError",
        "find_files",
        "View",
        "Waveform",
        "Window",
        "__version__",
        "plot_interactive",
        "save_embeddings",
        "save_plot",
        "load",
        "load_waveform",
        "map_dataset",
        "plot",
        "probe",
        "quantize_checkpoint",
    }
    for name in dir(qa):
        assert getattr(qa, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = qa.no_such_name


@pytest.mark.slow
@pytest.mark.parametrize(
    "statement",
    [
        "import qwen_audio",
        "from qwen_audio import Tap, EmbeddingSpec, QwenAudioError",
        "import qwen_audio.cli.main; qwen_audio.cli.main.main(['--version'])",
        "import qwen_audio.cli.main; qwen_audio.cli.main.main(['describe', '--help'])",
        "import qwen_audio.cli.main; qwen_audio.cli.main.main(['index', '--help'])",
        "import qwen_audio.cli.main; qwen_audio.cli.main.main(['probe', '--help'])",
        "import qwen_audio.cli.main; qwen_audio.cli.main.main(['play', '--help'])",
        "import qwen_audio.cli.main; qwen_audio.cli.main.main(['serve', '--help'])",
    ],
)
def test_import_and_help_load_no_torch(statement: str) -> None:
    heavy = {"torch", "transformers"} if "EmbeddingSpec" in statement else HEAVY
    program = (
        f"import sys\ntry:\n    {statement}\nexcept SystemExit:\n    pass\n"
        f"assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def packages() -> list[str]:
    """The entries of src/qwen_audio in the order of the architecture page."""
    page = ARCHITECTURE.read_text(encoding="utf-8")
    block = page.split("src/qwen_audio/\n")[1].split("    tests/")[0]
    names = re.findall(r"^ {6}([a-z_]+)(?:/|\.py)", block, re.MULTILINE)
    return [name for name in names if name != "__init__"]


def modules() -> dict[str, Path]:
    """Dotted name below qwen_audio → file; packages by their own names."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imported(name: str, path: Path) -> Iterator[str]:
    """The modules that a module imports, at its top or inside functions."""
    known = modules()
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*parents, *filter(None, [node.module])])
        elif (node.module or "").split(".")[0] == "qwen_audio":
            base = (node.module or "").removeprefix("qwen_audio").removeprefix(".")
        else:
            continue
        for alias in node.names:
            inner = f"{base}.{alias.name}".removeprefix(".")
            yield inner if inner in known else base


def test_every_package_is_on_the_architecture_page() -> None:
    entries = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py"}
    entries |= {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert sorted(packages()) == sorted(entries - {"__init__"})
    assert len(set(packages()) - {"__main__"}) <= 14


@pytest.mark.slow
def test_a_package_imports_only_from_packages_above_it() -> None:
    order = {name: position for position, name in enumerate(packages())}
    for name, path in modules().items():
        if name:
            for other in filter(None, imported(name, path)):
                package, other_package = name.split(".")[0], other.split(".")[0]
                assert order[other_package] <= order[package], f"{name} imports {other}"


@pytest.mark.slow
def test_no_import_cycles() -> None:
    graph = {name: set(imported(name, path)) - {name} for name, path in modules().items() if name}
    TopologicalSorter(graph).prepare()  # raises CycleError, naming the modules


def test_servers_share_what_needs_no_web_framework() -> None:
    for path in (SOURCE / "serve").glob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        names = {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
        names |= {
            name.name for node in nodes if isinstance(node, ast.Import) for name in node.names
        }
        packages_imported = {name.split(".")[0] for name in names}
        is_route = path.stem in ("app", "service") or path.stem.endswith(("_route", "_routes"))
        assert is_route or not packages_imported & {"fastapi", "starlette", "gradio"}, path
        assert "uvicorn" not in packages_imported or path.stem in ("connections", "server"), path


def test_modules_have_at_most_300_lines() -> None:
    for name, path in modules().items():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 300, name


def test_only_the_command_line_prints() -> None:
    for path in SOURCE.rglob("*.py"):
        calls = [
            node
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "print"
        ]
        assert not calls or path.stem == "console", path.stem


def test_shapes_are_checked_in_tests() -> None:
    """In every module with tensors, as conftest.py asks: here, in one of them."""
    with pytest.raises(TypeCheckError, match="standardised"):
        standardised(np.zeros(3))
