"""Where no UDP gets through: jobs go over links, straight, over a member or through a forwarded port; every
command says so; and WireGuard is back by itself."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import meshkit
import msgspec
import pytest
from meshlab import Lab, Node
from sshkit import SSHD, listens, sshd

from meshpeer.runtime.control import Job, Why

pytestmark = [pytest.mark.netns, pytest.mark.slow]

NOTICED_S = 90.0
"""A tunnel that nobody uses is quiet for a keepalive and some, and is then asked."""
BACK_S = 30.0
OUTPUT_BYTES = 3_000_000
FORWARDED = "127.0.0.1:51900"
_JOBS = itertools.count(1)


@pytest.fixture(scope="module")
def blocked_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Two homes without UDP and a machine that both reach, which runs no tasks itself."""
    with meshkit.shown_lab(request, meshkit.SHIPPED_LABS / "no-udp.toml") as lab:
        lab.node("public").put_file("/etc/meshpeer/meshpeer.toml", "[jobs]\naccept = false\n")
        meshkit.found_mesh(lab, "public", "left", "right")
        yield lab


# --- two nodes ----------------------------------------------------------------------------------------------


def test_a_pair_without_udp_works_over_its_link_says_so_and_is_direct_again(
    request: pytest.FixtureRequest,
) -> None:
    with meshkit.shown_lab(request, meshkit.lan("alpha", "bravo", "charlie")) as lab:
        alpha, bravo = lab.node("alpha"), lab.node("bravo")
        meshkit.found_mesh(lab, "alpha", "bravo", "charlie")
        meshkit.wait_until_whole(lab, "alpha", "bravo", "charlie")
        assert channel_of(alpha) == ["WireGuard"]
        with no_udp(bravo, [alpha.address(), alpha.address(family=6)]):
            meshkit.until(path_is(alpha, "bravo", "link"), "alpha notices", NOTICED_S)
            meshkit.until(path_is(bravo, "alpha", "link"), "bravo notices", NOTICED_S)
            assert meshkit.peers(alpha)["charlie"].path == "direct"
            assert meshkit.peers(alpha)["bravo"].link_via == ""
            first, second = channel_of(alpha)
            assert first == "WireGuard to 1 of 2"
            assert second.startswith("links only to bravo: no UDP answered since ")
            assert meshkit.status(alpha).health == "ok"
            why = meshkit.ask(alpha, Why, "why", "bravo")
            assert why.verdict == "link"
            assert "no UDP answered since " in why.answer
            assert meshkit.ask(bravo, Why, "why", "alpha").verdict == "link"
            assert "over its link" in meshkit.meshpeer(alpha, "ping", "bravo")
            assert run_on(alpha, "bravo")
        meshkit.until(path_is(alpha, "bravo", "direct"), "alpha is back", BACK_S)
        meshkit.until(path_is(bravo, "alpha", "direct"), "bravo is back", BACK_S)
        assert meshkit.pings(alpha, "bravo.mesh")
        assert channel_of(alpha) == ["WireGuard"]


def test_an_end_that_still_hears_the_other_learns_that_it_is_not_heard(
    request: pytest.FixtureRequest,
) -> None:
    """What goes one way alone looks well at one end: keepalives come in, and a handshake is young."""
    with meshkit.shown_lab(request, meshkit.lan("alpha", "bravo")) as lab:
        alpha, bravo = lab.node("alpha"), lab.node("bravo")
        meshkit.found_mesh(lab, "alpha", "bravo")
        meshkit.wait_until_whole(lab, "alpha", "bravo")
        with no_udp(bravo, [alpha.address(), alpha.address(family=6)], hooks=("output",)):
            meshkit.until(path_is(alpha, "bravo", "link"), "alpha hears nothing", NOTICED_S)
            meshkit.until(path_is(bravo, "alpha", "link"), "bravo is told", 30)
            assert meshkit.status(bravo).health == "degraded"
        meshkit.until(path_is(bravo, "alpha", "direct"), "bravo is back", BACK_S)


# --- over a member ------------------------------------------------------------------------------------------


def test_two_that_can_not_dial_each_other_are_linked_over_a_member(blocked_lab: Lab) -> None:
    left, right = blocked_lab.node("left"), blocked_lab.node("right")
    for one, other in ((left, "right"), (right, "left")):
        meshkit.until(linked_over(one, other, "public"), f"{one.name} is linked to {other}", 30)
        found = meshkit.peers(one)[other]
        assert (found.state, found.path, found.via, found.link_via) == ("alive", "link", "public", "public")
    shown = channel_of(left)
    assert shown[0].startswith("links only: no UDP answered yet, asked since ")
    assert "the link to right goes by public" in shown
    assert "right (via public) over its link: 1 of 1 answered" in meshkit.meshpeer(left, "ping", "right")
    why = meshkit.ask(left, Why, "why", "right")
    assert (why.verdict, "link_carried" in {rule.code for rule in why.rule}) == ("link", True)


def test_a_task_runs_on_the_far_side_and_its_output_comes_home(blocked_lab: Lab) -> None:
    left = blocked_lab.node("left")
    meshkit.until(linked_over(left, "right", "public"), "left is linked to right", 30)
    assert run_on(left, "right")
    assert run_on(blocked_lab.node("right"), "left")


def test_without_the_member_in_between_there_is_no_way_and_with_it_there_is_again(blocked_lab: Lab) -> None:
    left, public = blocked_lab.node("left"), blocked_lab.node("public")
    meshkit.until(linked_over(left, "right", "public"), "left is linked to right", 30)
    meshkit.kill_agent(public)
    meshkit.until(path_is(left, "right", "none"), "left has no way to right", 30)
    assert meshkit.status(left).health == "alone"
    meshkit.meshpeer(public, "up", "--detach")
    meshkit.until(linked_over(left, "right", "public"), "left is linked to right", 60)
    assert run_on(left, "right")


def test_a_member_whose_owner_does_not_want_to_carry_does_not(blocked_lab: Lab) -> None:
    left, public = blocked_lab.node("left"), blocked_lab.node("public")
    settings = "[jobs]\naccept = false\n[relay]\naccept = false\n"
    public.put_file("/etc/meshpeer/meshpeer.toml", settings)
    meshkit.meshpeer(public, "stop")
    meshkit.until(lambda: not meshkit.agents(public), "public has stopped")
    meshkit.meshpeer(public, "up", "--detach")
    meshkit.until(path_is(left, "public", "link"), "left is linked to public", 30)
    meshkit.until(path_is(left, "right", "none"), "left has no way to right", 30)


def test_a_network_that_lets_udp_out_again_gives_tunnels_and_straight_links(
    request: pytest.FixtureRequest,
) -> None:
    with meshkit.shown_lab(request, meshkit.SHIPPED_LABS / "two-nats.toml") as lab:
        left, right = lab.node("left"), lab.node("right")
        with no_udp(left):
            meshkit.found_mesh(lab, "public", "left", "right")
            meshkit.until(linked_over(left, "right", "public"), "left is linked to right", 30)
            meshkit.until(path_is(left, "public", "link"), "left is linked to public", 30)
        for one, other in ((left, "public"), (left, "right"), (right, "left")):
            meshkit.until(path_is(one, other, "direct"), f"{one.name} has a tunnel to {other}", BACK_S)
        meshkit.until(linked_over(left, "right", ""), "the link goes through the tunnel", 60)
        assert channel_of(left) == ["WireGuard"]


# --- through a forwarded port -------------------------------------------------------------------------------


@pytest.mark.skipif(SSHD is None, reason="no sshd: bootstrap does not bring one to a machine with systemd")
def test_a_node_whose_only_way_is_a_port_that_ssh_forwards(request: pytest.FixtureRequest) -> None:
    with meshkit.shown_lab(request, meshkit.SHIPPED_LABS / "ssh-only.toml") as lab:
        public, inner = lab.node("public"), lab.node("inner")
        meshkit.found_mesh(lab, "public", "third")
        text = meshkit.invite(public)
        with sshd(public, inner), only_ssh_gets_out(inner):
            failure = meshkit.fails(inner, 5, "join", text, "--detach")
            assert "51821" in failure.what
            settings = f'[mesh]\nseeds = ["{FORWARDED}"]\nvia = "ssh"\n'
            inner.put_file("/etc/meshpeer/meshpeer.toml", settings)
            with forwarded(inner, public):
                meshkit.join(inner, text)
                meshkit.until(linked_over(inner, "third", "public"), "inner is linked to third", 30)
                assert run_on(inner, "public")
                assert run_on(inner, "third")
                assert run_on(lab.node("third"), "inner")
                for one, other in ((inner, "public"), (public, "inner")):
                    found = meshkit.peers(one)[other]
                    assert (found.path, found.via, found.link_via) == ("link", "ssh", "ssh")
                assert "the link to public goes by ssh" in channel_of(inner)
                tried = {one.endpoint for one in meshkit.ask(inner, Why, "why", "public").candidates}
                assert not any(one.startswith("127.") for one in tried)
            meshkit.until(path_is(inner, "public", "none"), "the forwarded port is gone", 30)
            with forwarded(inner, public):
                meshkit.until(path_is(inner, "public", "link"), "and is back", 60)


# --- helpers ------------------------------------------------------------------------------------------------


def path_is(node: Node, other: str, path: str) -> Callable[[], bool]:
    return lambda: meshkit.peers(node)[other].path == path


def linked_over(node: Node, other: str, via: str) -> Callable[[], bool]:
    def condition() -> bool:
        found = meshkit.peers(node).get(other)
        return found is not None and (found.link, found.link_via) == ("up", via)

    return condition


def channel_of(node: Node) -> list[str]:
    """Returns what ``status`` says of channels, line by line."""
    lines = meshkit.meshpeer(node, "status").splitlines()
    at = next(number for number, line in enumerate(lines) if line.split()[:1] == ["channel"])
    column = lines[at].index("channel") + len("channel")
    shown = [lines[at][column:].strip()]
    for line in lines[at + 1 :]:
        if line[:column].strip():
            break
        shown.append(line.strip())
    return shown


def run_on(node: Node, worker: str) -> bool:
    """Runs a job of many tasks that each make a large file; says whether ``worker`` made some, and all came
    home."""
    number = next(_JOBS)
    run = f"hostname > out && head -c {OUTPUT_BYTES} /dev/zero >> out && sleep 0.5 && : {number}"
    spec = {"name": "far", "tasks": {"t": {"array": "0-11", "run": run, "outputs": ["out"]}}}
    home = f"/var/lib/meshpeer/home-{number}"
    done = node.run(
        ["meshpeer", "jobs", "submit", "-", "--wait", "--json", "--output", home],
        input=msgspec.json.encode(spec).decode(),
        timeout=90,
    )
    job = msgspec.json.decode(done.stdout, type=Job)
    assert job.state == "succeeded", job
    files = [one for one in node.path(home).rglob("out") if one.is_file()]
    assert len(files) == 12, files
    assert {one.stat().st_size > OUTPUT_BYTES for one in files} == {True}
    makers = {one.read_bytes().partition(b"\n")[0].decode() for one in files}
    return worker in makers and worker in job.done_on


@contextmanager
def no_udp(
    node: Node, addresses: Sequence[str] = (), *, hooks: Sequence[str] = ("input", "output")
) -> Iterator[None]:
    """Drops all UDP of a machine's own network, or what goes between it and some addresses."""
    chains = []
    for hook in hooks:
        side, device = ("saddr", "iifname") if hook == "input" else ("daddr", "oifname")
        whose = [f"{'ip6' if ':' in one else 'ip'} {side} {one} " for one in addresses]
        rules = [f'{device} != {{ "lo", "wg0" }} {one}meta l4proto udp drop' for one in whose or [""]]
        chains.append(f"chain {hook} {{ type filter hook {hook} priority -10\n" + "\n".join(rules) + "\n}")
    with _table(node, "noudp", "\n".join(chains)):
        yield


@contextmanager
def only_ssh_gets_out(node: Node) -> Iterator[None]:
    rules = """chain output { type filter hook output priority -10; policy drop
        oifname { "lo", "wg0" } accept
        tcp dport 22 accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    }"""
    with _table(node, "office", rules):
        yield


@contextmanager
def _table(node: Node, name: str, content: str) -> Iterator[None]:
    node.run(["nft", "-f", "-"], input=f"table inet {name} {{\n{content}\n}}\n")
    try:
        yield
    finally:
        node.run(["nft", "delete", "table", "inet", name])


@contextmanager
def forwarded(client: Node, server: Node) -> Iterator[None]:
    """Forwards a port as the documentation says."""
    options = ("StrictHostKeyChecking=accept-new", "UserKnownHostsFile=/run/lab/known")
    argv = ["ssh", "-N", "-i", "/run/lab/id", *(word for one in options for word in ("-o", one))]
    argv += ["-o", "ExitOnForwardFailure=yes", "-o", "ServerAliveInterval=15"]
    argv += ["-L", f"{FORWARDED}:127.0.0.1:51821", f"root@{server.address()}"]
    with ExitStack() as stack:
        process = stack.enter_context(client.popen(argv, stderr=subprocess.DEVNULL))
        stack.callback(process.terminate)
        meshkit.until(lambda: listens(client, 51900), "ssh forwards the port", 30)
        yield
