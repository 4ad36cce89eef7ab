"""Results as JSON, as one table, and as a chart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .benchmark import Result, Settings
from .chart import chart
from .machine import machine, versions

__all__ = ["show", "write", "write_overview"]


def write(path: Path, result: Result, settings: Settings) -> None:
    """One benchmark's result. It holds no date: the same machine should write the same file."""
    ratio, target = result.ratio, result.target
    record = {
        "what": result.what,
        "ratio": ratio,
        "unit": target.unit,
        "target": str(target),
        "bound": target.bound,
        **({"conditions": dict(result.conditions)} if result.conditions else {}),
        "met": target.met(ratio) and all(result.conditions.values()),
        "figures": result.figures,
        "dtype": result.dtype,
        "turns": settings.turns,
        "machine": machine(settings.threads),
        "versions": versions(*result.packages),
        **({"dry_run": True} if settings.quick else {}),
    }
    path.write_text(
        json.dumps(_rounded(record), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def show(result: Result) -> str:
    """On one line."""
    return f"{result.ratio:.3g}{result.target.unit}, target {result.target}"


def write_overview(folder: Path) -> str:
    """README.md and chart.svg of a folder of results. Returns the table."""
    read = {
        path.stem: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))
    }
    records = {name: record for name, record in read.items() if "bound" in record}
    table = _table(records)
    (folder / "chart.svg").write_text(chart(records), encoding="utf-8")
    text = (
        "# Results\n\nWritten by `python -m benchmarks`; each row's file says what it measured, "
        "with all figures.\n\n![Speed against the peers](chart.svg)\n\n" + table
    )
    (folder / "README.md").write_text(text + "\n", encoding="utf-8")
    return table


def _table(records: Mapping[str, dict[str, Any]]) -> str:
    rows = ["| benchmark | result | target | met | what |", "| --- | --- | --- | --- | --- |"]
    for name, record in records.items():
        rows.append(
            f"| [{name}]({name}.json) | {record['ratio']:.3g}{record['unit']} | {record['target']} "
            f"| {'yes' if record['met'] else '**no**'} | {record['what']} ({record['dtype']}) |"
        )
    machines = {
        f"{of['processor']} ({', '.join(of['instructions'])}), {of['cores']} cores, "
        f"{of['threads']} threads, {of['memory_gb']:g} GB of memory"
        for of in (record["machine"] for record in records.values())
    }
    used = {
        f"{package} {version}"
        for record in records.values()
        for package, version in record["versions"].items()
    }
    about = [f"- machine: {text}" for text in sorted(machines)]
    return "\n".join([*rows, "", *about, f"- versions: {', '.join(sorted(used))}"])


def _rounded(value: Any) -> Any:
    """To four figures: more would be noise."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return value
