"""Labs for tests: ``make_lab`` starts one and ends it, and shows what its nodes logged when the test failed.

Tests here need root. Without it they are taken out of the run, with one line at its end that says so: a test
that can't run has not been skipped by choice, and has not passed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Protocol

import pytest

_HERE = Path(__file__).resolve().parent
_NETNS = _HERE.parents[1] / "scripts" / "netns"
sys.path[:0] = [str(_NETNS), str(_HERE)]

from meshlab import Lab, missing_on_this_machine, registry  # noqa: E402

# Labs of tests that run at the same time may have one name.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ["MESHPEER_LABS"] = f"{os.environ.get('MESHPEER_LABS', registry.folder())}-{worker}"

LABS = _NETNS / "labs"
BACKEND = "wireguard_backend"
_LEFT_OUT = pytest.StashKey[int]()
_REPORTS = pytest.StashKey[dict[str, pytest.TestReport]]()


class MakeLab(Protocol):
    """Starts a lab from TOML text or from the name of a shipped one (``lan3``)."""

    def __call__(self, source: str) -> Lab: ...


class Eventually(Protocol):
    """Polls until ``condition`` holds; ``what`` says in words what was waited for."""

    def __call__(self, condition: Callable[[], bool], what: str, timeout_s: float = 10.0) -> None: ...


@pytest.fixture
def make_lab(request: pytest.FixtureRequest) -> Iterator[MakeLab]:
    """Returns a function that starts labs; all of them end with the test."""
    labs: list[Lab] = []

    def make(source: str) -> Lab:
        lab = Lab.from_toml(source if "\n" in source else LABS / f"{source}.toml")
        labs.append(lab)
        lab.start()
        return lab

    try:
        yield make
        report = request.node.stash.get(_REPORTS, {}).get("call")
        if report is None or report.failed:
            for lab in labs:
                for node in lab.nodes.values():
                    print(node.logs(), end="")
    finally:
        for lab in reversed(labs):
            lab.close()


@pytest.fixture
def eventually() -> Eventually:
    """Returns a function that polls a condition until it holds, and fails with ``what`` after a bound."""

    def wait(condition: Callable[[], bool], what: str, timeout_s: float = 10.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"not within {timeout_s} s: {what}")
            time.sleep(0.02)

    return wait


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.stash.setdefault(_REPORTS, {})[report.when] = report
    return report


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    ours = [item for item in items if _HERE in item.path.parents and _needs_lab(item)]
    for item in ours:
        item.add_marker("netns")
    if missing_on_this_machine() is not None:
        items[:] = [item for item in items if item not in ours]
        config.stash[_LEFT_OUT] = len(ours)
        config.hook.pytest_deselected(items=ours)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    passed: list[pytest.TestReport] = terminalreporter.stats.get("passed", [])
    backends = {value for report in passed for name, value in report.user_properties if name == BACKEND}
    if backends:
        terminalreporter.write_line(f"WireGuard in the labs: {', '.join(sorted(map(str, backends)))}")
    left_out = config.stash.get(_LEFT_OUT, None)
    if left_out is None and config.getoption("numprocesses", None) and missing_on_this_machine() is not None:
        left_out = "all"  # the workers know how many
    if left_out:
        terminalreporter.write_line(
            f"left out: {left_out} netns tests; they need {missing_on_this_machine()}"
        )


def _needs_lab(item: pytest.Item) -> bool:
    return "make_lab" in getattr(item, "fixturenames", ()) or item.get_closest_marker("netns") is not None
