"""What can't be joined or founded is refused in two lines, with an exit code, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace

import meshkit
import pytest
from meshkit import fails
from meshlab import Lab, Node

from meshpeer.core.identity.certificates import Authority
from meshpeer.core.identity.invites import decode_invite, encode_invite

pytestmark = [pytest.mark.netns, pytest.mark.slow]

REFUSED, ENVIRONMENT, USAGE = 4, 5, 2
_SERVER = "import socket; s = socket.create_server(('', 7000)); print('bound', flush=True); "
SILENT = _SERVER + "held = [s.accept() for _ in range(9)]"
RUDE = _SERVER + "exec('while True: s.accept()[0].close()')"
HTTP = (
    "import http.server as h; s = h.HTTPServer(('', 7000), h.SimpleHTTPRequestHandler); "
    "print('bound', flush=True); s.serve_forever()"
)


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Two meshes: alpha's, with charlie in it, and zulu's; bravo is a machine that never was in any."""
    with meshkit.shown_lab(request, meshkit.lan("alpha", "bravo", "charlie", "zulu")) as lab:
        meshkit.found_mesh(lab, "alpha")
        meshkit.found_mesh(lab, "zulu")
        yield lab


@pytest.fixture(scope="module")
def spent(lab: Lab) -> str:
    """An invite that charlie has used up."""
    text = meshkit.invite(lab.node("alpha"))
    meshkit.join(lab.node("charlie"), text)
    meshkit.until(lambda: meshkit.status(lab.node("charlie")).node.admission == "durable", "charlie is in")
    return text


@pytest.fixture(scope="module")
def invite(lab: Lab) -> str:
    """An invite that would do."""
    return meshkit.invite(lab.node("alpha"))


@pytest.fixture
def bravo(lab: Lab) -> Iterator[Node]:
    """The machine that is refused: afterwards it must be as it was."""
    node = lab.node("bravo")
    before = meshkit.footprint(node)
    yield node
    assert meshkit.footprint(node) == before


# --- invites ------------------------------------------------------------


def test_an_expired_invite_is_refused(lab: Lab, bravo: Node) -> None:
    failure = fails(bravo, REFUSED, "join", meshkit.expired_invite(lab.node("alpha")), "--detach")
    assert failure.what.startswith("the invite expired at ")
    assert "this machine's clock says" in failure.what
    assert "meshpeer invite" in failure.hint


def test_an_altered_invite_is_refused(bravo: Node, invite: str) -> None:
    original = decode_invite(invite, now_unix_s=int(time.time()))
    certificate = bytearray(original.authority.certificate)
    certificate[-1] ^= 1
    forged = replace(original, authority=Authority(original.authority.seed, bytes(certificate)))
    failure = fails(bravo, REFUSED, "join", encode_invite(forged), "--detach")
    assert failure.what.startswith("the invite was altered: ")


def test_a_mistyped_invite_is_told_from_a_forged_one(bravo: Node, invite: str) -> None:
    other = "A" if invite[100] != "A" else "B"
    failure = fails(bravo, USAGE, "join", invite[:100] + other + invite[101:], "--detach")
    assert failure.what == "the invite is mistyped"
    assert failure.hint.startswith("copy the whole line")


def test_a_truncated_invite_is_refused(bravo: Node, invite: str) -> None:
    assert fails(bravo, USAGE, "join", invite[:-20], "--detach").what == "the invite is cut off"
    assert fails(bravo, USAGE, "join", "meshpeer1.", "--detach").what == "the invite is cut off"


def test_a_foreign_invite_is_refused(lab: Lab, bravo: Node) -> None:
    seed = f"{lab.node('alpha').address()}:51821"
    foreign = meshkit.invite(lab.node("zulu"))
    failure = fails(bravo, REFUSED, "join", seed, "--invite", foreign, "--detach")
    assert seed in failure.what
    assert "mesh" in failure.what


def test_a_spent_invite_is_refused_and_named(lab: Lab, bravo: Node, spent: str) -> None:
    failure = fails(bravo, REFUSED, "join", spent, "--detach")
    assert failure.what.endswith(
        "does not let this node in: the invite was used 1 of 1 times already (by charlie)"
    )
    assert "meshpeer invite" in failure.hint
    (warning,) = [one for one in meshkit.status(lab.node("alpha")).warnings if "more often" in one]
    assert warning.endswith("its places are held by charlie")


def test_a_seed_without_an_invite_is_wrong_usage(bravo: Node) -> None:
    failure = fails(bravo, USAGE, "join", "192.168.77.11", "--detach")
    assert failure.what == "joining through 192.168.77.11 needs an invite, too"
    assert fails(bravo, USAGE, "join", "--detach").what == "join needs an invite"


# --- seeds ------------------------------------------------------------


def test_a_seed_that_refuses_is_named(lab: Lab, bravo: Node, invite: str) -> None:
    seed = f"{lab.node('alpha').address()}:1"
    failure = fails(bravo, ENVIRONMENT, "join", seed, "--invite", invite, "--detach")
    assert failure.what == f"{seed} refuses connections"
    assert "is meshpeer running there" in failure.hint


@pytest.mark.parametrize("program", [SILENT, RUDE, HTTP], ids=["silent", "rude", "http"])
def test_a_seed_that_is_no_member_is_named(lab: Lab, bravo: Node, invite: str, program: str) -> None:
    zulu = lab.node("zulu")
    seed = f"{zulu.address()}:7000"
    with listening(zulu, program):
        failure = fails(bravo, REFUSED, "join", seed, "--invite", invite, "--detach")
    assert seed in failure.what
    assert failure.hint


def test_a_seed_that_is_not_there_is_named(bravo: Node, invite: str) -> None:
    failure = fails(bravo, ENVIRONMENT, "join", "192.168.77.99", "--invite", invite, "--detach")
    assert failure.what.startswith("192.168.77.99:51821 ")


def test_a_name_in_use_is_refused(bravo: Node, invite: str) -> None:
    failure = fails(bravo, REFUSED, "join", invite, "--name", "alpha", "--detach")
    assert failure.what == "the name 'alpha' is in use by a live node of this mesh"
    assert failure.hint == "choose another with --name"


# --- the machine ------------------------------------------------------------


@pytest.mark.parametrize("command", ["init", "join"])
def test_no_root_is_named_with_the_way_around(bravo: Node, invite: str, command: str) -> None:
    with meshkit.open_folder() as folder:
        folder.chmod(0o777)
        places = ["--state-dir", f"{folder}/state", "--run-dir", f"{folder}/run"]
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        words = [command, *([invite] if command == "join" else []), "--detach", *places]
        failure = meshkit.refused(bravo, ENVIRONMENT, [*user, "meshpeer", *words])
        assert failure.what == "a tunnel needs root (CAP_NET_ADMIN)"
        assert "sudo" in failure.hint
        assert "--backend none" in failure.hint
        assert {path.name for path in folder.iterdir()} == {"begun", "ended"}


@pytest.mark.parametrize("command", ["init", "join"])
def test_missing_wg_is_named_with_its_packages(bravo: Node, invite: str, command: str) -> None:
    with hidden(bravo, "wg"):
        words = [invite] if command == "join" else []
        failure = fails(bravo, ENVIRONMENT, command, *words, "--detach")
    assert failure.what == "`wg` is not installed"
    assert "apt install wireguard-tools" in failure.hint
    assert "dnf install wireguard-tools" in failure.hint


@pytest.mark.parametrize("command", ["init", "join"])
@pytest.mark.parametrize(("protocol", "port"), [("TCP", 51821), ("UDP", 51820)])
def test_a_port_in_use_is_named(bravo: Node, invite: str, command: str, protocol: str, port: int) -> None:
    kind = "STREAM" if protocol == "TCP" else "DGRAM"
    program = f"""
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_{kind}); s.bind(("", {port}))
{"s.listen()" if protocol == "TCP" else ""}
print("bound", flush=True); time.sleep(60)
"""
    words = [invite] if command == "join" else []
    with listening(bravo, program):
        failure = fails(bravo, ENVIRONMENT, command, *words, "--detach")
    assert failure.what == f"{protocol} port {port} is in use"
    assert ("--control-port" if protocol == "TCP" else "--listen-port") in failure.hint


@pytest.mark.parametrize("command", ["init", "join"])
def test_a_subnet_that_a_route_overlaps_is_named(bravo: Node, invite: str, command: str) -> None:
    words = [invite] if command == "join" else []
    bravo.run(["ip", "route", "add", "10.10.0.128/25", "dev", "lan0"])
    try:
        failure = fails(bravo, ENVIRONMENT, command, *words, "--detach")
    finally:
        bravo.run(["ip", "route", "del", "10.10.0.128/25", "dev", "lan0"])
    assert "10.10.0.0/24 overlaps the route 10.10.0.128/25" in failure.what
    assert "lan0" in failure.what


@pytest.mark.parametrize("subnet", ["10.10.0.1", "10.10.0.1/24", "300.1.1.0/24", "fd00::/64", "8.8.8.0/24"])
def test_an_impossible_subnet_is_wrong_usage(bravo: Node, subnet: str) -> None:
    failure = fails(bravo, USAGE, "init", "--subnet", subnet, "--detach")
    assert subnet in failure.what


def test_what_needs_an_agent_says_so(bravo: Node) -> None:
    for words in (["status"], ["peers"], ["plan"], ["invite"], ["jobs", "list"], ["leave"], ["stop"]):
        failure = fails(bravo, 3, *words)
        assert "no agent is running" in failure.what
        assert "meshpeer init" in failure.hint
        assert "meshpeer join" in failure.hint


def test_a_node_is_not_founded_twice(lab: Lab) -> None:
    alpha = lab.node("alpha")
    before = meshkit.status(alpha).node
    for words in (["init"], ["join", meshkit.invite(lab.node("zulu"))], ["up"]):
        failure = fails(alpha, 1, *words, "--detach")
        assert "running already" in failure.what
    assert meshkit.status(alpha).node.id == before.id


# --- helpers ------------------------------------------------------------


@contextlib.contextmanager
def listening(node: Node, program: str) -> Iterator[None]:
    """Runs a Python program that says ``bound`` once it listens."""
    with node.popen(["python3", "-I", "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "bound\n"
            yield
        finally:
            process.kill()


@contextlib.contextmanager
def hidden(node: Node, tool: str) -> Iterator[None]:
    """Lays a file that can't be run over a program, in this machine alone."""
    path = node.run(["sh", "-c", f"command -v {tool}"]).stdout.strip()
    node.run(["mount", "--bind", "/etc/hostname", path])
    try:
        yield
    finally:
        node.run(["umount", path])
