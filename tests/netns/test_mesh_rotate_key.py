"""A node changes its WireGuard key under pings and TCP connections, one of them by a relay, and is killed in
the middle of it: no connection breaks.

How long anything takes is measured by ``scripts/bench/rotate_key.py``.
"""

from __future__ import annotations

import contextlib
import re
import stat
import subprocess
from collections.abc import Iterator

import meshkit
import pytest
from meshlab import Lab, Node, Traffic

from meshpeer.runtime.control import KeyRotation

pytestmark = [pytest.mark.netns, pytest.mark.slow]

LAB = """
name = "rotate"
[lans.net]
ipv4 = "198.51.100.0/24"
[lans.home]
ipv4 = "192.168.1.0/24"
[lans.office]
ipv4 = "192.168.2.0/24"
[nodes.one]
lans = ["net"]
[nodes.alpha]
lans = ["home"]
[nodes.bravo]
lans = ["office"]
[routers.r1]
outside = "net"
inside = ["home"]
nat = "symmetric"
[routers.r2]
outside = "net"
inside = ["office"]
nat = "symmetric"
"""
NAMES = ("one", "alpha", "bravo")
KEYS = f"{meshkit.STATE_DIR}/keys"
LOST_MAX = 100
"""Of pings every 20 ms, with two other test runs on the cores."""


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with meshkit.shown_lab(request, LAB) as lab:
        meshkit.found_mesh(lab, *NAMES)
        for source, target in (("alpha", "bravo"), ("one", "alpha"), ("one", "bravo")):
            meshkit.until(
                lambda: meshkit.pings(lab.node(source), f"{target}.mesh"),  # noqa: B023
                f"{source} reaches {target}",
                40,
            )
        for source, target in (("alpha", "bravo"), ("bravo", "alpha")):
            meshkit.until(
                lambda: meshkit.peers(lab.node(source))[target].path == "relay",  # noqa: B023
                f"{source} reaches {target} by a relay",
                30,
            )
        yield lab


def test_no_connection_breaks_and_all_follow(lab: Lab) -> None:
    alpha = lab.node("alpha")
    old = interface_key(alpha)
    with talking(lab, "alpha", "one", "bravo"), losing_few(lab, "alpha", "one", "bravo"):
        made = meshkit.ask(alpha, KeyRotation, "rotate-key")
        meshkit.until(lambda: follow(lab, made.public_key, old, "one", "bravo"), "both have the new key")
    assert made.public_key == interface_key(alpha) != old
    assert (made.previous_public_key, made.ready, made.missed) == (old, 2, ())
    assert meshkit.status(alpha).node.public_key == made.public_key
    shown = alpha.path(f"{KEYS}/wireguard.key").stat()
    assert stat.S_IMODE(shown.st_mode) == 0o600
    assert not alpha.path(f"{KEYS}/wireguard.next.key").exists()
    # To both it is the same path as before.
    assert meshkit.peers(lab.node("bravo"))["alpha"].path == "relay"
    assert meshkit.peers(lab.node("one"))["alpha"].path == "direct"


def test_the_relay_itself_changes_its_key(lab: Lab) -> None:
    one = lab.node("one")
    old = interface_key(one)
    with talking(lab, "one", "alpha", "bravo"), losing_few(lab, "one", "alpha", "bravo"):
        said = meshkit.meshpeer(one, "rotate-key")
        new = interface_key(one)
        meshkit.until(lambda: follow(lab, new, old, "alpha", "bravo"), "both have the new key")
    assert said.splitlines() == [
        f"this node has a new WireGuard key: {new}",
        "2 peers had let it in before",
    ]


def test_an_agent_that_is_killed_between_disk_and_interface_goes_on_from_there(lab: Lab) -> None:
    alpha = lab.node("alpha")
    old, coming = interface_key(alpha), alpha.path(f"{KEYS}/wireguard.next.key")
    current = alpha.path(f"{KEYS}/wireguard.key")
    before = current.read_text()
    with talking(lab, "alpha", "one", "bravo"):
        with alpha.popen(["meshpeer", "rotate-key", "--quiet"], stderr=subprocess.DEVNULL):
            meshkit.until(coming.exists, "the next key is on disk")
            meshkit.until(lambda: current.read_text() != before, "it is the current one", 80)
            meshkit.kill_agent(alpha)
        meshkit.meshpeer(alpha, "up", "--detach")
        meshkit.until(lambda: interface_key(alpha) != old, "the interface has the new key", 40)
        new = interface_key(alpha)
        meshkit.until(lambda: follow(lab, new, old, "one", "bravo"), "both have the new key", 40)
        meshkit.until(lambda: meshkit.status(alpha).node.public_key == new, "the record shows it")
    assert not coming.exists()


def test_who_lost_its_own_key_is_revoked_and_joins_anew(lab: Lab) -> None:
    one, bravo = lab.node("one"), lab.node("bravo")
    meshkit.kill_agent(bravo)
    bravo.path(f"{KEYS}/node.key").unlink()
    said = meshkit.fails(bravo, 5, "up", "--detach")
    assert "node.key" in said.what
    assert "revoke this node elsewhere" in said.hint
    meshkit.meshpeer(one, "revoke", "bravo", "--reason", "key lost")
    meshkit.meshpeer(bravo, "down")
    meshkit.join(bravo, meshkit.invite(one))
    meshkit.until(lambda: meshkit.pings(one, "bravo.mesh"), "one reaches bravo again", 30)
    assert list(bravo.path(meshkit.STATE_DIR).glob("before-*/keys/wireguard.key"))


# --- what is looked at --------------------------------------------------------------------------------------


def interface_key(node: Node) -> str:
    return node.run(["wg", "show", meshkit.INTERFACE, "public-key"]).stdout.strip()


def follow(lab: Lab, new: str, old: str, *names: str) -> bool:
    """Says whether members have the new key of another, with its addresses, and not the old one any more."""
    shown = [lab.node(name).run(["wg", "show", meshkit.INTERFACE, "allowed-ips"]).stdout for name in names]
    return all(old not in one and re.search(rf"{re.escape(new)}\s+10\.", one) for one in shown)


@contextlib.contextmanager
def talking(lab: Lab, server: str, *clients: str) -> Iterator[None]:
    """Holds a TCP connection from each client, on which a word is answered all the time; each must live."""
    with Traffic(lab) as traffic:
        for name in clients:
            traffic.talk(name, server, f"{server}.mesh", every_s=0.02)
        meshkit.until(lambda: all(talk.answers() for talk in traffic.talks), "all talk")
        yield
        for talk in traffic.talks:
            answered = len(talk.answers())
            meshkit.until(lambda: len(talk.answers()) > answered, "it goes on")  # noqa: B023
            assert talk.lost() == ""


@contextlib.contextmanager
def losing_few(lab: Lab, target: str, *sources: str) -> Iterator[None]:
    """Pings every 20 ms from each source; few may be lost in all."""
    with Traffic(lab) as traffic:
        for name in sources:
            traffic.ping(name, target, f"{target}.mesh")
        meshkit.until(lambda: all(ping.answers() for ping in traffic.pings), "pings are answered")
        yield
        for ping in traffic.pings:
            answered = len(ping.answers())
            meshkit.until(lambda: len(ping.answers()) > answered, "they still are")  # noqa: B023
            assert ping.missed() < LOST_MAX
