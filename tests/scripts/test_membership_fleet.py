"""The bench's processes and eyes, held to their rules with nodes of a few lines: a wrong ruler measures
nothing."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "bench"))

from membership_fleet import Ended, Fleet, Late, measure_cost

ECHO = """
import sys
for line in sys.stdin:
    for one in line.rstrip().split(";"):
        print(one, flush=True)
"""
"""A node that says what it is told to say."""


def test_everybody_is_found_at_the_time_of_their_own_clock(fleet: Fleet) -> None:
    spawn(fleet, "a", "b")

    fleet.tell(["a"], '{"t": 5.0, "seen": "other"};{"t": 7.5, "seen": "dead x"};{"t": 9.0, "seen": "dead x"}')
    fleet.tell(["b"], '{"t": 6.25, "seen": "dead x"}')

    assert fleet.wait("dead x", ["a", "b"]) == {"a": 7.5, "b": 6.25}


def test_what_was_seen_before_does_not_count(fleet: Fleet) -> None:
    spawn(fleet, "a")
    fleet.tell(["a"], '{"t": 1.0, "seen": "dead x"}')
    fleet.wait("dead x", ["a"])
    since = len(fleet.sights)

    with pytest.raises(Late, match=r"dead x: 1 had not seen it after 0 s \(a\)"):
        fleet.wait("dead x", ["a"], since=since, timeout_s=0.2)


def test_who_ends_while_something_is_waited_for_ends_the_wait(fleet: Fleet) -> None:
    spawn(fleet, "a", "b")
    fleet.processes["b"].kill()
    fleet.processes["b"].wait()

    with pytest.raises(Ended, match="dead x: b ended"):
        fleet.wait("dead x", ["a", "b"])


def test_the_last_words_of_who_ended_still_count(fleet: Fleet) -> None:
    spawn(fleet, "a")
    fleet.tell(["a"], '{"t": 3.0, "seen": "up"}')
    stdin = fleet.processes["a"].stdin
    assert stdin is not None
    stdin.close()
    fleet.processes["a"].wait()

    assert fleet.wait("up", ["a"]) == {"a": 3.0}
    assert fleet.living == set()


def test_nothing_is_left_running_not_even_who_is_stopped(tmp_path: Path) -> None:
    with Fleet(tmp_path) as fleet:
        spawn(fleet, "a", "b")
        fleet.processes["b"].send_signal(signal.SIGSTOP)
        processes = list(fleet.processes.values())

    assert all(process.returncode is not None for process in processes)


def test_costs_are_those_of_the_living(fleet: Fleet) -> None:
    fleet.spawn("busy", [sys.executable, "-c", "while True: pass"])
    spawn(fleet, "gone")
    fleet.processes["gone"].kill()
    fleet.processes["gone"].wait()

    cost = measure_cost(fleet, 0.5)

    assert cost.cpu_percent > 1
    assert 1 < cost.rss_mib < 1000
    assert cost.bytes_per_s >= 0


# --- helpers ------------------------------------------------------------


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path) as fleet:
        yield fleet


def spawn(fleet: Fleet, *names: str) -> None:
    for name in names:
        fleet.spawn(name, [sys.executable, "-c", ECHO])
