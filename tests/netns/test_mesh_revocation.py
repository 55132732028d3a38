"""A node is shut out of a mesh of five: no link, no tunnel, no task, and no way back.

How long it takes is printed, not asserted: several agents share the cores of a test machine.
"""

from __future__ import annotations

import contextlib
import datetime
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import meshkit
import pytest
from meshlab import Lab, Node

from meshpeer.runtime.control import Peer, RevocationMade

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(420)]

NAMES = ("alpha", "bravo", "charlie", "delta", "echo")
STAY = NAMES[:-1]
SHIFTED = """
import os, time
real = time.time
time.time = lambda: real() - float(os.environ["CLOCK_BEHIND_S"])
"""
"""As ``sitecustomize`` it sets the clock of every Python program back that is told so."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """What was seen when echo was shut out."""

    invite: str
    """The one that all came with; it has uses left."""
    job: str
    own_job: str
    """Of echo itself, with replicas elsewhere."""
    key: str
    """Echo's WireGuard key."""
    ipv4: str
    stopped_after_s: dict[str, float]
    """When its ping through a tunnel was answered last, by who pinged."""
    removed_after_s: dict[str, float]
    """When an interface held its key no more."""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with meshkit.open_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def theirs() -> Iterator[Path]:
    with meshkit.open_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with meshkit.shown_lab(request, meshkit.lan(*NAMES)) as lab:
        meshkit.found(lab.node("alpha"))
        yield lab


@pytest.fixture(scope="module")
def revoked(lab: Lab, folder: Path, theirs: Path) -> Revoked:
    """Echo is shut out while it answers pings, runs tasks of alpha, and has tasks of its own run."""
    alpha, echo = lab.node("alpha"), lab.node("echo")
    invite = meshkit.invite(alpha, "--uses", "9")
    for name in NAMES[1:]:
        meshkit.join(lab.node(name), invite)
    meshkit.wait_until_whole(lab, *NAMES)
    key, ipv4 = meshkit.status(echo).node.public_key, meshkit.status(echo).node.ipv4
    own_job = meshkit.submit(echo, meshkit.marking_job(theirs, 4, 100))
    meshkit.until(lambda: bool(hosts(theirs) - {"echo"}), "others run echo's tasks")
    job = meshkit.submit(alpha, meshkit.marking_job(folder, 60, 1))
    meshkit.until(lambda: "echo" in hosts(folder), "echo runs alpha's tasks", 30)
    with contextlib.ExitStack() as stack:
        pings = {name: stack.enter_context(Pinging(lab.node(name), ipv4)) for name in STAY}
        back = stack.enter_context(Pinging(echo, meshkit.status(alpha).node.ipv4))
        waits = {name: stack.enter_context(until_removed(lab.node(name), key)) for name in STAY}
        for ping in (*pings.values(), back):
            ping.wait_for_answer()
        began = time.time()
        made = meshkit.ask(alpha, RevocationMade, "revoke", "echo", "--reason", "laptop stolen")
        took_s = time.time() - began
        assert made.members == ("echo",)
        removed = {name: float(wait.communicate(timeout=30)[0]) - began for name, wait in waits.items()}
        for name, ping in (*pings.items(), ("echo", back)):
            meshkit.until(ping.has_stopped, f"{name}'s ping is answered no more", 30)
        stopped = {name: ping.last_answer() - began for name, ping in (*pings.items(), ("echo", back))}
    signed_s = signed_at(alpha) - began
    print(f"the command took {took_s:.2f} s; alpha had signed after {signed_s:.2f} s, from then on:")
    for what, figures in (("peer removed", removed), ("last answer to a ping", stopped)):
        shown = ", ".join(f"{name} {after - signed_s:.2f} s" for name, after in figures.items())
        print(f"{what} after {shown}")
    return Revoked(invite, job, own_job, key, ipv4, stopped, removed)


# --- out ------------------------------------------------------------


def test_no_member_has_a_link_or_a_tunnel_to_it(lab: Lab, revoked: Revoked) -> None:
    for name in STAY:
        node = lab.node(name)
        meshkit.until(lambda: meshkit.peers(node)["echo"].state == "revoked", f"{name} says revoked")  # noqa: B023
        seen = meshkit.peers(node)["echo"]
        assert (seen.link, seen.path) == ("down", "none")
        assert seen.because.startswith("revoked by alpha at ")
        assert seen.because.endswith(": laptop stolen")
        assert revoked.key not in meshkit.interface_keys(node)
        assert not meshkit.pings(node, revoked.ipv4)
    meshkit.until(
        lambda: {meshkit.status(lab.node(name)).agreement.agree for name in STAY} == {4}, "all agree", 60
    )  # type: ignore[union-attr]


def test_everybody_says_who_was_revoked_by_whom_when_and_why(lab: Lab, revoked: Revoked) -> None:
    for name in STAY:
        text = meshkit.meshpeer(lab.node(name), "status")
        assert "echo was revoked by alpha at " in text
        assert "UTC: laptop stolen" in text
        assert "(1 revoked)" in text
    why = meshkit.fails(lab.node("bravo"), 2, "why", "delta", "echo")
    assert why.what.startswith("echo was revoked by alpha at ")
    listed = meshkit.meshpeer(lab.node("charlie"), "revoke")
    assert len(listed.splitlines()) == 2, "the node, and the invite that it came with"


def test_the_revoked_node_says_in_two_lines_what_happened(lab: Lab, revoked: Revoked) -> None:
    echo = lab.node("echo")
    meshkit.until(lambda: meshkit.status(echo).health == "revoked", "echo knows")
    first, second = meshkit.status(echo).warnings[:2]
    assert first.startswith("this node was revoked by alpha at ")
    assert first.endswith(": laptop stolen")
    assert "`meshpeer leave`" in second
    assert meshkit.fails(echo, 2, "why", "alpha").what == first
    for words in (["peers"], ["plan"], ["map"], ["doctor"], ["jobs", "list"], ["revoke"]):
        done = echo.run(["meshpeer", *words], check=False)
        assert done.returncode in (0, 1), (words, done.stderr)
        assert "Traceback" not in done.stderr


def test_the_revoked_node_claims_to_know_nothing_of_the_others(lab: Lab, revoked: Revoked) -> None:
    echo = lab.node("echo")
    said = meshkit.status(echo)
    assert (said.agreement, said.channel) == (None, None)
    assert {one.path for one in meshkit.peers(echo).values()} == {"none"}


def test_its_tasks_run_elsewhere_and_tasks_for_it_end(
    lab: Lab, revoked: Revoked, folder: Path, theirs: Path
) -> None:
    alpha = lab.node("alpha")
    alpha.run(["meshpeer", "jobs", "watch", revoked.job], timeout=120)
    done = meshkit.job(alpha, revoked.job)
    assert (done.state, done.tasks.succeeded) == ("succeeded", 60)
    begun, ended = meshkit.marks(folder, "begun"), meshkit.marks(folder, "ended")
    assert {index for index, _ in ended} == set(range(60))
    cut_short = {index for index, name in begun if name == "echo"} - {
        index for index, name in ended if name == "echo"
    }
    assert cut_short, "echo ran something when it was shut out"
    assert {name for index, name in ended if index in cut_short} <= set(STAY)
    for name in NAMES:
        if name != "echo":
            node = lab.node(name)
            meshkit.until(lambda: not node.pgrep("sleep 100"), f"{name} runs nothing of echo's")  # noqa: B023
    meshkit.until(
        lambda: meshkit.job(alpha, revoked.own_job).state == "cancelled", "its job is cancelled", 60
    )
    assert {index for index, name in meshkit.marks(theirs, "ended") if name in STAY} == set()


# --- no way back ------------------------------------------------------------


@pytest.mark.parametrize("behind_s", [0, 1_800, 86_400], ids=["right", "half an hour back", "a day back"])
@pytest.mark.parametrize("wiped", [False, True], ids=["as it was", "without its journal"])
def test_it_can_not_come_back_with_its_old_certificate(
    lab: Lab, revoked: Revoked, clock: Path, wiped: bool, behind_s: int
) -> None:
    echo = lab.node("echo")
    if meshkit.agents(echo):
        meshkit.kill_agent(echo)
    if wiped:
        for path in echo.path(meshkit.STATE_DIR).glob("state.db*"):
            path.unlink()
    before = refusals(lab)
    meshkit.meshpeer(echo, "up", "--detach", env=shifted(clock, behind_s))
    if not wiped or behind_s < 86_400:
        # Without its journal it knows nothing, dials, and is shown why it is refused. A day ago the others'
        # certificates were not valid yet, so then it takes no word of theirs.
        meshkit.until(lambda: meshkit.status(echo).health == "revoked", "echo knows", 60)
    meshkit.until(lambda: refusals(lab) > before, "members refuse it", 60)
    assert_out(lab, revoked)


@pytest.mark.parametrize("behind_s", [0, 1_800], ids=["right", "half an hour back"])
def test_its_machine_can_not_come_back_with_the_old_invite(
    lab: Lab, revoked: Revoked, clock: Path, behind_s: int
) -> None:
    echo = lab.node("echo")
    leave_behind(echo)
    for name in STAY:
        seed = f"{lab.node(name).address()}:51821"
        words = ("join", seed, "--invite", revoked.invite, "--name", "echo", "--detach")
        failure = meshkit.fails(echo, 4, *words, env=shifted(clock, behind_s))
        assert "its invite was revoked at " in failure.what
        assert "meshpeer invite" in failure.hint
    assert_out(lab, revoked)


def test_a_revoked_invite_lets_nobody_in(lab: Lab, revoked: Revoked) -> None:
    alpha, echo = lab.node("alpha"), lab.node("echo")
    leave_behind(echo)
    invite = meshkit.invite(alpha, "--uses", "3")
    made = meshkit.ask(alpha, RevocationMade, "revoke", invite, "--root", "--reason", "posted")
    assert (made.revocation.what, made.revocation.by, made.members) == ("invite", "the root", ())
    again = meshkit.ask(alpha, RevocationMade, "revoke", made.revocation.id)
    assert (again.done_before, again.revocation) == (True, made.revocation)
    assert meshkit.fails(lab.node("bravo"), 4, "revoke", "charlie").what.startswith(
        "this node may not revoke"
    )
    meshkit.until(
        lambda: all(len(meshkit.status(lab.node(name)).revocations) == 3 for name in STAY), "all know", 30
    )
    for name in STAY:
        seed = f"{lab.node(name).address()}:51821"
        failure = meshkit.fails(echo, 4, "join", seed, "--invite", invite, "--name", "echo", "--detach")
        assert failure.what.endswith(": posted")


@pytest.mark.parametrize("behind_s", [0, 600], ids=["right", "ten minutes back"])
def test_an_expired_invite_lets_nobody_in(lab: Lab, revoked: Revoked, clock: Path, behind_s: int) -> None:
    """The joiner's own clock may say that it holds still: members go by theirs."""
    echo = lab.node("echo")
    leave_behind(echo)
    invite = meshkit.expired_invite(lab.node("alpha"))
    for name in STAY:
        seed = f"{lab.node(name).address()}:51821"
        words = ("join", seed, "--invite", invite, "--name", "echo", "--detach")
        failure = meshkit.fails(echo, 4, *words, env=shifted(clock, behind_s))
        print(f"{name}, {behind_s} s back: {failure.what} ({failure.hint})")
    assert_out(lab, revoked)


def test_members_that_restart_still_know(lab: Lab, revoked: Revoked) -> None:
    for name in STAY:
        meshkit.kill_agent(lab.node(name))
    for name in STAY:
        meshkit.meshpeer(lab.node(name), "up", "--detach")
    meshkit.until(lambda: meshkit.status(lab.node("bravo")).members.alive == 4, "four are alive", 60)
    assert_out(lab, revoked)
    for name in STAY:
        assert meshkit.peers(lab.node(name))["echo"].state == "revoked"


def test_its_machine_is_back_as_a_new_node_with_a_new_invite(lab: Lab, revoked: Revoked) -> None:
    echo = lab.node("echo")
    leave_behind(echo)
    meshkit.join(echo, meshkit.invite(lab.node("alpha")))
    for name in STAY:
        node = lab.node(name)
        meshkit.until(lambda: meshkit.pings(node, "echo.mesh"), f"{name} pings echo", 30)  # noqa: B023
    states = {one.state for one in meshkit.ask(lab.node("bravo"), list[Peer], "peers") if one.name == "echo"}
    assert states == {"alive", "revoked"}


def test_what_was_revoked_beyond_a_partition_is_true_there_once_it_is_over(
    lab: Lab, revoked: Revoked
) -> None:
    """Echo is a new node now, and shut out by the near side while it is cut off with the far one."""
    echo, near, far = lab.node("echo"), ("alpha", "bravo"), ("charlie", "delta")
    key = meshkit.status(echo).node.public_key
    lab.partition(near, [*far, "echo"])
    meshkit.meshpeer(lab.node("alpha"), "revoke", meshkit.status(echo).node.id)
    meshkit.until(lambda: not any(has(lab, name, key) for name in near), "the near side is rid of it", 30)
    assert all(has(lab, name, key) for name in far)
    lab.heal()
    began = time.monotonic()
    meshkit.until(lambda: not any(has(lab, name, key) for name in far), "the far side is, too", 60)
    print(f"the far side was rid of it {time.monotonic() - began:.1f} s after the end, redialling included")
    for name in (*near, *far):
        node = lab.node(name)
        others = {other for other in STAY if other != name}
        meshkit.until(lambda: linked(node) == others, f"{name} is linked to all others", 60)  # noqa: B023
    meshkit.until(lambda: meshkit.status(echo).health == "revoked", "echo knows", 60)


# --- helpers ------------------------------------------------------------


@pytest.fixture(scope="module")
def clock() -> Iterator[Path]:
    with meshkit.open_folder() as folder:
        (folder / "sitecustomize.py").write_text(SHIFTED)
        yield folder


def shifted(clock: Path, behind_s: int) -> Mapping[str, str]:
    return {"PYTHONPATH": str(clock), "CLOCK_BEHIND_S": str(behind_s)}


class Pinging:
    """A ping that runs while the context lives, 50 a second, each answer with its time."""

    def __init__(self, node: Node, target: str) -> None:
        self._node = node
        self._target = target

    def __enter__(self) -> Pinging:
        folder = self._stack = contextlib.ExitStack()
        self._file = folder.enter_context(meshkit.open_folder()) / "begun"
        self._out = folder.enter_context(self._file.open("w"))
        words = ["ping", "-D", "-n", "-i", "0.02", self._target]
        self._process = folder.enter_context(self._node.popen(words, stdout=self._out))
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._stack.close()

    def answers(self) -> list[float]:
        lines = self._file.read_text().splitlines()
        return [
            float(line[1 : line.index("]")]) for line in lines if "icmp_seq=" in line and "bytes from" in line
        ]

    def wait_for_answer(self) -> None:
        meshkit.until(lambda: bool(self.answers()), f"{self._target} answers {self._node.name}", 30)

    def last_answer(self) -> float:
        return self.answers()[-1]

    def has_stopped(self) -> bool:
        return time.time() - self.last_answer() > 2.0


@contextlib.contextmanager
def until_removed(node: Node, key: str) -> Iterator[subprocess.Popen[str]]:
    """Runs a loop that ends, with the time, once an interface holds a key no more."""
    look = f"while wg show {meshkit.INTERFACE} peers | grep -qF '{key}'; do sleep 0.02; done; date +%s.%N"
    with node.popen(["sh", "-c", look], stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def signed_at(node: Node) -> float:
    """Returns when an agent took the revocation, by its log."""
    (line,) = [
        one for one in node.path(meshkit.LOG).read_text().splitlines() if "a member was revoked" in one
    ]
    return datetime.datetime.fromisoformat(line.split()[0]).timestamp()


def has(lab: Lab, name: str, key: str) -> bool:
    return key in meshkit.interface_keys(lab.node(name))


def linked(node: Node) -> set[str]:
    return {one.name for one in meshkit.ask(node, list[Peer], "peers") if one.link == "up"}


def hosts(folder: Path) -> set[str]:
    return {name for _, name in meshkit.marks(folder, "begun")}


def refusals(lab: Lab) -> float:
    """Returns how many greetings of revoked nodes the members have refused so far."""
    total = 0.0
    for name in STAY:
        page = lab.node(name).run(["curl", "-s", "http://127.0.0.1:51822/metrics"], check=False).stdout
        total += sum(
            float(line.split()[1])
            for line in page.splitlines()
            if line.startswith("meshpeer_links_revoked_total ")
        )
    return total


def leave_behind(node: Node) -> None:
    """Makes a machine forget that it ever was a node."""
    if meshkit.agents(node):
        meshkit.kill_agent(node)
    node.run(["ip", "link", "del", meshkit.INTERFACE], check=False)
    for path in node.path(meshkit.STATE_DIR).iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def assert_out(lab: Lab, revoked: Revoked) -> None:
    for name in STAY:
        assert revoked.key not in meshkit.interface_keys(lab.node(name))
        assert meshkit.peers(lab.node(name))["echo"].link == "down"
        assert meshkit.status(lab.node(name)).members.total == 4
