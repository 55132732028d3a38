"""Probes from a port that WireGuard owns find which ways lead there and back, before WireGuard takes one."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import meshkit
import pytest
from meshlab import Lab, Node

if TYPE_CHECKING:
    from conftest import Eventually, MakeLab

pytestmark = pytest.mark.netns

_DRIVER = str(Path(__file__).parent / "probe_driver.py")
_PORT = 51820
_OVERLAY = ("10.99.0.1", "10.99.0.2")
Say = Callable[[str], dict[str, Any]]


@pytest.mark.parametrize("family", [4, 6])
def test_two_on_one_lan_confirm_each_other_and_wireguard_keeps_its_port(
    make_lab: MakeLab, eventually: Eventually, family: int
) -> None:
    lab = make_lab(meshkit.lan("alpha", "bravo"))
    with probing(lab, eventually) as says:
        ends = [end_of(lab.node(name).address(None, family)) for name in ("alpha", "bravo")]
        before = [counters(lab.node(name)) for name in ("alpha", "bravo")]
        aim(says, [ends[1]], [ends[0]])
        eventually(lambda: confirmed(says) == [[ends[1]], [ends[0]]], "both ways")
        assert paths(says[0])[0]["seen"] == ends[0], "the peer saw it come from WireGuard's own port"
        assert 0 < paths(says[0])[0]["rtt_s"] < 1
        # WireGuard dropped them all in silence: no handshake, nothing sent or received.
        assert [counters(lab.node(name)) for name in ("alpha", "bravo")] == before
        use(lab, ends)
        with meshkit.pinging(lab.node("alpha"), _OVERLAY[1]):
            eventually(lambda: confirmed(says) == [[ends[1]], [ends[0]]], "beside a tunnel at work")


def test_probes_open_the_way_between_two_homes_and_wireguard_takes_it(
    make_lab: MakeLab, eventually: Eventually
) -> None:
    lab = make_lab(meshkit.two_homes("masquerade", "masquerade"))
    with probing(lab, eventually) as says:
        ends = outside_ends(lab)
        aim(says, [home(lab, "bravo"), ends[1]], [home(lab, "alpha"), ends[0]])
        eventually(lambda: confirmed(says) == [[ends[1]], [ends[0]]], "both ways through both routers")
        assert paths(says[0])[1]["seen"] == ends[0]
        use(lab, ends)
        ping = ["ping", "-c3", "-i0.2", "-W2", _OVERLAY[1]]
        assert " 0% packet loss" in lab.node("alpha").run(ping).stdout, "the first packet goes through"


@pytest.mark.parametrize(("left", "right"), [("symmetric", "symmetric"), ("masquerade", "symmetric")])
def test_homes_whose_routers_make_a_mapping_for_each_do_not_confirm(
    make_lab: MakeLab, eventually: Eventually, left: str, right: str
) -> None:
    lab = make_lab(meshkit.two_homes(left, right))
    with probing(lab, eventually) as says:
        ends = outside_ends(lab)
        aim(says, [home(lab, "bravo"), ends[1]], [home(lab, "alpha"), ends[0]])
        # All of the quick tries, and one of those that follow for ever.
        eventually(lambda: all(one["sent"] >= 9 for say in says for one in paths(say)), "it was tried", 30)
        assert confirmed(says) == [[], []]
        assert not any(one["back"] for say in says for one in paths(say))


def test_a_machine_that_may_not_says_so_and_goes_without(make_lab: MakeLab, eventually: Eventually) -> None:
    lab = make_lab(meshkit.lan("alpha", "bravo"))
    with probing(lab, eventually, without="net_raw") as says:
        # The driver answers before it has tried to open the port: ask until it has.
        eventually(lambda: says[0]("look")["said"], "it says something")
        (said,) = says[0]("look")["said"]
        assert said == (
            "paths are not probed from WireGuard's own port: "
            "probes can't be sent from WireGuard's own port: Operation not permitted"
        )
        assert not says[0]("look")["able"]


# --- helpers ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def probing(lab: Lab, eventually: Eventually, *, without: str = "") -> Iterator[list[Say]]:
    """Makes an interface on both machines, with the other as a peer but no endpoint, and runs the drivers."""
    nodes = [lab.node("alpha"), lab.node("bravo")]
    keys = []
    for number, node in enumerate(nodes):
        if node.run(["ip", "link", "add", "wg0", "type", "wireguard"], check=False).returncode != 0:
            node.run(["wireguard-go", "wg0"])
            answers = ["wg", "show", "wg0"]
            eventually(lambda: node.run(answers, check=False).returncode == 0, "it answers")  # noqa: B023
        node.run(["sh", "-c", "umask 077; wg genkey > /run/key"])
        keys.append(node.run(["sh", "-c", "wg pubkey < /run/key"]).stdout.strip())
        node.run(["wg", "set", "wg0", "listen-port", str(_PORT), "private-key", "/run/key"])
        node.run(["ip", "addr", "add", f"{_OVERLAY[number]}/24", "dev", "wg0"])
        node.run(["ip", "link", "set", "wg0", "up"])
    for number, node in enumerate(nodes):
        allowed = f"{_OVERLAY[1 - number]}/32"
        node.run(["wg", "set", "wg0", "peer", keys[1 - number], "allowed-ips", allowed])
    with contextlib.ExitStack() as stack:
        says = [
            stack.enter_context(driving(node, keys[1 - number], without)) for number, node in enumerate(nodes)
        ]
        if not without:
            eventually(lambda: all(say("look")["able"] for say in says), "both have the port")
        yield says


@contextlib.contextmanager
def driving(node: Node, peer: str, without: str) -> Iterator[Say]:
    argv = [sys.executable, "-u", _DRIVER, "/run/key", peer]
    if without:
        argv = ["setpriv", f"--bounding-set=-{without}", f"--inh-caps=-{without}", *argv]
    with node.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as driver:
        assert driver.stdin is not None
        assert driver.stdout is not None
        words, answers = driver.stdin, driver.stdout

        def say(line: str) -> dict[str, Any]:
            words.write(line + "\n")
            words.flush()
            answer = json.loads(answers.readline())
            assert isinstance(answer, dict)
            return answer

        yield say
        with contextlib.suppress(BrokenPipeError):
            words.close()


def aim(says: list[Say], *endpoints: list[str]) -> None:
    for say, at in zip(says, endpoints, strict=True):
        say(f"aim {' '.join(at)}")


def paths(say: Say) -> list[dict[str, Any]]:
    shown = say("look")["paths"]
    assert isinstance(shown, list)
    return shown


def confirmed(says: list[Say]) -> list[list[str]]:
    return [[one["endpoint"] for one in paths(say) if one["both"]] for say in says]


def counters(node: Node) -> str:
    return (
        node.run(["wg", "show", "wg0", "transfer"]).stdout
        + node.run(["wg", "show", "wg0", "latest-handshakes"]).stdout
    )


def use(lab: Lab, ends: list[str]) -> None:
    """Lets WireGuard take the confirmed way, as an agent would."""
    for number, name in enumerate(("alpha", "bravo")):
        peer = lab.node(name).run(["wg", "show", "wg0", "peers"]).stdout.strip()
        lab.node(name).run(["wg", "set", "wg0", "peer", peer, "endpoint", ends[1 - number]])


def end_of(host: str) -> str:
    return f"[{host}]:{_PORT}" if ":" in host else f"{host}:{_PORT}"


def home(lab: Lab, name: str) -> str:
    return end_of(lab.node(name).address())


def outside_ends(lab: Lab) -> list[str]:
    return [end_of(lab.node(name).address("net")) for name in ("r1", "r2")]
