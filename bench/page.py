"""``python -m bench.page RESULT.json …``: put the figures of these files into docs/performance.md.

Each table stands between ``<!-- bench:NAME -->`` and ``<!-- /bench:NAME -->``; a table
without figures in the files stays as it is. The plot goes to docs/img/performance.svg.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from bench import plot
from bench.goals import goals
from bench.results import Results, median, read, systems_of
from bench.tables import SECTIONS

DOCS = Path(__file__).resolve().parent.parent / "docs"


def fill(page: str, results: Results) -> str:
    """The page with the new tables. Raises ValueError when a marker is missing or unknown."""
    known = set(re.findall(r"<!-- bench:(\w+) -->", page))
    if wrong := known ^ set(SECTIONS):
        raise ValueError(f"the page's markers and the tables differ in: {', '.join(sorted(wrong))}")
    for name, render in SECTIONS.items():
        if content := render(results):
            begin, end = f"<!-- bench:{name} -->\n", f"<!-- /bench:{name} -->"
            before, _, rest = page.partition(begin)
            _, found, after = rest.partition(end)
            if not found:
                raise ValueError(f"the page needs {end} behind {begin.strip()}")
            page = f"{before}{begin}{content}\n{end}{after}"
    return page


def image(results: Results) -> str:
    """The plot; "" when there are no requests to show."""
    rows = results.of("requests")
    systems = systems_of(rows)
    colours = plot.colours_of(systems)
    series = {
        system: {
            row["clients"]: median(row, "requests_per_second")
            for row in rows
            if row["system"] == system
        }
        for system in systems
    }
    at_64 = {system: points[64] for system, points in series.items() if 64 in points}
    if not at_64:
        return ""
    left = plot.Box(24, 34, 430, 320)
    right = plot.Box(490, 34, 450, 330)
    title = "Requests/s by clients"
    return plot.document(
        plot.bars(left, "Requests/s at 64 clients", at_64, colours)
        + plot.lines(right, title, series, colours, x_name="clients"),
        description="; ".join(f"{name}: {rate:,.0f} requests/s" for name, rate in at_64.items()),
    )


def main() -> int:
    """The program; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.page", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("results", type=Path, nargs="+", help="JSON files of the benchmarks")
    parser.add_argument("--page", type=Path, default=DOCS / "performance.md")
    parser.add_argument("--image", type=Path, default=DOCS / "img" / "performance.svg")
    options = parser.parse_args()
    try:
        results = read(options.results)
        options.page.write_text(fill(options.page.read_text(), results))
        if drawn := image(results):
            options.image.write_text(drawn)
    except (OSError, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    for goal in goals(results):
        print(f"{goal.text}: {goal.told} (wanted {goal.wanted})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
