"""The tables of docs/performance.md: one function each, from the figures to Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from bench.goals import goals
from bench.results import Results, Row, clients_of, median, systems_of
from bench.systems import DIRECT

Cell = Callable[[Row], str]
MISSING = "-"


def number(value: float, digits: int = 0) -> str:
    """For a table."""
    return MISSING if math.isnan(value) else f"{value:,.{digits}f}"


def part(ratio: float) -> str:
    """A part of direct."""
    return "" if math.isnan(ratio) else f" ({ratio:.0%})" if ratio >= 0.02 else f" ({ratio:.2%})"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown; the first column to the left, the others right."""
    rule = ["---", *("---:" for _ in heads[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in [heads, rule, *rows])


def by_clients(rows: Sequence[Row], unit: str, cell: Cell) -> str:
    """A row for each system, a column for each number of clients."""
    cells = {(row["system"], row["clients"]): cell(row) for row in rows}
    columns = clients_of(rows)
    body = [
        [system, *(cells.get((system, each), MISSING) for each in columns)]
        for system in systems_of(rows)
    ]
    heads = ["", *(f"{each:,} {unit if each > 1 else unit.removesuffix('s')}" for each in columns)]
    return table(heads, body)


def compared(row: Row, key: str) -> float:
    """A figure beside that of the direct system."""
    return float(row["compared with direct"].get(key, math.nan))


def pair(row: Row, name: str, digits: int) -> str:
    """Median and 99th percentile of a time in milliseconds."""
    found = (median(row, f"{name}_{each}_ms") for each in ("p50", "p99"))
    return " / ".join(number(value, digits) for value in found)


def rate_cell(row: Row) -> str:
    """Requests or events per second, and the part of direct."""
    kind = "requests" if row["mode"] == "requests" else "events"
    ratio = compared(row, f"{kind}_per_second ratio")
    return number(median(row, f"{kind}_per_second")) + part(ratio)


def latency_cell(row: Row) -> str:
    """Median and 99th percentile."""
    return pair(row, "latency", 2 if median(row, "latency_p50_ms") < 10 else 0)


def machine_section(results: Results) -> str:
    """The machine and versions of the measurement."""
    if not results.of("requests"):
        return ""
    return table(["", ""], [[name, value] for name, value in results.measured_on.items()]).replace(
        "---:", "---"
    )


def goals_section(results: Results) -> str:
    """Wanted and measured; a goal that was not reached says so."""
    if not results.of("requests"):
        return ""
    rows = [
        [
            goal.text,
            goal.wanted,
            goal.told,
            "" if math.isnan(goal.measured) else "yes" if goal.is_met else "**no**",
        ]
        for goal in goals(results)
    ]
    return table(["goal", "wanted", "measured", "reached"], rows)


def requests_section(results: Results) -> str:
    """Closed loop: rates, then latencies."""
    rows = results.of("requests")
    if not rows:
        return ""
    return "\n\n".join(
        [
            "Requests/s, in brackets of direct:",
            by_clients(rows, "clients", rate_cell),
            "Latency p50 / p99, ms:",
            by_clients(rows, "clients", latency_cell),
        ]
    )


def cores_section(results: Results) -> str:
    """The CPU use of each process with 64 clients, the most that all systems share."""
    rows = [row for row in results.of("requests") if row["clients"] == 64]
    keys = ("generator", "backend", "proxy", "elsewhere", "stolen")
    body = [
        [
            row["system"],
            *(number(median(row, f"{key}_cores"), 2) for key in keys),
            number(median(row, "proxy_cpu_us_each"), 0),
        ]
        for row in rows
    ]
    heads = ["cores busy at 64 clients", *keys, "proxy CPU µs a request"]
    return table(heads, body) if rows else ""


def open_section(results: Results) -> str:
    """Open loop."""
    body = [
        [
            row["system"],
            number(median(row, "asked_per_second")),
            number(median(row, "requests_per_second")),
            *(number(median(row, f"latency_{each}_ms"), 2) for each in ("p50", "p99", "max")),
        ]
        for row in results.of("open loop")
        if row["clients"] == 64
    ]
    heads = ["half of the most, 64 connections", "asked/s", "answered/s", "p50 ms", "p99", "max"]
    return table(heads, body) if body else ""


def streams_section(results: Results) -> str:
    """Streams that end and begin again."""
    rows = results.of("streams")
    if not rows:
        return ""

    def first(row: Row) -> str:
        added = compared(row, "latency_p50_ms added")
        told = "" if math.isnan(added) else f" ({added:+.1f})"
        return (
            f"{number(median(row, 'latency_p50_ms'), 1)}{told}"
            f" / {number(median(row, 'latency_p99_ms'), 1)}"
        )

    def late(row: Row) -> str:
        return (
            f"{number(median(row, 'delay_p50_ms'), 1)} / {number(median(row, 'delay_p99_ms'), 1)}"
        )

    return "\n\n".join(
        [
            "Events/s, in brackets of direct:",
            by_clients(rows, "streams", rate_cell),
            "First event p50 (added) / p99, ms:",
            by_clients(rows, "streams", first),
            "How late a token comes, p50 / p99, ms:",
            by_clients(rows, "streams", late),
        ]
    )


def held_section(results: Results) -> str:
    """Streams that stay open."""
    body = [
        [
            f"{row['system']}, {row['clients']:,} x {row['tps']:g}/s",
            rate_cell(row),
            pair(row, "latency", 1),
            pair(row, "probe", 1),
            " / ".join(
                number(median(row, f"proxy_mib_{each}")) for each in ("before", "during", "after")
            )
            if row["system"] != DIRECT
            else MISSING,
            number(median(row, "proxy_kib_each"), 1),
            number(sum(row["failures"].values())),
        ]
        for row in results.of("held")
    ]
    heads = ["", "events/s", "first event p50 / p99 ms", "new request p50 / p99 ms"]
    heads += ["MiB before / during / after", "KiB a stream", "errors"]
    return table(heads, body) if body else ""


def disconnects_section(results: Results) -> str:
    """Clients that disconnect at once."""
    body = [
        [
            f"{row['system']}, {row['clients']:,} x {row['tps']:g}/s",
            number(median(row, "gone_p50_ms")),
            number(median(row, "gone_last_ms")),
            number(sum(row["failures"].values())),
        ]
        for row in results.of("disconnects")
    ]
    heads = ["", "half gone after ms", "all gone after ms", "errors"]
    return table(heads, body) if body else ""


def bodies_section(results: Results) -> str:
    """Sizes of request bodies."""
    rows = results.of("bodies")
    sizes = sorted({row["body_bytes"] for row in rows})
    places = {(row["system"], row["body_bytes"]): row for row in rows}
    body = [
        [
            system,
            *(
                f"{rate_cell(row)}, {latency_cell(row)}"
                if (row := places.get((system, size)))
                else MISSING
                for size in sizes
            ),
        ]
        for system in systems_of(rows)
    ]
    heads = ["requests/s, p50 / p99 ms", *(f"{size:,} B" for size in sizes)]
    return table(heads, body) if rows else ""


def database_section(results: Results) -> str:
    """Few rows and many."""
    rows = [row for row in results.of("database") if row["system"] != DIRECT]

    def cell(row: Row) -> str:
        rate, cost = median(row, "requests_per_second"), median(row, "proxy_cpu_us_each")
        return f"{number(rate)} ({number(cost)} µs CPU)"

    return by_clients(rows, "clients", cell) if rows else ""


def wrk_section(results: Results) -> str:
    """The other generator."""
    body = [
        [
            row["system"],
            number(row["requests_per_second"]),
            number(row["ours"]),
            number(row["latency_p50_ms"], 2),
        ]
        for row in results.wrk
    ]
    heads = ["64 clients", "wrk requests/s", "ours", "wrk p50 ms"]
    return table(heads, body) if body else ""


def supervisor_section(results: Results) -> str:
    """Starts, stops, wake-ups, idleness."""
    if not results.supervisor:
        return ""
    body = [
        [
            each["name"],
            number(each["alone_ms"]),
            number(each["ready_p50_ms"]),
            number(each["added_p50_ms"]),
            number(each["stop_p50_ms"]),
            f"{number(each['wake_up_p50_ms'], 1)} / {number(each['wake_up_p99_ms'], 1)}",
        ]
        for each in results.supervisor
    ]
    heads = ["ms", "by hand", "by llamactl", "added", "stop", "wake-up p50 / p99"]
    lines = [table(heads, body)]
    if idle := results.idle:
        lines.append(
            f"{idle['instances']} instances that run and are asked nothing: the worker takes"
            f" {idle['worker_cores']:.2%} of a core and {idle['worker_mib']:.0f} MiB, all of"
            f" llamactl {idle['all_cores']:.2%}."
        )
    return "\n\n".join(lines)


def servers_section(results: Results) -> str:
    """ASGI servers."""
    rows = results.of("servers")
    streams = {row["system"]: row for row in results.of("servers streams")}
    body = [
        [
            row["system"],
            number(median(row, "requests_per_second")),
            latency_cell(row),
            number(median(row, "proxy_cpu_us_each")),
            rate_cell(stream) if (stream := streams.get(row["system"])) else MISSING,
            number(median(streams.get(row["system"]), "latency_p50_ms"), 1),
            number(sum(row["failures"].values())),
        ]
        for row in rows
        if row["system"] != DIRECT
    ]
    heads = ["", "requests/s, 64 clients", "p50 / p99 ms", "CPU µs a request"]
    heads += ["events/s, 200 streams", "first event p50 ms", "errors"]
    return table(heads, body) if body else ""


def profile_section(results: Results) -> str:
    """Where the time of a request goes."""
    if results.profile is None:
        return ""
    cost, shares = results.profile["cpu_us"], results.profile["shares"]
    body = [[name, f"{share:.0%}", number(share * cost)] for name, share in shares.items()]
    return table(["", "share", "µs"], [*body, ["a request", "100%", number(cost)]])


def doubts_section(results: Results) -> str:
    """The harness's own doubts about its figures."""
    if not results.of("requests"):
        return ""
    found = [
        f"* {row['system']}, {row['scenario']}: {doubt}"
        for row in results.rows
        for doubt in row["doubts"]
    ]
    if not found:
        return "Nothing."
    summary = f"<details><summary>{len(found)} doubts</summary>"
    return "\n".join([summary, "", *found, "", "</details>"])


SECTIONS: Mapping[str, Callable[[Results], str]] = {
    "machine": machine_section,
    "goals": goals_section,
    "requests": requests_section,
    "cores": cores_section,
    "open": open_section,
    "streams": streams_section,
    "held": held_section,
    "disconnects": disconnects_section,
    "bodies": bodies_section,
    "database": database_section,
    "wrk": wrk_section,
    "supervisor": supervisor_section,
    "servers": servers_section,
    "profile": profile_section,
    "doubts": doubts_section,
}
