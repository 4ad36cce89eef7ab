"""Results as JSON files, a table and a chart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .benchmark import Result, Settings
from .chart import chart
from .machine import gpu, versions
from .machine import machine as this_machine

__all__ = ["summary_line", "write_overview", "write_result"]


def write_result(path: Path, result: Result, settings: Settings) -> None:
    """Write a benchmark's result as JSON, without a date: equal results give equal files."""
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
        **({"rows": dict(result.rows)} if result.rows else {}),
        "dtype": result.dtype,
        "turns": settings.rounds,
        "machine": this_machine(settings.threads) | gpu(result.device),
        "versions": versions(*result.packages),
        **({"dry_run": True} if settings.quick else {}),
    }
    path.write_text(
        json.dumps(_rounded(record), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def summary_line(result: Result) -> str:
    """The number and its target."""
    return f"{result.ratio:.3g}{result.target.unit}, target {result.target}"


def write_overview(folder: Path) -> str:
    """Write README.md and chart.svg of a folder of results. Returns the table."""
    contents = {
        path.stem: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))
    }
    records = {name: record for name, record in contents.items() if "bound" in record}
    table = _table(records) + "".join(
        f"\n\n## {name}\n\n{_rows_table(record['rows'])}"
        for name, record in records.items()
        if "rows" in record
    )
    (folder / "chart.svg").write_text(chart(records), encoding="utf-8")
    text = (
        "# Results\n\nWritten by `python -m benchmarks`. The file of each row has all its "
        "figures.\n\n![Speed against the peers](chart.svg)\n\n" + table
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
        f"{machine['processor']} ({', '.join(machine['instructions'])}), "
        f"{machine['cores']} cores, {machine['threads']} threads, "
        f"{machine['memory_gb']:g} GB of memory"
        + (f"; {machine['gpu']}, {machine['gpu_memory_gb']:g} GB" if "gpu" in machine else "")
        for machine in (record["machine"] for record in records.values())
    }
    package_versions = {
        f"{package} {version}"
        for record in records.values()
        for package, version in record["versions"].items()
    }
    machine_lines = [f"- machine: {text}" for text in sorted(machines)]
    return "\n".join(
        [*rows, "", *machine_lines, f"- versions: {', '.join(sorted(package_versions))}"]
    )


def _rows_table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The rows of a result as a table; a figure that a row lacks is empty."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = [["", *names], ["---"] * (len(names) + 1)]
    lines += [[key, *(_cell(row.get(name, "")) for name in names)] for key, row in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _rounded(value: Any) -> Any:
    """A copy with four significant digits: more would be noise."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
