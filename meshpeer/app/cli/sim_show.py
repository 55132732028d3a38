"""How the outcome of a simulation is shown: the answer first, then how long things took, then what they
cost."""

from __future__ import annotations

from collections.abc import Sequence

from meshpeer.app.cli import show
from meshpeer.sim.result import Measure, Result, Spread

PRICES_SHOWN = 16
_EVENTS = {
    "dead": "crash known to all",
    "change": "change known to all",
    "heal": "partition healed",
    "revoked": "revoked host out",
}


def worst_of(results: Sequence[Result]) -> Result:
    """Returns the run that failed, or the one that took longest to converge."""
    return max(results, key=lambda one: (not one.ok, _slowest(one)))


def print_result(result: Result, *, title: str = "") -> None:
    """Prints one run."""
    name = result.scenario or "scenario"
    verdict = show.paint("ok", "green") if result.ok else show.paint("failed", "red")
    lead = f"{title}: " if title else ""
    show.line(show.heading(f"{lead}{show.clean(name)}: {verdict}"))
    for failure in result.failures:
        show.line(f"  {show.clean(failure)}")
    show.facts(
        [
            ("hosts", f"{result.size}, seed {result.seed}"),
            ("all know all", _spread(result.know_all_s) or f"no: {result.know_share:.1%} do"),
            *_events(result.measures),
            ("false deaths", str(result.false_deaths)),
            ("links", f"{result.links.min} min, {result.links.mean:.1f} mean, {result.links.max} max"),
            ("traffic", f"{result.bytes_per_node_s:.0f} B/s sent by a host"),
            ("virtual time", show.seconds(result.virtual_s)),
            (
                "wall time",
                f"{show.seconds(result.wall_s)}, {result.steps_per_s:,.0f} steps/s, "
                f"{result.memory_mib:,} MiB at most",
            ),
        ]
    )
    rows = [
        [one.kind, f"{one.messages_per_node_s:.2f}", f"{one.bytes_per_node_s:.1f}"]
        for one in result.prices[:PRICES_SHOWN]
    ]
    if rows:
        show.line()
        show.table(["MESSAGE", "PER NODE AND S", "BYTES PER NODE AND S"], rows, right=(1, 2))


def print_seeds(results: Sequence[Result]) -> None:
    """Prints what many seeds of one scenario came to."""
    failed = [one for one in results if not one.ok]
    verdict = show.paint("ok", "green") if not failed else show.paint("failed", "red")
    show.line(
        show.heading(
            f"{verdict}: {len(results) - len(failed)} of {show.count(len(results), 'seed')} as expected"
        )
    )
    slowest = sorted(one.know_all_s.max for one in results if one.know_all_s)
    rows = [("all know all", _range(slowest))]
    for what, label in _EVENTS.items():
        times = sorted(
            one.took_s
            for result in results
            for one in result.measures
            if one.what == what and one.took_s is not None
        )
        rows.append((label, _range(times)))
    rows.append(("traffic", _range(sorted(one.bytes_per_node_s for one in results), unit="B/s")))
    show.facts(rows)
    show.line()


def print_sweep(over: str, points: Sequence[tuple[float, Result]]) -> None:
    failed = sum(not result.ok for _, result in points)
    verdict = show.paint("ok", "green") if not failed else show.paint("failed", "red")
    show.line(show.heading(f"{show.clean(points[0][1].scenario or 'sweep')}: {verdict}"))
    rows = []
    for value, result in points:
        spread = result.know_all_s
        times = [f"{one:.2f}" for one in (spread.p50, spread.p90, spread.max)] if spread else ["-", "-", "-"]
        rows.append(
            [
                f"{value:g}",
                *times,
                f"{result.bytes_per_node_s:.0f}",
                f"{result.links.mean:.1f}",
                f"{result.wall_s:.1f}",
            ]
        )
    show.table(
        [over.upper(), "P50 S", "P90 S", "MAX S", "B/S", "LINKS", "WALL S"], rows, right=(0, 1, 2, 3, 4, 5, 6)
    )


def _events(measures: Sequence[Measure]) -> list[tuple[str, str]]:
    rows = []
    for what, label in _EVENTS.items():
        found = [one for one in measures if one.what == what]
        missing = sum(one.took_s is None for one in found)
        times = sorted(one.took_s for one in found if one.took_s is not None)
        told = _range(times)
        if missing:
            told = f"{told}{', ' if told else ''}{missing} not by the end"
        rows.append((label, told))
    return rows


def _slowest(result: Result) -> float:
    times = [one.took_s for one in result.measures if one.took_s is not None]
    return max([result.know_all_s.max if result.know_all_s else 0.0, *times])


def _spread(spread: Spread | None) -> str:
    return f"{spread.p50:.2f} s p50, {spread.p90:.2f} s p90, {spread.max:.2f} s max" if spread else ""


def _range(values: Sequence[float], *, unit: str = "s") -> str:
    """Returns quantiles of values in rising order; one value stands for itself."""
    if not values:
        return ""
    digits = 2 if unit == "s" else 0
    last = len(values) - 1
    if not last:
        return f"{values[0]:.{digits}f} {unit}"
    named = (("p50", values[last // 2]), ("p90", values[round(last * 0.9)]), ("max", values[-1]))
    return ", ".join(f"{value:.{digits}f} {unit} {name}" for name, value in named)
