"""A mesh on loopback that outlives its founder and its root: what a person types, and what is seen then.

Whole agents, without interfaces, one after another; clocks are set ahead for the agents that are to see a
later day. How long it takes is not asserted.
"""

from __future__ import annotations

import datetime
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509

from meshpeer.adapters.control.client import ControlClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

BOUND_S = 60.0
DAY = 86_400
PASSPHRASE, NEW_PASSPHRASE = "correct horse battery", "staple of another root"
SHIFTED = """
import os, time
real = time.time
time.time = lambda: real() + float(os.environ.get("CLOCK_AHEAD_S", "0"))
"""
"""As ``sitecustomize`` it sets the clock of every Python program ahead that is told so."""
SETTINGS = """
[mesh]
mdns = false
hosts_file = false
[wireguard]
backend = "none"
[control]
web_port = 0
[jobs]
accept = false
"""


class Machines:
    """Nodes in folders of their own, on one loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: set[str] = set()
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(SHIFTED)
        (folder / "settings.toml").write_text(SETTINGS)

    def run(self, name: str, *words: str, ahead_s: float = 0, code: int = 0, **secrets: str) -> str:
        """Runs a command on a node; returns what it printed."""
        places = ("--state-dir", self.folder / name, "--run-dir", self.folder / f"{name}-run")
        done = subprocess.run(
            [sys.executable, "-m", "meshpeer", *map(str, places), *words],
            env={
                **os.environ,
                **secrets,
                "MESHPEER_CONFIG": str(self.folder / "settings.toml"),
                "PYTHONPATH": str(self.folder / "site"),
                "CLOCK_AHEAD_S": str(ahead_s),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, (name, words, done.stdout, done.stderr)
        if code:
            lines = done.stderr.splitlines()
            assert [one[:7] for one in lines] == ["error: ", " hint: "], done.stderr
        return done.stdout or done.stderr

    def agent(self, name: str) -> ControlClient:
        """Returns a client of a node's agent: who only looks needs no process of its own."""
        return ControlClient(self.folder / f"{name}-run" / "agent.sock")

    def start(self, name: str, *words: str, ahead_s: float = 0) -> None:
        verb = (*(words or ("up",)), "--detach", *(("--control-port", "0") if words else ()))
        more = ("--name", name, "--endpoint", "127.0.0.1") if words else ()
        self.running.add(name)
        self.run(name, *verb, *more, ahead_s=ahead_s)

    def stop(self, *names: str) -> None:
        for name in names:
            self.running.discard(name)
            self.run(name, "stop")

    def port(self, name: str) -> int:
        return self.agent(name).status().node.control_port

    def log(self) -> str:
        logs = self.folder.glob("*/agent.log")
        return "\n".join(f"--- {path}\n{path.read_text()[-4_000:]}" for path in logs)


@pytest.fixture(scope="module")
def mesh() -> Iterator[Machines]:
    folder = Path(tempfile.mkdtemp(prefix="meshpeer-test-"))
    os.chmod(folder, 0o711)
    machines = Machines(folder)
    try:
        machines.start("alpha", "init")
        text = machines.run("alpha", "invite", "--quiet", "--uses", "2", "--allow", "admin").strip()
        for name in ("bravo", "charlie"):
            machines.start(name, "join", text)
        yield machines
        print(machines.log())
    finally:
        machines.stop(*machines.running)
        shutil.rmtree(folder)


def test_a_second_issuer_and_a_root_in_a_file(mesh: Machines) -> None:
    until(lambda: is_durable(mesh, "bravo"), "bravo is admitted")
    last = mesh.run("alpha", "leave", code=4)
    assert "the mesh's last issuer" in last
    refused = mesh.run("bravo", "issuer", "add", "charlie", code=4)
    assert "the root's key is not on this node" in refused
    assert mesh.run("alpha", "issuer", "add", "bravo").startswith("bravo is an issuer until ")
    assert oct((mesh.folder / "bravo/keys/issuer.key").stat().st_mode & 0o777) == "0o600"
    until(lambda: len(mesh.agent("charlie").issuers()) == 2, "charlie has heard of it")
    by_node = {one.node: one for one in mesh.agent("charlie").issuers()}
    assert by_node.keys() == {"alpha", "bravo"}
    until(lambda: all(one.alive for one in mesh.agent("charlie").issuers()), "both are up")
    assert len(mesh.run("charlie", "issuer", "list").splitlines()) == 2

    file = mesh.folder / "root.pem"
    mesh.run("alpha", "root", "export", str(file), "--remove", MESHPEER_ROOT_PASSPHRASE=PASSPHRASE)
    assert oct(file.stat().st_mode & 0o777) == "0o600"
    assert file.read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert not (mesh.folder / "alpha/keys/root.key").exists()
    mesh.run("alpha", "root", "export", str(file), code=4, MESHPEER_ROOT_PASSPHRASE=PASSPHRASE)
    wrong = mesh.run("bravo", "root", "use", str(file), code=2, MESHPEER_ROOT_PASSPHRASE="not that one")
    assert "can't be decrypted" in wrong


def test_a_one_use_invite_that_two_issuers_took_admits_whom_came_first(mesh: Machines) -> None:
    """While alpha and bravo do not hear each other each admits one; bravo does without the founder."""
    invite = mesh.run("bravo", "invite", "--quiet").strip()
    mesh.stop("bravo", "charlie")
    alpha = f"127.0.0.1:{mesh.port('alpha')}"
    mesh.start("echo", "join", alpha, "--invite", invite)
    until(lambda: is_durable(mesh, "echo"), "alpha admits echo")
    mesh.stop("echo", "alpha")
    mesh.start("bravo")
    mesh.start("delta", "join", invite)
    until(lambda: is_durable(mesh, "delta"), "bravo admits delta, the founder being gone")
    issued = {one.node: one.issued for one in mesh.agent("bravo").issuers()}
    assert issued["bravo"] >= 1

    mesh.start("alpha")
    until(lambda: "delta" not in names(mesh, "bravo"), "delta is in no more")
    (notice,) = [one for one in warnings(mesh, "bravo") if "more often than it allows" in one]
    assert "its places are held by echo" in notice
    until(
        lambda: any(
            "the invite was used 1 of 1 times already (by echo)" in one for one in warnings(mesh, "delta")
        ),
        "delta knows why",
    )
    mesh.stop("delta")


def test_roots_follow_each_other_and_who_was_away_meanwhile_comes_back(mesh: Machines) -> None:
    file, new = mesh.folder / "root.pem", mesh.folder / "new.pem"
    secret, other = {"MESHPEER_ROOT_PASSPHRASE": PASSPHRASE}, {"MESHPEER_ROOT_PASSPHRASE": NEW_PASSPHRASE}
    lent = ("root", "use", str(file), "--")
    # Charlie and echo are down since before.
    said = mesh.run("bravo", *lent, "issuer", "add", "alpha", **secret)
    assert "alpha is an issuer until" in said
    mesh.run(
        "bravo",
        *(*lent, "root", "rotate", "--to", str(new)),
        MESHPEER_NEW_ROOT_PASSPHRASE=NEW_PASSPHRASE,
        **secret,
    )
    until(lambda: len(mesh.agent("alpha").roots().roots) == 2, "alpha has heard of it")
    first, second = mesh.agent("alpha").roots().roots
    assert (first.members, first.retired_at) == (0, None)
    assert second.members >= 2
    refused = mesh.run("bravo", *lent, "root", "rotate", "--to", str(mesh.folder / "x.pem"), code=4, **secret)
    assert "another root follows this one" in refused

    mesh.run("bravo", "root", "use", str(new), "--", "root", "retire", **other)
    until(lambda: mesh.agent("alpha").roots().roots[0].retired_at, "alpha has heard of it")
    mesh.start("charlie")
    until(lambda: alive(mesh, "charlie") >= {"alpha", "bravo"}, "charlie is back")
    assert "retired at" in mesh.run("charlie", "root", "list")
    assert is_durable(mesh, "charlie")
    text = mesh.run("bravo", "invite", "--quiet").strip()
    mesh.start("foxtrot", "join", text)
    until(lambda: is_durable(mesh, "foxtrot"), "who joins below the new root is in")
    mesh.stop("foxtrot")
    # What the file of the new root signs, reaches a member as a line of text, too.
    request = mesh.folder / "request.txt"
    request.write_text(mesh.run("charlie", "issuer", "request", "--quiet"))
    signed = mesh.folder / "signed.txt"
    signed.write_text(
        mesh.run("nobody", "root", "use", str(new), "--", "issuer", "sign", str(request), **other)
    )
    mesh.run("charlie", "issuer", "accept", str(signed))
    assert {one.node for one in mesh.agent("charlie").issuers()} == {"alpha", "bravo", "charlie"}


def test_certificates_are_renewed_and_a_node_that_no_issuer_hears_warns(mesh: Machines) -> None:
    before = shown_until(mesh.port("bravo"))
    mesh.stop("alpha", "bravo", "charlie")
    for name in ("bravo", "charlie"):
        mesh.start(name, ahead_s=36 * DAY)
    port = mesh.port("bravo")
    until(lambda: shown_until(port) >= before + 35 * DAY, "bravo shows a renewed certificate")
    assert ends_at(mesh, "bravo") == pytest.approx(shown_until(port), abs=1)
    until(lambda: alive(mesh, "bravo") == {"charlie"}, "the two are linked with it")
    mesh.stop("bravo", "charlie")

    mesh.start("echo", ahead_s=320 * DAY)
    found = warnings(mesh, "echo")
    assert any(one.startswith("this node's certificate ends in 44 days") for one in found), found
    assert any(one.startswith("no issuer was heard of") for one in found), found


# --- helpers ------------------------------------------------------------


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < end, f"in vain: {what}"
        time.sleep(0.2)


def is_durable(mesh: Machines, name: str) -> bool:
    return mesh.agent(name).status().node.admission == "durable"


def warnings(mesh: Machines, name: str) -> list[str]:
    return list(mesh.agent(name).status().warnings)


def names(mesh: Machines, name: str) -> set[str]:
    return {one.name for one in mesh.agent(name).peers()}


def alive(mesh: Machines, name: str) -> set[str]:
    return {one.name for one in mesh.agent(name).peers() if (one.state, one.link) == ("alive", "up")}


def ends_at(mesh: Machines, name: str) -> float:
    text = mesh.agent(name).status().node.certificate_ends
    return datetime.datetime.fromisoformat(text).timestamp()


def shown_until(port: int) -> float:
    """Returns the end of the certificate that a node shows to whoever dials it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain) as secured,
    ):
        shown = secured.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown).not_valid_after_utc.timestamp()
