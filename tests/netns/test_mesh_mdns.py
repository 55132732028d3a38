"""Members on one network find each other by multicast DNS, beside another program on port 5353, and nothing
of them is left there when they stop."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import meshkit
import pytest
from conftest import MakeLab
from meshlab import Node

pytestmark = [pytest.mark.netns, pytest.mark.slow]

HEARD_S = 20.0
SERVICE = "_meshpeer._tcp"
BROWSE = """
import sys, time, zeroconf
def changed(zeroconf, service_type, name, state_change):
    info = zeroconf.get_service_info(service_type, name) if state_change.name != "Removed" else None
    where = ",".join(info.parsed_addresses()) if info else ""
    print(state_change.name, name.partition(".")[0], where, flush=True)
daemon = zeroconf.Zeroconf()
zeroconf.ServiceBrowser(daemon, sys.argv[1], handlers=[changed])
time.sleep(3600)
"""
AVAHI = """
[server]
use-ipv4=yes
use-ipv6=yes
[wide-area]
enable-wide-area=no
"""


def test_members_appear_move_and_disappear_and_find_whom_no_seed_leads_to(
    make_lab: MakeLab, tmp_path: Path
) -> None:
    lab = make_lab("two-nodes")
    alpha, bravo = lab.node("alpha"), lab.node("bravo")
    with browsing(alpha, tmp_path / "heard") as heard:
        meshkit.found_mesh(lab, "alpha", "bravo")
        names = {node.name: meshkit.status(node).node.id[:20] for node in (alpha, bravo)}
        for node in (alpha, bravo):
            shown(heard, names[node.name], node.address())
        # A node that moves is announced where it is now.
        readdress(bravo, "192.168.77.99")
        shown(heard, names["bravo"], "192.168.77.99")
        for node in (bravo, alpha):
            meshkit.meshpeer(node, "down")
            shown(heard, names[node.name], None)
        # Both moved while neither ran: no address that either remembers leads to the other.
        readdress(alpha, "192.168.77.111")
        readdress(bravo, "192.168.77.112")
        for node in (alpha, bravo):
            node.run(["sh", "-c", "ip -6 address flush dev lan0 scope global"])
            meshkit.meshpeer(node, "up", "--detach")
        meshkit.until(meshkit.sees_alive(bravo, "alpha"), "bravo found alpha", 40)


@pytest.mark.skipif(shutil.which("avahi-daemon") is None, reason="there is no avahi-daemon")
def test_avahi_on_the_same_machine_sees_them_come_and_go(make_lab: MakeLab, tmp_path: Path) -> None:
    lab = make_lab("two-nodes")
    alpha, bravo = lab.node("alpha"), lab.node("bravo")
    with avahi(alpha, tmp_path):
        meshkit.found_mesh(lab, "alpha", "bravo")
        meshkit.until(
            lambda: {alpha.address(), bravo.address()} <= resolved(alpha), "Avahi sees both", HEARD_S
        )
        meshkit.meshpeer(bravo, "down")
        meshkit.until(lambda: bravo.address() not in resolved(alpha), "Avahi sees bravo go", HEARD_S)
        assert alpha.address() in resolved(alpha)


# --- helpers ------------------------------------------------------------------------------------------------


def shown(heard: Callable[[], list[str]], name: str, address: str | None) -> None:
    """Waits until the last word on a node names an address; with None, until it says that the node is
    gone."""

    def holds() -> bool:
        words = [line.split() for line in heard() if name in line]
        if not words or address is None:
            return bool(words) and words[-1][0] == "Removed"
        return words[-1][0] != "Removed" and address in words[-1][-1].split(",")

    meshkit.until(holds, f"{name} at {address}", HEARD_S)


def readdress(node: Node, address: str) -> None:
    node.run(["ip", "-4", "address", "flush", "dev", "lan0"])
    node.run(["ip", "address", "add", f"{address}/24", "brd", "+", "dev", "lan0"])


@contextlib.contextmanager
def browsing(node: Node, out: Path) -> Iterator[Callable[[], list[str]]]:
    """Has another program of a machine listen on the same port; yields what it has heard."""
    with out.open("w") as file:
        words = [sys.executable, "-c", BROWSE, f"{SERVICE}.local."]
        process = node.popen(words, stdout=file, stderr=subprocess.STDOUT)
        try:
            yield lambda: out.read_text().splitlines()
        finally:
            process.kill()
            process.wait()


@contextlib.contextmanager
def avahi(node: Node, folder: Path) -> Iterator[None]:
    """Runs the daemon of most desktops on a machine."""
    (folder / "avahi.conf").write_text(AVAHI)
    node.run(["mkdir", "-p", "/run/dbus", "/run/avahi-daemon"])
    out = (folder / "avahi.out").open("w")
    started: list[subprocess.Popen[str]] = []
    try:
        for words, ready in (
            (["dbus-daemon", "--system", "--nofork", "--nopidfile"], "/run/dbus/system_bus_socket"),
            (
                ["avahi-daemon", "--no-drop-root", "--no-chroot", "-f", str(folder / "avahi.conf")],
                "/run/avahi-daemon/socket",
            ),
        ):
            started.append(node.popen(words, stdout=out, stderr=subprocess.STDOUT))
            meshkit.until(lambda: node.path(ready).exists(), f"{words[0]} runs")  # noqa: B023
        yield
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait()
        out.close()


def resolved(node: Node) -> set[str]:
    """Returns the addresses of all nodes that Avahi knows."""
    shown = node.run(["avahi-browse", "--resolve", "--terminate", "--parsable", SERVICE], check=False).stdout
    return {line.split(";")[7] for line in shown.splitlines() if line.startswith("=")}
