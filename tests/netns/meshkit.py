"""What a person does with meshpeer in a lab, as functions: found, invite, join, look, break, mend.

Everything goes through the commands that a user types, on the machine that they would be typed on; answers
are read from the documents of ``--json``. Nothing here knows how the agent works inside, but for the files
of its state folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
from meshlab import Lab, Node

from meshpeer.app.state import NodeFile
from meshpeer.core.identity.certificates import SERIAL_BYTES, Authority, make_invite
from meshpeer.core.identity.constraints import INVITE_DEFAULT
from meshpeer.core.identity.invites import Invite, encode_invite
from meshpeer.core.identity.keys import SEED_BYTES, decode_key_file
from meshpeer.core.scheduler.rows import ROW_BYTES_MAX, ResultRow
from meshpeer.core.wire import cbor
from meshpeer.runtime.control import Job, Peer, Plan, Status, Task, Why

SHIPPED_LABS = Path(__file__).resolve().parents[2] / "scripts" / "netns" / "labs"
STATE_DIR = "/var/lib/meshpeer"
LOG = f"{STATE_DIR}/agent.log"
INTERFACE = "wg0"
_AGENT = r"meshpeer (init|join|up)\b"
_READ_RESULTS = """
import sqlite3, sys
database = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
for (value,) in database.execute("SELECT value FROM results"):
    print(value.hex())
"""
_Document = TypeVar("_Document")


# --- commands ------------------------------------------------------------


def meshpeer(node: Node, *words: str, env: Mapping[str, str] | None = None, timeout: float = 60.0) -> str:
    """Runs a command that must succeed; returns what it printed."""
    return node.run(["meshpeer", *words], env=env, timeout=timeout).stdout


def ask(node: Node, kind: type[_Document], *words: str) -> _Document:
    """Runs a command with ``--json``; returns its one document, checked against its shape."""
    return msgspec.json.decode(meshpeer(node, *words, "--json"), type=kind)


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """The two lines of a command that failed: what is wrong, and what to do."""

    what: str
    hint: str


def fails(node: Node, code: int, *words: str, env: Mapping[str, str] | None = None) -> Failure:
    """Runs ``meshpeer`` with these words; it must end with ``code``, two lines and nothing else."""
    return refused(node, code, ["meshpeer", *words], env=env)


def refused(node: Node, code: int, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> Failure:
    """Runs a command line that ends in meshpeer; it must end with ``code``, two lines and nothing else."""
    done = node.run(argv, check=False, env=env)
    assert (done.returncode, done.stdout) == (code, ""), (done.returncode, done.stdout, done.stderr)
    lines = done.stderr.splitlines()
    assert len(lines) == 2, done.stderr
    assert lines[0].startswith("error: "), done.stderr
    assert lines[1].startswith(" hint: "), done.stderr
    return Failure(lines[0].removeprefix("error: "), lines[1].removeprefix(" hint: "))


# --- a mesh ------------------------------------------------------------


def found(node: Node, *options: str) -> str:
    """Founds a mesh on a machine, under the machine's own name."""
    return meshpeer(node, "init", "--name", node.name, "--detach", *options)


def invite(node: Node, *options: str) -> str:
    """Returns a fresh invite."""
    return meshpeer(node, "invite", "--quiet", *options).strip()


def expired_invite(founder: Node) -> str:
    """Makes an invite that ended a minute ago, with the key of the mesh's own issuer."""
    folder = founder.path(STATE_DIR)
    facts = msgspec.json.decode((folder / "node.json").read_bytes(), type=NodeFile)
    seed = decode_key_file((folder / "keys/issuer.key").read_text(), "issuer", "issuer.key")
    authority = make_invite(
        Authority(seed, facts.issuer_certificate),
        bytes(range(SEED_BYTES)),
        capabilities=INVITE_DEFAULT,
        uses=1,
        expires_s=60,
        now_unix_s=int(time.time()) - 120,
        serial=bytes(range(1, SERIAL_BYTES + 1)),
    )
    seeds = (f"{founder.address()}:51821",)
    return encode_invite(
        Invite(authority=authority, issuer=facts.issuer_certificate, roots=facts.roots, seeds=seeds)
    )


def join(node: Node, text: str, *options: str) -> str:
    """Joins with an invite, under the machine's own name."""
    return meshpeer(node, "join", text, "--name", node.name, "--detach", *options)


def found_mesh(lab: Lab, *names: str) -> None:
    """Founds a mesh on the first machine and lets the others join, one after the other."""
    first, *others = names
    found(lab.node(first))
    if others:
        text = invite(lab.node(first), "--uses", str(len(others)))
        for name in others:
            join(lab.node(name), text)


@contextlib.contextmanager
def shown_lab(request: pytest.FixtureRequest, source: str | Path) -> Iterator[Lab]:
    """Runs a lab for a whole module; its machines' logs are shown where one of the module's tests failed."""
    failed_before = request.session.testsfailed
    with Lab.from_toml(source) as lab:
        yield lab
        if request.session.testsfailed > failed_before:
            for node in lab.nodes.values():
                print(node.logs(), end="")


def lan(*names: str) -> str:
    """Returns the text of a lab of machines on one LAN."""
    nodes = "".join(f'[nodes.{name}]\nlans = ["lan0"]\n' for name in names)
    return f'name = "mesh"\n[lans.lan0]\nipv4 = "192.168.77.0/24"\nipv6 = "fd77:77::/64"\n{nodes}'


def two_homes(left: str, right: str, *public: str) -> str:
    """Returns the text of a lab of alpha and bravo, each behind a router with such a NAT, and of machines
    that everybody reaches."""
    nodes = "".join(f'[nodes.{name}]\nlans = ["net"]\n' for name in public)
    return f"""
name = "mesh"
[lans.net]
ipv4 = "203.0.113.0/24"
[lans.home]
ipv4 = "192.168.1.0/24"
[lans.office]
ipv4 = "192.168.2.0/24"
[nodes.alpha]
lans = ["home"]
[nodes.bravo]
lans = ["office"]
{nodes}
[routers.r1]
outside = "net"
inside = ["home"]
nat = "{left}"
[routers.r2]
outside = "net"
inside = ["office"]
nat = "{right}"
"""


# --- looks ------------------------------------------------------------


def status(node: Node) -> Status:
    return ask(node, Status, "status")


def peers(node: Node) -> dict[str, Peer]:
    """Returns the others by name. Who left comes last in the list, and gives way to a present one."""
    return {peer.name: peer for peer in reversed(ask(node, list[Peer], "peers"))}


def plan(node: Node) -> Plan:
    return ask(node, Plan, "plan")


def job(node: Node, name: str) -> Job:
    return ask(node, Job, "jobs", "status", name)


def tasks(node: Node, name: str) -> list[Task]:
    return ask(node, list[Task], "jobs", "tasks", name)


def why(node: Node, source: str, target: str) -> Why:
    return ask(node, Why, "why", source, target)


def sees_alive(node: Node, *names: str) -> Callable[[], bool]:
    """Returns the condition that these members, and no others, are alive, linked and reached by tunnel."""

    def condition() -> bool:
        known = {name: peer for name, peer in peers(node).items() if peer.state not in ("left", "revoked")}
        return set(known) == set(names) and all(
            (peer.state, peer.link, peer.path) == ("alive", "up", "direct") for peer in known.values()
        )

    return condition


def wait_until_whole(lab: Lab, *names: str) -> None:
    """Returns once every member is alive, and reached by a tunnel, for every other."""
    for name in names:
        _wait_until_reached(lab.node(name), [other for other in names if other != name])


def _wait_until_reached(node: Node, others: Sequence[str]) -> None:
    # A tunnel that nothing goes through shakes no hands: the pings are what makes its path known.
    for other in others:
        until(lambda: pings(node, f"{other}.mesh"), f"{node.name} pings {other}", 30)  # noqa: B023
    until(sees_alive(node, *others), f"{node.name} has tunnels to {', '.join(others)}", 60)


def is_running(node: Node) -> bool:
    return node.run(["meshpeer", "status", "--quiet"], check=False).returncode == 0


def interface_keys(node: Node) -> set[str]:
    """Returns the public keys of the peers on the machine's WireGuard interface."""
    return set(node.run(["wg", "show", INTERFACE, "peers"]).stdout.split())


def has_interface(node: Node) -> bool:
    return node.run(["ip", "link", "show", INTERFACE], check=False).returncode == 0


def pings(node: Node, target: str) -> bool:
    return node.run(["ping", "-c1", "-W1", target], check=False).returncode == 0


def footprint(node: Node) -> dict[str, str]:
    """Returns all that a command could leave behind: files with their digests, links, routes, processes."""
    left: dict[str, str] = {}
    for folder in (STATE_DIR, "/run/meshpeer", "/etc/meshpeer"):
        root = node.path(folder)
        for path in sorted(root.rglob("*")):
            data = path.read_bytes() if path.is_file() else b""
            left[f"{folder}/{path.relative_to(root)}"] = hashlib.sha256(data).hexdigest()[:12]
    left["hosts"] = node.path("/etc/hosts").read_text()
    left["links"] = node.run(["ip", "-o", "-br", "link"]).stdout
    left["routes"] = node.run(["ip", "route", "show", "table", "all"]).stdout
    left["processes"] = str(node.pgrep("."))
    return left


# --- faults ------------------------------------------------------------


def call(nodes: Iterable[Node], name: str, address: str) -> None:
    """Makes a name lead to an address on these machines, and nowhere else."""
    for node in nodes:
        lines = [one for one in node.path("/etc/hosts").read_text().splitlines() if name not in one.split()]
        text = "\n".join([*lines, f"{address} {name}", ""])
        # meshpeer keeps a block of its own in that file: it is written in place, as an editor would.
        node.run(["sh", "-c", "cat > /etc/hosts"], input=text)


def kill_agent(node: Node) -> None:
    """``kill -9`` of the agent alone; returns when it is gone."""
    victims = node.pgrep(_AGENT)
    assert victims, f"no agent runs on {node.name}"
    for pid in victims:
        node.kill(pid, signal.SIGKILL)
    until(lambda: not node.pgrep(_AGENT), f"the agent of {node.name} is gone")


def agents(node: Node) -> list[int]:
    return node.pgrep(_AGENT)


def hubs_are_settled(lab: Lab, names: Sequence[str]) -> bool:
    """Says whether these nodes agree on who the hubs are, one and one that stands by for each region, and
    none is about to take over: then they stay until something happens."""
    plans = [plan(lab.node(name)) for name in names]
    seen = {(one.hubs, one.standbys) for one in plans}
    return (
        len(seen) == 1
        and all(len(hubs) == len(standbys) for hubs, standbys in seen)
        and not any(one.coming for one in plans)
    )


def until(condition: Callable[[], bool], what: str, timeout_s: float = 15.0) -> None:
    """Polls until a condition holds; fails after a bound with what was waited for."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_s} s: {what}")
        time.sleep(0.05)


@contextlib.contextmanager
def pinging(node: Node, target: str, *, every_s: float = 0.05) -> Iterator[None]:
    """Pings while the context lives; not one may be lost, but for one on its way at the end."""
    with node.popen(["ping", "-n", "-i", str(every_s), target], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        first = process.stdout.readline()
        assert "icmp_seq=1 " in first, first
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)
            rest = process.stdout.read()
    answered = [1, *(int(number) for number in re.findall(r"icmp_seq=(\d+) ", rest))]
    assert answered == list(range(1, len(answered) + 1)), rest
    (sent,) = re.findall(r"(\d+) packets transmitted", rest)
    assert int(sent) - len(answered) in (0, 1), rest


def unacknowledged(node: Node) -> set[int]:
    """Returns the tasks (of an array job alone in its mesh) whose results rest in a machine's journal."""
    return {row.offer.attempt.task for row in results(node)}


def results(node: Node) -> list[ResultRow]:
    """Returns the results that rest in a machine's journal until they are acknowledged."""
    # SQLite resolves the symbolic link by which node.path() leads into a machine: it has to run there.
    shown = node.run([sys.executable, "-I", "-c", _READ_RESULTS, f"{STATE_DIR}/state.db"]).stdout
    return [cbor.decode(bytes.fromhex(row), ResultRow, bytes_max=ROW_BYTES_MAX) for row in shown.split()]


# --- jobs ------------------------------------------------------------


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """Yields a folder with two files that every machine and uid may write: what tasks say there stays."""
    folder = Path(tempfile.mkdtemp(prefix="meshpeer-test-"))
    folder.chmod(0o755)
    for kind in ("begun", "ended"):
        (folder / kind).touch()
        (folder / kind).chmod(0o666)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def marking_job(folder: Path, count: int, seconds: float) -> str:
    """Returns a job whose every task says in the folder's files where it begins, and where it ends; none gets
    a second attempt because a busy machine lets it take longer than others."""
    mark = f'echo "$index $(hostname)" >> {folder}'
    run = f"{mark}/begun && sleep {seconds} && {mark}/ended"
    return msgspec.json.encode(
        {
            "name": "marks",
            "defaults": {"speculate": False, "retries": 2},
            "tasks": {"nap": {"array": f"0-{count - 1}", "run": run}},
        }
    ).decode()


def marks(folder: Path, kind: str) -> list[tuple[int, str]]:
    """Returns (index, machine) of every task that has begun, or ended, in order."""
    lines = (folder / kind).read_text().splitlines()
    return [(int(index), name) for index, name in (line.split() for line in lines)]


def submit(node: Node, spec: str) -> str:
    """Submits a job from standard input; returns its id."""
    done = node.run(["meshpeer", "jobs", "submit", "-", "--json"], input=spec)
    return msgspec.json.decode(done.stdout, type=Job).id
