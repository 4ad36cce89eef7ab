"""The house: what is public, in which order rooms import each other, and what importing costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import qwen_audio as qa

SOURCE = Path(qa.__file__).parent
ARCHITECTURE = Path(__file__).parent.parent / "docs" / "architecture.md"
HEAVY = {"torch", "transformers", "av", "soxr", "rich", "numpy", "lancedb", "pyarrow", "fsspec"}
HEAVY |= {"gradio", "matplotlib", "plotly", "umap", "sklearn", "scipy", "pandas"}


def test_public_names() -> None:
    assert set(qa.__all__) == {
        "Answer",
        "AudioError",
        "CheckpointError",
        "Collection",
        "CollectionError",
        "Comparison",
        "Plan",
        "Description",
        "Followed",
        "Frames",
        "Geometry",
        "Hit",
        "Inspection",
        "Layers",
        "Lens",
        "Listening",
        "LogMel",
        "Map",
        "MissingExtraError",
        "OptionError",
        "QwenAudio",
        "QwenAudioError",
        "Span",
        "Spec",
        "Stage",
        "Tap",
        "TapError",
        "View",
        "Waveform",
        "Window",
        "__version__",
        "chart",
        "draw",
        "load",
        "load_waveform",
        "picture",
        "probe",
    }
    for name in qa.__all__:
        assert getattr(qa, name) is not None
    assert set(qa.__all__) <= set(dir(qa))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = qa.no_such_name


@pytest.mark.parametrize(
    "statement",
    [
        "import qwen_audio",
        "from qwen_audio import Tap, Spec, QwenAudioError",
        "import qwen_audio.cli; qwen_audio.cli.main(['--version'])",
        "import qwen_audio.cli; qwen_audio.cli.main(['describe', '--help'])",
        "import qwen_audio.cli; qwen_audio.cli.main(['index', '--help'])",
        "import qwen_audio.cli; qwen_audio.cli.main(['probe', '--help'])",
        "import qwen_audio.cli; qwen_audio.cli.main(['play', '--help'])",
    ],
)
def test_importing_and_helping_load_no_torch(statement: str) -> None:
    heavy = {"torch", "transformers"} if "Spec" in statement else HEAVY
    program = (
        f"import sys\ntry:\n    {statement}\nexcept SystemExit:\n    pass\n"
        f"assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def rooms() -> list[str]:
    """The modules in the order of the architecture page, those of a subpackage by its name."""
    page = ARCHITECTURE.read_text(encoding="utf-8")
    block = page.split("src/qwen_audio/\n")[1].split("    tests/")[0]
    found, folder, deeper = [], "", len("      ") + 2
    for line in block.splitlines():
        name = line.split()[0]
        if name.endswith("/"):
            folder = name
        elif name.endswith(".py"):
            inside = folder if line.startswith(" " * deeper) else ""
            found.append(inside + name.removesuffix(".py"))
    return found


def modules() -> dict[str, Path]:
    """As the page names them; a subpackage's own __init__.py holds nothing."""
    found = {str(path.relative_to(SOURCE).with_suffix("")): path for path in SOURCE.rglob("*.py")}
    return {name: path for name, path in found.items() if not name.endswith("/__init__")}


def imported(path: Path) -> Iterator[str]:
    """The rooms that a module imports from."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.level == 1:
                inside = "" if path.parent == SOURCE else f"{path.parent.name}/"
                yield inside + node.module.replace(".", "/")
            elif node.module.startswith("qwen_audio."):
                yield node.module.removeprefix("qwen_audio.").replace(".", "/")


def test_every_module_has_its_place_on_the_architecture_page() -> None:
    assert sorted(rooms()) == sorted(modules())


def test_a_room_imports_only_from_the_rooms_above_it() -> None:
    order = {name: place for place, name in enumerate(rooms())}
    for name, path in modules().items():
        if name != "__init__":
            for other in imported(path):
                assert order[other] < order[name], f"{name} imports {other}"


def test_no_module_prints_but_the_command_line() -> None:
    for path in SOURCE.rglob("*.py"):
        calls = [
            node
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "print"
        ]
        assert not calls or path.stem == "terminal", path.stem
