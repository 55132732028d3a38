"""Five machines keep apart who is in and who is alive: death is an opinion, and takes no tunnel away.

The bounds on waiting are generous, since five agents and their WireGuard share the cores of a test machine;
how fast a death is told is measured in simulation.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence

import meshkit
import pytest
from meshlab import Lab, Node

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(300)]

NAMES = ("alpha", "bravo", "charlie", "delta", "echo")
OPINIONS = {"alive", "suspect", "dead"}
CLOSED_PATIENCE_S = 20.0
"""The rule says 3 s after a redial that is refused."""
SILENT_PATIENCE_S = 40.0
"""The rule says 8 s of doubt, which begins with a ping that is not answered."""

ALONE_PATIENCE_S = 90.0
"""Whose pings all fail trusts itself less and less: it asks eight times as slowly before it says anything."""


@pytest.fixture(scope="module")
def shared_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with meshkit.shown_lab(request, meshkit.lan(*NAMES)) as lab:
        meshkit.found_mesh(lab, *NAMES)
        yield lab


@pytest.fixture
def lab(shared_lab: Lab) -> Lab:
    """The mesh, whole: every member alive, and reached by a tunnel, for every other."""
    meshkit.wait_until_whole(shared_lab, *NAMES)
    return shared_lab


def test_survivors_of_a_killed_agent_call_it_dead_and_keep_its_tunnel(lab: Lab) -> None:
    survivors = NAMES[:-1]
    tunnels = Tunnels(lab, NAMES)
    meshkit.kill_agent(lab.node("echo"))
    until_dead(lab, survivors, ["echo"], tunnels, CLOSED_PATIENCE_S)
    for name in survivors:
        echo = meshkit.peers(lab.node(name))["echo"]
        assert echo.because.startswith("agent down, tunnel up ("), echo
        assert echo.since
        assert meshkit.pings(lab.node(name), "echo.mesh")
    meshkit.meshpeer(lab.node("echo"), "up", "--detach")
    meshkit.wait_until_whole(lab, *NAMES)
    tunnels.check()


def test_silent_host_is_dead_for_every_survivor_and_loses_no_tunnel(lab: Lab) -> None:
    """Nothing closes a link: packets of one machine just stop, as when its cable is cut beyond a switch."""
    survivors = NAMES[1:]
    tunnels = Tunnels(lab, NAMES)
    lab.partition(["alpha"], survivors)
    until_dead(lab, survivors, ["alpha"], tunnels, SILENT_PATIENCE_S)
    for name in survivors:
        assert meshkit.peers(lab.node(name))["alpha"].because
        assert_alive(lab, name, survivors)
    # Who is alone can't know: it calls nobody alive, and takes its time before it calls anybody dead.
    meshkit.until(
        lambda: {meshkit.peers(lab.node("alpha"))[name].state for name in survivors} <= {"suspect", "dead"},
        "alpha calls nobody alive",
        ALONE_PATIENCE_S,
    )
    assert meshkit.status(lab.node("alpha")).health == "alone"
    lab.heal()
    meshkit.wait_until_whole(lab, *NAMES)
    tunnels.check()


def test_partition_of_two_and_three_heals_without_losing_a_tunnel(lab: Lab) -> None:
    two, three = NAMES[:2], NAMES[2:]
    tunnels = Tunnels(lab, NAMES)
    lab.partition(two, three)
    until_dead(lab, three, two, tunnels, SILENT_PATIENCE_S)
    # Most pings of the two fail, so they trust themselves less as well.
    until_dead(lab, two, three, tunnels, ALONE_PATIENCE_S)
    for side in (two, three):
        for name in side:
            assert_alive(lab, name, side)
    lab.heal()
    meshkit.wait_until_whole(lab, *NAMES)
    tunnels.check()


def test_one_way_silence_heals_without_losing_a_tunnel(lab: Lab) -> None:
    """Bravo hears everybody and nobody hears bravo: however they judge it, the rest stays as it is."""
    rest = [name for name in NAMES if name != "bravo"]
    tunnels = Tunnels(lab, NAMES)
    lab.one_way(["bravo"], rest)
    until_dead(lab, rest, ["bravo"], tunnels, SILENT_PATIENCE_S)
    for name in rest:
        assert_alive(lab, name, rest)
    lab.heal()
    meshkit.wait_until_whole(lab, *NAMES)
    tunnels.check()


def test_agent_stopped_eight_seconds_in_nine_makes_nobody_call_another_dead(lab: Lab) -> None:
    """The case of Lifeguard's paper (DSN 2018): who is late himself takes the others for late."""
    others = [name for name in NAMES if name != "charlie"]
    charlie = lab.node("charlie")
    tunnels = Tunnels(lab, NAMES)
    (agent,) = meshkit.agents(charlie)

    def healthy_ones_live() -> None:
        tunnels.check()
        for name in others:
            assert_none_dead(lab, name, others)

    end = time.monotonic() + 60.0
    try:
        while time.monotonic() < end:
            charlie.kill(agent, signal.SIGSTOP)
            throughout(8.0, healthy_ones_live)
            charlie.kill(agent, signal.SIGCONT)
            looked = time.monotonic()
            assert_none_dead(lab, "charlie", others)
            throughout(1.0 - (time.monotonic() - looked), healthy_ones_live)
    finally:
        charlie.kill(agent, signal.SIGCONT)
    assert meshkit.agents(charlie) == [agent]
    meshkit.wait_until_whole(lab, *NAMES)
    tunnels.check()


# --- helpers ------------------------------------------------------------


class Tunnels:
    """What stands on the machines' interfaces. Bytes of a peer only grow: one removed and put back between
    two looks would begin at zero."""

    def __init__(self, lab: Lab, names: Sequence[str]) -> None:
        self._nodes = [lab.node(name) for name in names]
        self._seen = {node.name: transferred(node) for node in self._nodes}

    def check(self) -> None:
        for node in self._nodes:
            before, now = self._seen[node.name], transferred(node)
            assert set(now) == set(before), f"the tunnels of {node.name} changed"
            shrunk = [key for key in before if now[key] < before[key]]
            assert not shrunk, f"tunnels of {node.name} were removed and made again: {shrunk}"
            self._seen[node.name] = now


def transferred(node: Node) -> dict[str, int]:
    """Returns the bytes that went through the tunnel to each peer of a machine's interface."""
    lines = node.run(["wg", "show", meshkit.INTERFACE, "transfer"]).stdout.splitlines()
    return {key: int(received) + int(sent) for key, received, sent in (line.split() for line in lines)}


def until_dead(
    lab: Lab, observers: Sequence[str], subjects: Sequence[str], tunnels: Tunnels, patience_s: float
) -> None:
    """Waits until every observer calls every subject dead; not one tunnel may go meanwhile."""

    def all_agree() -> bool:
        tunnels.check()
        return all(opinions(lab, one)[subject] == "dead" for one in observers for subject in subjects)

    what = f"{', '.join(observers)} call {', '.join(subjects)} dead"
    meshkit.until(all_agree, what, patience_s)


def opinions(lab: Lab, name: str) -> dict[str, str]:
    """Returns what a machine thinks of the others."""
    thought = {peer.name: peer.state for peer in meshkit.peers(lab.node(name)).values()}
    assert set(thought.values()) <= OPINIONS, thought
    return thought


def assert_alive(lab: Lab, name: str, others: Sequence[str]) -> None:
    thought = opinions(lab, name)
    assert {thought[other] for other in others if other != name} == {"alive"}, (name, thought)


def assert_none_dead(lab: Lab, name: str, others: Sequence[str]) -> None:
    thought = opinions(lab, name)
    assert not [other for other in others if thought.get(other) == "dead"], (name, thought)


def throughout(duration_s: float, check: Callable[[], None]) -> None:
    """Checks over and over for a while."""
    end = time.monotonic() + duration_s
    while True:
        check()
        if time.monotonic() > end:
            return
        time.sleep(0.2)
