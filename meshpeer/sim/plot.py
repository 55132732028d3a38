"""Pictures of runs: who knows everything over time, and what a sweep came to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from meshpeer.core.errors import EnvironmentFault, LocalFault
from meshpeer.sim.result import Result

FORMATS = (".svg", ".png")
_SIZE_INCHES = (8.0, 4.5)


class _Axes(Protocol):
    """What of a plotting library is used here."""

    def step(self, x: Sequence[float], y: Sequence[float], *, where: str, label: str) -> object: ...

    def plot(self, x: Sequence[float], y: Sequence[float], *, marker: str, label: str) -> object: ...

    def set_xlabel(self, text: str) -> object: ...

    def set_ylabel(self, text: str) -> object: ...

    def set_title(self, text: str) -> object: ...

    def set_ylim(self, bottom: float, top: float | None = None) -> object: ...

    def set_xscale(self, name: str) -> object: ...

    def grid(self, visible: bool, *, alpha: float) -> object: ...

    def legend(self) -> object: ...


class _Figure(Protocol):
    def __init__(self, *, figsize: tuple[float, float], layout: str) -> None: ...

    def subplots(self) -> _Axes: ...

    def savefig(self, path: Path, **options: object) -> None: ...


def check_plot(path: Path) -> None:
    """Raises before a long run what would fail after it: a format that is not known, a library that is
    absent."""
    if path.suffix not in FORMATS:
        raise LocalFault(
            f"a picture can't be written as {path.name!r}", f"end its name in {' or '.join(FORMATS)}"
        )
    if not path.parent.is_dir():
        raise LocalFault(f"there is no folder {path.parent}", "make it, or name another")
    _library()


def plot_curves(results: Sequence[Result], path: Path) -> None:
    """Draws the share of hosts that know everything over time, a line for each run."""
    figure, axes = _sheet()
    for result in results:
        times = [at for at, _ in result.curve]
        shares = [100 * share for _, share in result.curve]
        axes.step(times, shares, where="post", label=f"seed {result.seed}")
    axes.set_xlabel("seconds since the last host was started")
    axes.set_ylabel("hosts that know everything, %")
    axes.set_ylim(0.0, 102.0)
    axes.set_title(f"{results[0].scenario}, {results[0].size} hosts")
    if len(results) > 1:
        axes.legend()
    _save(figure, axes, path)


def plot_sweep(over: str, points: Sequence[tuple[float, Result]], path: Path) -> None:
    """Draws convergence time against the value that was swept."""
    figure, axes = _sheet()
    known = [(value, result.know_all_s) for value, result in points]
    values = [value for value, spread in known if spread]
    for label in ("p50", "p90", "max"):
        axes.plot(values, [getattr(spread, label) for _, spread in known if spread], marker="o", label=label)
    if over == "size":
        axes.set_xscale("log")
    axes.set_xlabel({"size": "hosts", "loss": "share of segments lost", "churn": "crashes a minute"}[over])
    axes.set_ylabel("seconds until a host knows everything")
    axes.set_ylim(0.0)
    axes.set_title(points[0][1].scenario)
    axes.legend()
    _save(figure, axes, path)


def _sheet() -> tuple[_Figure, _Axes]:
    figure = _library()(figsize=_SIZE_INCHES, layout="constrained")
    return figure, figure.subplots()


def _save(figure: _Figure, axes: _Axes, path: Path) -> None:
    import matplotlib

    axes.grid(True, alpha=0.3)
    # The same run gives the same file: no date, and ids that follow from what is drawn.
    with matplotlib.rc_context({"svg.hashsalt": "meshpeer"}):
        try:
            figure.savefig(path, **({"metadata": {"Date": None}} if path.suffix == ".svg" else {}))
        except OSError as error:
            raise EnvironmentFault(
                f"{path} can't be written: {error.strerror}", "name another place"
            ) from error


def _library() -> type[_Figure]:
    """Returns the class of figures, without any window system."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise EnvironmentFault(
            "pictures need matplotlib, which is not installed", "pip install 'meshpeer[plot]'"
        ) from error
    return cast(type[_Figure], Figure)
