"""LANs behind members: machines without meshpeer are reached over the mesh, from near and through hubs, and
nothing else is: two regions, an office with two routers, and a home that has the office's prefix."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING

import meshkit
import pytest
from meshlab import Lab, Node

if TYPE_CHECKING:
    from conftest import MakeLab

pytestmark = [pytest.mark.netns, pytest.mark.slow]

OFFICE = "192.168.5.0/24"
ROUTERS = ("bravo", "foxtrot")
"""Of the office; bravo was admitted first."""
REGIONS = {"alpha": "eu", "bravo": "eu", "charlie": "eu", "foxtrot": "eu", "delta": "us", "echo": "us"}
HUBS = ("alpha", "delta")
LAB = """
name = "lans"
[lans.net]
ipv4 = "192.168.77.0/24"
ipv6 = "fd77:77::/64"
[lans.office]
ipv4 = "192.168.5.0/24"
ipv6 = "fd05:5::/64"
[lans.home]
ipv4 = "192.168.6.0/24"
[nodes.alpha]
lans = ["net"]
[nodes.bravo]
lans = ["net", "office"]
[nodes.charlie]
lans = ["net", "home"]
[nodes.delta]
lans = ["net"]
[nodes.echo]
lans = ["net"]
[nodes.foxtrot]
lans = ["net", "office"]
[nodes.printer]
lans = ["office"]
[nodes.nas]
lans = ["home"]
"""
HOME = """
name = "home"
[lans.net]
ipv4 = "198.51.100.0/24"
[lans.home]
ipv4 = "192.168.1.0/24"
[nodes.public]
lans = ["net"]
[nodes.inside]
lans = ["home"]
[nodes.printer]
lans = ["home"]
[routers.r1]
outside = "net"
inside = ["home"]
nat = "masquerade"
"""
NAS = "192.168.5.90"
"""At home, with an address that the office has, too."""
PAGE = "a page of the printer\n"
TABLE = ["nft", "list", "table", "inet", "meshpeer_wg0"]


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with meshkit.shown_lab(request, LAB) as lab:
        lab.node("charlie").run(["ip", "address", "add", "192.168.5.80/24", "dev", "home"])
        lab.node("nas").run(["ip", "address", "add", f"{NAS}/24", "dev", "home"])
        lab.node("printer").put_file("/run/www/index.html", PAGE)
        serving = ["python3", "-m", "http.server", "--bind", "::", "--directory", "/run/www", "80"]
        with lab.node("printer").popen(
            serving, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        ) as server:
            for name in REGIONS:
                settle(lab.node(name), advertises=name in (*ROUTERS, "delta"))
            meshkit.found(lab.node("alpha"), "--topology", "regional", "--region", "eu")
            for name, region in REGIONS.items():
                routes = ("--route", OFFICE, "--route", "fd05:5::/64") if name in ROUTERS else ()
                if name != "alpha":
                    text = meshkit.invite(lab.node("alpha"), *routes)
                    meshkit.join(lab.node(name), text, "--region", region)
            for name in ("alpha", "echo", "charlie"):
                node = lab.node(name)
                for other in REGIONS:
                    meshkit.until(lambda: meshkit.pings(node, f"{other}.mesh"), f"{name} - {other}", 60)  # noqa: B023
            yield lab
            server.kill()


@pytest.mark.parametrize("name", ["alpha", "echo"])
def test_a_machine_behind_a_member_is_reached_from_near_and_through_hubs(lab: Lab, name: str) -> None:
    node, printer = lab.node(name), lab.node("printer")
    for family in (4, 6):
        address = printer.address("office", family)
        meshkit.until(lambda: meshkit.pings(node, address), f"{name} pings {address}", 30)  # noqa: B023
        assert fetched(node, address) == PAGE
    bravo = meshkit.peers(node)["bravo"]
    assert bravo.path == ("hub" if name == "echo" else "direct")
    assert bravo.routes == (OFFICE, "fd05:5::/64")
    assert OFFICE in meshkit.plan(node).routes
    assert f"bravo leads to {OFFICE}, fd05:5::/64" in meshkit.meshpeer(node, "peers")
    assert OFFICE in meshkit.meshpeer(node, "export", "wg-quick")


def test_of_two_routers_one_leads_and_the_other_says_that_it_waits(lab: Lab) -> None:
    waiting = meshkit.status(lab.node("foxtrot"))
    assert waiting.node.routes == (OFFICE, "fd05:5::/64")
    assert any(f"{OFFICE} is reached through bravo" in one for one in waiting.warnings), waiting.warnings
    assert waiting.health == "ok"
    assert not [one for one in meshkit.status(lab.node("bravo")).warnings if OFFICE in one]


def test_a_lan_is_left_out_where_the_machine_has_its_prefix_itself_until_that_is_gone(lab: Lab) -> None:
    charlie, printer = lab.node("charlie"), lab.node("printer").address("office")
    assert meshkit.pings(charlie, NAS), "its own LAN works"
    assert meshkit.pings(charlie, "echo.mesh"), "all else is applied"
    assert meshkit.pings(charlie, lab.node("printer").address("office", 6)), "also another LAN of bravo"
    said = meshkit.status(charlie).warnings
    assert any(f"{OFFICE} behind bravo is not routed here" in one and "on home" in one for one in said), said
    assert OFFICE not in meshkit.plan(charlie).routes
    assert OFFICE not in meshkit.meshpeer(charlie, "export", "wg-quick")
    charlie.run(["ip", "address", "delete", "192.168.5.80/24", "dev", "home"])
    meshkit.until(lambda: meshkit.pings(charlie, printer), "the office's LAN is routed", 20)
    charlie.run(["ip", "address", "add", "192.168.5.80/24", "dev", "home"])
    meshkit.until(lambda: meshkit.pings(charlie, NAS), "and gives way to an own one", 20)
    meshkit.until(lambda: OFFICE not in meshkit.plan(charlie).routes, "and is left out again", 20)


def test_a_lan_that_the_certificate_does_not_allow_is_not_advertised_and_named(lab: Lab) -> None:
    delta = meshkit.status(lab.node("delta"))
    assert delta.node.routes == ()
    (said,) = [one for one in delta.warnings if "is not advertised" in one]
    assert said.startswith(f"{OFFICE} is not advertised: this node's certificate does not allow it"), said
    assert f"meshpeer invite --route {OFFICE}" in said
    assert meshkit.peers(lab.node("alpha"))["delta"].routes == ()
    assert lab.node("delta").run(TABLE).stdout.count("192.168.5.0/24"), "as a hub it carries the office's"


def test_a_lan_begins_nothing_and_its_router_passes_on_nothing_else(lab: Lab) -> None:
    printer, bravo, alpha = lab.node("printer"), lab.node("bravo"), lab.node("alpha")
    for prefix in ("10.10.0.0/24", "192.168.77.0/24"):
        printer.run(["ip", "route", "add", prefix, "via", bravo.address("office")])
    assert not meshkit.pings(printer, meshkit.status(alpha).node.ipv4), "not into the mesh"
    assert not meshkit.pings(printer, alpha.address("net")), "bravo is no router"
    assert meshkit.pings(printer, bravo.address("net")), "but for itself"


def test_the_other_router_takes_over_where_one_is_gone_and_gives_back(lab: Lab) -> None:
    printer = lab.node("printer").address("office")
    lab.unplug("bravo")
    for name in ("alpha", "echo"):
        node = lab.node(name)
        meshkit.until(lambda: meshkit.pings(node, printer), f"{name} reaches it by foxtrot", 40)  # noqa: B023
        assert fetched(node, printer) == PAGE
    assert meshkit.peers(lab.node("alpha"))["foxtrot"].routes == (OFFICE, "fd05:5::/64")
    lab.plug("bravo")
    meshkit.until(
        lambda: meshkit.peers(lab.node("alpha"))["bravo"].routes == (OFFICE, "fd05:5::/64"),
        "bravo is back",
        40,
    )
    for name in ("alpha", "echo"):
        node = lab.node(name)
        meshkit.until(lambda: meshkit.pings(node, printer), f"{name} reaches it by bravo", 40)  # noqa: B023


def test_down_leaves_neither_table_nor_forwarding(lab: Lab) -> None:
    foxtrot = lab.node("foxtrot")
    assert foxtrot.run(TABLE).stdout.count("masquerade")
    assert forwards(foxtrot, "office")
    meshkit.meshpeer(foxtrot, "down")
    assert foxtrot.run(TABLE, check=False).returncode != 0
    assert not forwards(foxtrot, "office")
    assert not forwards(foxtrot, "net")


def test_a_lan_whose_only_way_in_is_the_machine_that_leads_to_it(make_lab: MakeLab) -> None:
    """One machine at home, behind NAT, with one interface: its own address lies in what it advertises."""
    lab = make_lab(HOME)
    public, inside, printer = lab.node("public"), lab.node("inside"), lab.node("printer").address("home")
    inside.put_file("/etc/meshpeer/meshpeer.toml", '[node]\nadvertise = ["192.168.1.0/24"]\n')
    meshkit.found(public)
    meshkit.join(inside, meshkit.invite(public, "--route", "192.168.1.0/24"))
    meshkit.until(lambda: meshkit.pings(public, printer), "public pings the printer", 30)
    meshkit.until(
        lambda: meshkit.peers(public)["inside"].endpoint != "", "public tells its tunnel to inside", 10
    )
    tunnel = meshkit.peers(public)["inside"]
    assert tunnel.endpoint.startswith("198.51.100."), "where the router is, and not inside the LAN"
    with meshkit.pinging(public, printer):
        meshkit.meshpeer(public, "stop")
        meshkit.meshpeer(public, "up", "--detach")
    assert meshkit.pings(inside, "public.mesh")
    assert "192.168.1.0/24" not in meshkit.plan(inside).routes


# --- helpers ------------------------------------------------------------


def settle(node: Node, *, advertises: bool) -> None:
    """Writes a machine's settings."""
    lines = ["[node]", f'hub = "{"prefer" if node.name in HUBS else "never"}"']
    if advertises:
        lines.append(
            f'advertise = ["{OFFICE}", "fd05:5::/64"]'
            if node.name in ROUTERS
            else f'advertise = ["{OFFICE}"]'
        )
    node.put_file("/etc/meshpeer/meshpeer.toml", "\n".join(lines) + "\n")


def fetched(node: Node, address: str) -> str:
    host = f"[{address}]" if ":" in address else address
    read = (
        f"import urllib.request as r; print(r.urlopen('http://{host}/', timeout=5).read().decode(), end='')"
    )
    return node.run(["python3", "-c", read]).stdout


def forwards(node: Node, interface: str) -> bool:
    return node.run(["cat", f"/proc/sys/net/ipv4/conf/{interface}/forwarding"]).stdout.strip() == "1"
