"""Machines that move: another address, another network, a sleep, a router that starts anew, a name that leads
elsewhere. Traffic is back without anybody's help, and no agent is started anew.

The tests go on from each other in the order of the file: the mobile machine is at home, then in the office.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import meshkit
import msgspec
import pytest
from meshlab import Lab, Node
from meshlab.traffic import Traffic

from meshpeer.runtime.doctor import Doctor

pytestmark = [pytest.mark.netns, pytest.mark.slow]

NAME = "home.example"
MEMBERS = ("public", "mobile", "still", "server")
BACK_S = 12.0
"""Within 5 s on a machine that has nothing else to do (``scripts/bench/roaming.py`` prints how long)."""
ASLEEP_S = 12


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A mesh whose founder is known by a name, which every machine has in its hosts file."""
    with meshkit.shown_lab(request, meshkit.SHIPPED_LABS / "roaming.toml") as lab:
        meshkit.call(lab.nodes.values(), NAME, lab.node("r4").address("net"))
        meshkit.found(lab.node("server"), "--endpoint", NAME)
        made = lab.node("server").run(["meshpeer", "invite", "--uses", "3"])
        assert f"Seeds: {NAME}:51821" in made.stderr
        invite = made.stdout.strip()
        for name in ("public", "still", "mobile"):
            meshkit.join(lab.node(name), invite)
        for name in ("public", "still", "server"):
            reaches(lab.node(name), "mobile", 30)
        yield lab


def test_a_new_address_interrupts_neither_pings_nor_a_connection(lab: Lab) -> None:
    mobile = lab.node("mobile")
    with undisturbed(lab, "mobile"), under_load(lab):
        mobile.run(["ip", "address", "del", "192.168.1.11/24", "dev", "home"])
        mobile.run(["ip", "address", "add", "192.168.1.99/24", "brd", "+", "dev", "home"])
        mobile.run(["ip", "route", "replace", "default", "via", "192.168.1.1"])
        reaches(lab.node("public"), "mobile")
        meshkit.until(
            lambda: "192.168.1.99:51820" in candidates(lab.node("public"), "mobile"), "it is published", 20
        )


def test_another_network_takes_over_where_one_goes_down(lab: Lab) -> None:
    mobile, still = lab.node("mobile"), lab.node("still")
    with undisturbed(lab, "mobile"), under_load(lab):
        lab.unplug("mobile", "home")
        mobile.run(["ip", "route", "replace", "default", "via", "192.168.2.1"])
        reaches(lab.node("public"), "mobile")
        # Nobody but members tells the other home where to look.
        reaches(still, "mobile", 30)
    office = lab.node("r2").address("net")
    meshkit.until(lambda: meshkit.peers(still)["mobile"].endpoint.startswith(f"{office}:"), "by the office")


def test_what_a_cable_without_a_carrier_has_is_shown_to_nobody(lab: Lab) -> None:
    gone = "192.168.1.99:51820"
    meshkit.until(lambda: gone not in candidates(lab.node("public"), "mobile"), "it is taken back", 20)


def test_who_slept_is_back_at_once_and_nobody_stays_dead_or_has_a_wrong_clock(lab: Lab) -> None:
    mobile, public = lab.node("mobile"), lab.node("public")
    with undisturbed(lab, "mobile"), Traffic(lab) as traffic:
        ping = traffic.ping("public", "mobile", overlay_of(public, "mobile"))
        mobile.pause()
        meshkit.until(lambda: meshkit.peers(public)["mobile"].state != "alive", "its silence is noticed", 40)
        meshkit.until(lambda: meshkit.peers(public)["mobile"].link == "down", "its link is closed", 20)
        mobile.resume()
        heard = len(ping.answers())
        meshkit.until(lambda: len(ping.answers()) > heard, "pings are answered", BACK_S)
    for name in MEMBERS:
        others = [one for one in MEMBERS if one != name]
        meshkit.until(lambda: all_alive(lab.node(name), others), f"{name} sees all alive", 30)  # noqa: B023
    for name in ("mobile", "public"):
        said = lab.node(name).run(["meshpeer", "doctor", "--json"], check=False).stdout
        lines = msgspec.json.decode(said, type=Doctor).findings
        assert [one.level for one in lines if one.check == "clock"] == ["ok"], lines


def test_a_router_that_forgets_its_translations_lets_traffic_in_within_a_keepalive(lab: Lab) -> None:
    with undisturbed(lab, "mobile"):
        lab.reboot_router("r2")
        reaches(lab.node("public"), "mobile", 25 + 5)
        reaches(lab.node("still"), "mobile", 25 + 5)


def test_a_router_with_a_new_address_is_found_by_who_is_open_and_by_who_is_behind_another(lab: Lab) -> None:
    with undisturbed(lab, "mobile", "still"), under_load(lab):
        lab.reboot_router("r2", "198.51.100.77/24")
        reaches(lab.node("public"), "mobile")
        reaches(lab.node("still"), "mobile", 30)

    def is_direct() -> bool:
        return meshkit.peers(lab.node("still"))["mobile"].endpoint.startswith("198.51.100.77:")

    # A relay may serve them until both routers let them through.
    meshkit.until(is_direct, "the pair has a way of its own", 60)


def test_a_name_that_leads_elsewhere_is_resolved_anew(lab: Lab) -> None:
    still, old = lab.node("still"), lab.node("r4").address("net")
    before = meshkit.peers(still)["server"].endpoint
    assert before == f"{old}:51820"
    with undisturbed(lab, "still", "server"):
        # The server itself is silent: only who has the name finds it.
        lab.node("server").pause()
        lab.reboot_router("r4", "198.51.100.88/24")
        meshkit.call(lab.nodes.values(), NAME, "198.51.100.88")
        lab.node("server").resume()
        reaches(still, "server", 40)
        meshkit.until(lambda: meshkit.peers(still)["server"].link == "up", "by a link, too", 40)
    assert meshkit.peers(still)["server"].endpoint == "198.51.100.88:51820"


# --- helpers ------------------------------------------------------------------------------------------------


def reaches(node: Node, other: str, within_s: float = BACK_S) -> None:
    meshkit.until(lambda: meshkit.pings(node, f"{other}.mesh"), f"{node.name} reaches {other}", within_s)


def overlay_of(node: Node, other: str) -> str:
    return meshkit.peers(node)[other].ipv4


def all_alive(node: Node, others: list[str]) -> bool:
    known = meshkit.peers(node)
    return all(known[one].state == "alive" for one in others)


def candidates(node: Node, other: str) -> list[str]:
    return [one.endpoint for one in meshkit.why(node, node.name, other).candidates if one.known_since]


@contextlib.contextmanager
def undisturbed(lab: Lab, *names: str) -> Iterator[None]:
    """Whatever happens meanwhile, these agents and their interfaces' programs stay the same processes."""
    before = {name: lab.node(name).pgrep(r"meshpeer|wireguard") for name in names}
    yield
    assert {name: lab.node(name).pgrep(r"meshpeer|wireguard") for name in names} == before


@contextlib.contextmanager
def under_load(lab: Lab) -> Iterator[None]:
    """A connection from public to mobile that must live, and pings both ways."""
    public, mobile = lab.node("public"), lab.node("mobile")
    with Traffic(lab) as traffic:
        talk = traffic.talk("public", "mobile", overlay_of(public, "mobile"))
        traffic.ping("public", "mobile", overlay_of(public, "mobile"))
        traffic.ping("mobile", "public", overlay_of(mobile, "public"))
        meshkit.until(lambda: len(talk.answers()) > 3, "they talk")
        yield
        answered = len(talk.answers())
        meshkit.until(lambda: len(talk.answers()) > answered, "the connection goes on", BACK_S)
        assert talk.lost() == ""
