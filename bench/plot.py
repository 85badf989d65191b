"""The plot of the figures: an SVG of bars and lines, readable in light and in dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 960, 380
COLOURS = ("#8a8f98", "#2f9e62", "#d9822b", "#3b7dd8", "#9a5fd0", "#c2456b")
LABEL_HEIGHT = 15

STYLE = """
.back { fill: #ffffff } .text { fill: #1f2328 } .faint { fill: #59636e }
.grid { stroke: #d1d9e0; stroke-width: 1 }
@media (prefers-color-scheme: dark) {
  .back { fill: #0d1117 } .text { fill: #f0f6fc } .faint { fill: #9198a1 }
  .grid { stroke: #3d444d }
}
text { font: 12px system-ui, sans-serif } .title { font-size: 14px; font-weight: 600 }
"""


@dataclass(frozen=True)
class Box:
    """Where a panel is drawn."""

    left: float
    top: float
    width: float
    height: float


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """One colour a system, the same in each panel."""
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}


def text(x: float, y: float, words: str, *, kind: str = "text", anchor: str = "start") -> str:
    """A line of text."""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{kind}" {place}>{escape(words)}</text>'


def bars(
    box: Box, title: str, values: Mapping[str, float], colours: Mapping[str, str]
) -> list[str]:
    """Horizontal bars from zero, each with its figure."""
    parts = [text(box.left, box.top, title, kind="text title")]
    name_width, figure_width = 135.0, 60.0
    most = max(values.values(), default=1.0)
    step = (box.height - 20) / max(1, len(values))
    for number, (name, value) in enumerate(values.items()):
        middle = box.top + 20 + step * (number + 0.5)
        length = max(1.0, (box.width - name_width - figure_width) * value / most)
        start = box.left + name_width
        parts += [
            text(start - 8, middle + 4, name, anchor="end"),
            f'<rect x="{start:.1f}" y="{middle - 10:.1f}" width="{length:.1f}" height="20" rx="2"'
            f' fill="{colours[name]}"/>',
            text(start + length + 6, middle + 4, f"{value:,.0f}", kind="faint"),
        ]
    return parts


def lines(
    box: Box,
    title: str,
    series: Mapping[str, Mapping[int, float]],
    colours: Mapping[str, str],
    *,
    x_name: str,
) -> list[str]:
    """One line a system, both axes logarithmic; the names stand at the right ends."""
    values = [y for points in series.values() for y in points.values() if y > 0]
    places = sorted({x for points in series.values() for x in points})
    if not values or len(places) < 2:
        return []
    axes = Axes(box, places, values)
    parts = [text(box.left, box.top, title, kind="text title"), *axes.drawn(x_name)]
    ends: list[tuple[float, str]] = []
    for name, points in series.items():
        drawn = [(axes.x(x), axes.y(y)) for x, y in sorted(points.items()) if y > 0]
        parts += _curve(drawn, colours[name])
        if drawn:
            ends.append((drawn[-1][1], name))
    last = -math.inf
    for y, name in sorted(ends):
        last = max(y, last + LABEL_HEIGHT)  # names never cover each other
        parts.append(text(axes.right + 12, last + 4, name))
    return parts


class Axes:
    """Two logarithmic axes: from figures to places in the image."""

    def __init__(self, box: Box, places: Sequence[int], values: Sequence[float]) -> None:
        self.left, self.right = box.left + 55, box.left + box.width - 140
        self._top, self._bottom = box.top + 25, box.top + box.height - 30
        self._places = places
        self._low = math.floor(math.log10(min(values)))
        self._high = max(math.ceil(math.log10(max(values))), self._low + 1)

    def x(self, x: float) -> float:
        part = math.log(x / self._places[0]) / math.log(self._places[-1] / self._places[0])
        return self.left + part * (self.right - self.left)

    def y(self, y: float) -> float:
        part = (math.log10(y) - self._low) / (self._high - self._low)
        return self._bottom - part * (self._bottom - self._top)

    def drawn(self, x_name: str) -> list[str]:
        """The grid with its labels."""
        parts = []
        for power in range(self._low, self._high + 1):
            y = self.y(10**power)
            parts.append(f'<path class="grid" d="M{self.left:.1f} {y:.1f}H{self.right:.1f}"/>')
            parts.append(text(self.left - 8, y + 4, f"{10**power:,}", kind="faint", anchor="end"))
        under = self._bottom + 18
        for x in self._places:
            parts.append(text(self.x(x), under, f"{x:,}", kind="faint", anchor="middle"))
        return [*parts, text(self.right + 20, under, x_name, kind="faint")]


def _curve(points: Sequence[tuple[float, float]], colour: str) -> list[str]:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return [
        f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2.5"'
        ' stroke-linejoin="round"/>',
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in points),
    ]


def document(parts: Sequence[str], *, description: str) -> str:
    """The whole image."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
            f' aria-label="{escape(description)}">',
            f"<style>{STYLE}</style>",
            f'<rect class="back" width="{WIDTH}" height="{HEIGHT}" rx="6"/>',
            *parts,
            "</svg>\n",
        ]
    )
