"""Bar chart of the suite: speed relative to each peer, and targets.

Written as SVG directly: text stays text, colours follow the light or dark theme of the reader, and
equal results give equal files.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

__all__ = ["chart"]

_BARS = {
    "five_seconds": ("5 s clips", "transformers, padded to 30 s"),
    "ctranslate2": ("5 s clips", "CTranslate2, Whisper large-v3, int8"),
    "folder": ("folder, 1–30 s", "transformers, librosa, batches of 8"),
    "thirty_seconds": ("30 s windows", "transformers"),
    "openvino": ("30 s windows", "OpenVINO"),
}
_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328; }
  .faint { fill: #59636e; }
  .bar { fill: #1a7f64; }
  .missed { fill: #bc4c00; }
  .rule { stroke: #8b949e; stroke-width: 1; }
  .target { stroke: #1f2328; stroke-width: 2; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .faint { fill: #9198a1; }
    .bar { fill: #3fb68b; }
    .missed { fill: #f0883e; }
    .target { stroke: #e6edf3; }
  }
"""
_LEFT, _WIDTH, _RIGHT, _TOP, _ROW = 250, 400, 70, 44, 44


def chart(records: Mapping[str, dict[str, Any]]) -> str:
    """SVG with a bar for each result against a peer, a mark at its target, and a line at 1×."""
    bars = [
        (*labels, records[name]["ratio"], records[name]["bound"], records[name]["met"])
        for name, labels in _BARS.items()
        if name in records and records[name]["ratio"] is not None
    ]
    largest = max([1.0, *(max(ratio, bound) for *_, ratio, bound, _ in bars)])
    height = _TOP + _ROW * len(bars) + 34

    def x(ratio: float) -> float:
        return round(_LEFT + _WIDTH * ratio / largest, 1)

    elements = [
        '<text x="0" y="16">How many times as fast as the peer, at audio_tower</text>',
        f'<line class="rule" x1="{x(1)}" x2="{x(1)}" y1="{_TOP - 10}" y2="{height - 30}"/>',
        f'<text class="faint" x="{x(1)}" y="{height - 14}" text-anchor="middle">1×</text>',
    ]
    for index, (input_label, peer, ratio, bound, met) in enumerate(bars):
        top = _TOP + _ROW * index
        elements += [
            f'<text x="0" y="{top + 9}">{escape(input_label)}</text>',
            f'<text class="faint" x="0" y="{top + 26}">{escape(peer)}</text>',
            f'<rect class="{"bar" if met else "missed"}" x="{_LEFT}" y="{top}" '
            f'width="{round(x(ratio) - _LEFT, 1)}" height="24" rx="2"/>',
            f'<line class="target" x1="{x(bound)}" x2="{x(bound)}" '
            f'y1="{top - 4}" y2="{top + 28}"/>',
            f'<text x="{max(x(ratio), x(bound)) + 8}" y="{top + 17}">{ratio:.2f}×</text>',
        ]
    if bars:
        elements.append(
            f'<text class="faint" x="{_LEFT + _WIDTH}" y="{height - 14}" text-anchor="end">'
            "upright marks: targets</text>"
        )
    size = f'width="{_LEFT + _WIDTH + _RIGHT}" height="{height}"'
    view = f'viewBox="0 0 {_LEFT + _WIDTH + _RIGHT} {height}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} {view} role="img" '
            'aria-label="How many times as fast as each peer, with targets">',
            f"<style>{_STYLE}</style>",
            *elements,
            "</svg>\n",
        ]
    )
