"""Which family a config.json is of."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest

import qwen_audio
from qwen_audio.errors import CheckpointError
from qwen_audio.models import registry
from qwen_audio.models.registry import FAMILIES, family_entry

SOURCE = Path(qwen_audio.__file__).parent


@pytest.mark.parametrize("entry", FAMILIES, ids=[entry.title for entry in FAMILIES])
def test_an_entry_is_its_family(entry: registry.FamilyEntry) -> None:
    family = entry.load()
    used = family.transformers_class.__name__.replace("ThinkerFor", "For")  # of a whole model
    assert (family.title, used) == (entry.title, entry.architecture)
    for kind in entry.model_types:
        settings = {"model_type": kind, "architectures": [entry.architecture]}
        assert family_entry(settings, "x") is entry


def test_architectures_decide_where_a_model_type_is_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = FAMILIES[0], replace(FAMILIES[0], architecture="Other")
    monkeypatch.setattr(registry, "FAMILIES", (first, second))
    kind = first.model_types[0]
    for architectures, expected in ((["Other"], second), (None, first), (["X"], first)):
        assert family_entry({"model_type": kind, "architectures": architectures}, "x") is expected
    with pytest.raises(CheckpointError, match="is of type 'x'; only"):
        family_entry({"model_type": "x", "architectures": ["Other"]}, "m")


def test_only_families_import_transformers_models() -> None:
    """All other modules ask the family of a checkpoint."""
    for path in SOURCE.rglob("*.py"):
        if path.parent.name == "families":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            assert not any(
                name.startswith(("transformers.models.", "qwen_audio.models.families."))
                or (name.startswith("transformers.") and name.endswith("ForConditionalGeneration"))
                for name in names
            ), path
