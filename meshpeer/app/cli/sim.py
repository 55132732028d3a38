"""``meshpeer sim``: a mesh of virtual hosts, and what becomes of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meshpeer.app.cli import show
from meshpeer.app.cli.asked import Asked
from meshpeer.app.cli.commands import command
from meshpeer.app.cli.faults import FAILED, tell
from meshpeer.core.errors import LocalFault

if TYPE_CHECKING:
    from meshpeer.sim.result import Result
    from meshpeer.sim.scenario import Scenario

_EXAMPLES = """
Examples:
  meshpeer sim docs/examples/sim/partition.toml
  meshpeer sim partition.toml --seeds 1..100   and report the worst
  meshpeer sim boot.toml --size 500 --plot boot.svg
  meshpeer sim churn.toml --seed 7 --check every --trace churn.trace
"""


def add_to(app: typer.Typer) -> None:
    command(app, "sim", panel="Developing it", examples=_EXAMPLES)(sim)


def sim(
    asked: Asked,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A scenario (TOML); see docs/simulator.md.")],
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", min=0, help="Instead of the file's.", show_default=False),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            "--seeds", metavar="A..B", help="Run all of these and report the worst.", show_default=False
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option("--size", metavar="N", min=2, help="Instead of the file's.", show_default=False),
    ] = None,
    check: Annotated[
        str,
        typer.Option(
            "--check", metavar="every|N", help="Walk through a host's tables every N steps, or after each."
        ),
    ] = "1000",
    trace: Annotated[
        Path | None,
        typer.Option("--trace", metavar="FILE", help="Write one line per event.", show_default=False),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            metavar="FILE",
            help="Draw who knows everything over time (.svg, .png).",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Simulate a mesh of many nodes in virtual time.

    Runs the very code that the agent runs. Exit code 1 where an expectation or an invariant failed.
    """
    from meshpeer.sim.plot import check_plot
    from meshpeer.sim.scenario import load_scenario

    if plot is not None:
        check_plot(plot)
    scenario = load_scenario(file, size=size)
    every = _check(check)
    chosen = _seeds(seed, seeds, scenario.seed)
    if trace is not None and (len(chosen) > 1 or scenario.sweep is not None):
        raise LocalFault("--trace is for one run", "choose one with --seed, of a file without [sweep]")
    if scenario.sweep is not None and len(chosen) > 1:
        raise LocalFault("a [sweep] runs under one seed", "choose one with --seed")
    if scenario.sweep is not None:
        _sweep(asked, scenario, chosen[0], every, plot, file)
        return
    results = []
    for number in chosen:
        results.append(_one(scenario, number, every, trace))
        if len(chosen) > 1 and not asked.quiet and not asked.json:
            verdict = "ok" if results[-1].ok else results[-1].failures[0]
            show.remark(f"seed {number}: {verdict} ({results[-1].wall_s:.1f} s)")
    if plot is not None:
        from meshpeer.sim.plot import plot_curves

        plot_curves(results, plot)
    _answer(asked, results, file, size=size)


def _answer(asked: Asked, results: list[Result], file: Path, *, size: int | None) -> None:
    from meshpeer.app.cli.sim_show import print_result, print_seeds, worst_of

    failed = [result for result in results if not result.ok]
    worst = worst_of(results)
    if asked.json:
        show.document(results[0] if len(results) == 1 else results)
    elif asked.quiet:
        show.line("failed" if failed else "ok")
    elif len(results) > 1:
        print_seeds(results)
        print_result(worst, title=f"worst: seed {worst.seed}")
    else:
        print_result(worst)
    if failed:
        first = failed[0]
        sized = f" --size {size}" if size is not None else ""
        # One step at a time: whoever replays a failure wants to be told at the first step that is off.
        tell(
            f"seed {first.seed}: {first.failures[0]}",
            f"replay it with: meshpeer sim {file} --seed {first.seed}{sized} --check every",
        )
        raise typer.Exit(FAILED)


def _sweep(asked: Asked, scenario: Scenario, seed: int, every: int, plot: Path | None, file: Path) -> None:
    from meshpeer.app.cli.sim_show import print_sweep
    from meshpeer.sim.runner import sweep

    assert scenario.sweep is not None
    over = scenario.sweep.over
    points = []
    for value, result in sweep(scenario, lambda one: _one(one, seed, every, None)):
        points.append((value, result))
        if not asked.quiet and not asked.json:
            show.remark(
                f"{over} {value:g}: {'ok' if result.ok else result.failures[0]} ({result.wall_s:.1f} s)"
            )
    if plot is not None:
        from meshpeer.sim.plot import plot_sweep

        plot_sweep(over, points, plot)
    if asked.json:
        show.document([{"over": over, "value": value, "result": result} for value, result in points])
    elif asked.quiet:
        show.line("failed" if any(not result.ok for _, result in points) else "ok")
    else:
        print_sweep(over, points)
    failed = [(value, result) for value, result in points if not result.ok]
    if failed:
        value, result = failed[0]
        tell(f"{over} {value:g}: {result.failures[0]}", f"replay it with: meshpeer sim {file} --seed {seed}")
        raise typer.Exit(FAILED)


def _one(scenario: Scenario, seed: int, every: int, trace: Path | None) -> Result:
    import msgspec

    from meshpeer.sim.runner import Run

    chosen = msgspec.structs.replace(scenario, seed=seed)
    if trace is None:
        return Run(chosen, check_every=every).run()
    try:
        with trace.open("w", encoding="utf-8") as opened:
            return Run(chosen, check_every=every, trace=opened).run()
    except OSError as error:
        raise LocalFault(f"{trace} can't be written: {error.strerror}", "name another place") from error


def _check(text: str) -> int:
    if text == "every":
        return 1
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise LocalFault(f"--check {text!r} is no number of steps", "a number from 1 on, or every")


def _seeds(seed: int | None, seeds: str | None, of_file: int) -> list[int]:
    if seeds is None:
        return [of_file if seed is None else seed]
    if seed is not None:
        raise LocalFault("--seed and --seeds say different things", "choose one of the two")
    first, dots, last = seeds.partition("..")
    if not (
        dots and all(one.isascii() and one.isdigit() for one in (first, last)) and int(first) <= int(last)
    ):
        raise LocalFault(f"--seeds {seeds!r} is no range", "for example 1..100")
    return list(range(int(first), int(last) + 1))
