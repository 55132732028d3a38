#!/usr/bin/env python3
"""How long a join takes while strangers stand at the door, beside one that nobody disturbs.

    scripts/bench/strangers.py [CONNECTIONS [JOINS]]

One founder on loopback, without tunnels, and machines that join it with an invite, one after the other:
first alone, then while a thousand connections from a thousand addresses stand at the founder's control port.
A third of them say nothing, a third say a ClientHello byte by byte, a third say all of it and never go on.
Whoever is cut comes again. A join is timed from typing `meshpeer join` to its end, with its agent's start.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import trio

CONNECTIONS, JOINS = 1_000, 5
LOOPBACK = "127.0.0.1"
CONFIG = """\
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
PAUSE_S = 0.5
"""Between being cut and coming again; and between two bytes of a slow ClientHello."""
READY_S = 60


def main() -> int:
    connections = int(sys.argv[1]) if len(sys.argv) > 1 else CONNECTIONS
    joins = int(sys.argv[2]) if len(sys.argv) > 2 else JOINS
    with tempfile.TemporaryDirectory(prefix="mp-strangers.") as folder, Mesh(Path(folder)) as mesh:
        alone = [mesh.join() for _ in range(joins)]
        show("alone", alone)
        with flood(mesh.port, connections) as strangers:
            disturbed = [mesh.join() for _ in range(joins)]
            cut = strangers.cut()
        show(f"with {connections}", disturbed)
        ratio = statistics.median(disturbed) / statistics.median(alone)
        print(f"strangers cut meanwhile: {cut}; ratio of medians {ratio:.2f}")
    return 0


def show(what: str, times: list[float]) -> None:
    print(f"join {what}: median {statistics.median(times):.2f} s, worst {max(times):.2f} s of {len(times)}")


class Failed(Exception):
    """A command of meshpeer's ended badly; the text is what it said."""


# --- a mesh on loopback -------------------------------------------------------------------------------------


@dataclass
class Mesh:
    """A founder that takes joins, and whoever joined; all end with the context."""

    folder: Path
    port: int = 0
    names: list[str] = field(default_factory=list)
    invite: str = ""

    def __enter__(self) -> Mesh:
        (self.folder / "meshpeer.toml").write_text(CONFIG)
        self.port = free_port()
        self.run("alpha", "init", "--name", "alpha", "--detach", "--control-port", str(self.port))
        self.invite = self.run("alpha", "invite", "--quiet", "--uses", "100").strip()
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(self.names):
            with contextlib.suppress(Failed):
                self.run(name, "stop")

    def join(self) -> float:
        """Lets one more machine join; returns how long that took, in seconds."""
        name = f"node{len(self.names)}"
        began = time.monotonic()
        seed = f"{LOOPBACK}:{self.port}"
        self.run(
            name, "join", seed, "--invite", self.invite, "--name", name, "--detach", "--control-port", "0"
        )
        return time.monotonic() - began

    def run(self, name: str, *words: str) -> str:
        if name not in self.names:
            self.names.append(name)
        places = ["--state-dir", f"{name}/state", "--run-dir", f"{name}/run", "--config", "meshpeer.toml"]
        done = subprocess.run(
            [sys.executable, "-m", "meshpeer", *words, *places],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=READY_S,
        )
        if done.returncode:
            raise Failed(f"{name}: {done.stderr}")
        return done.stdout


def free_port() -> int:
    """Returns a port that nobody listens on, below those that the kernel gives to whoever connects."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port


# --- strangers ----------------------------------------------------------------------------------------------


class Strangers:
    """The process that they are in."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def wait_until_open(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "open\n"

    def wait_until_cut(self) -> None:
        """Returns once one was cut after all were there."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "cut\n"

    def cut(self) -> int:
        """Ends them; returns how many connections were cut."""
        self._process.terminate()
        said, _ = self._process.communicate(timeout=READY_S)
        return int(said.split()[-1])


@contextlib.contextmanager
def flood(port: int, connections: int) -> Iterator[Strangers]:
    """Holds connections open from a process of its own, once as many were made."""
    command = [sys.executable, __file__, "--flood", str(port), str(connections)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        strangers = Strangers(process)
        strangers.wait_until_open()
        yield strangers
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


async def stand_at(port: int, connections: int) -> None:
    """Connects again and again until it is told to end; says then how often it was cut."""
    made = cut = 0
    told = False
    hello = client_hello()

    async def stand(number: int) -> None:
        nonlocal made, cut, told
        source = f"127.{number // 62_500 + 1}.{number // 250 % 250}.{number % 250 + 1}"
        while True:
            stream = await connect(source, port)
            if stream is not None:
                made += 1
                if made == connections:
                    print("open", flush=True)
                await behave(stream, number % 3, hello)
                await trio.aclose_forcefully(stream)
                cut += 1
                if made >= connections and not told:
                    told = True
                    print("cut", flush=True)
            await trio.sleep(PAUSE_S)

    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            for number in range(connections):
                nursery.start_soon(stand, number)
            async for _ in signals:
                nursery.cancel_scope.cancel()
    print(cut, flush=True)


async def connect(source: str, port: int) -> trio.SocketStream | None:
    end = trio.socket.socket()
    try:
        await end.bind((source, 0))
        await end.connect((LOOPBACK, port))
    except OSError:
        end.close()
        return None
    return trio.SocketStream(end)


async def behave(stream: trio.SocketStream, kind: int, hello: bytes) -> None:
    """Says nothing, or a ClientHello byte by byte, or all of it; then waits until it is cut."""
    async with trio.open_nursery() as nursery:
        if kind == 1:
            nursery.start_soon(drip, stream, hello)
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            if kind == 2:
                await stream.send_all(hello)
            while await stream.receive_some():
                pass
        nursery.cancel_scope.cancel()


async def drip(stream: trio.SocketStream, hello: bytes) -> None:
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        for byte in hello:
            await stream.send_all(bytes([byte]))
            await trio.sleep(PAUSE_S)


def client_hello() -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    sent = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent).do_handshake()
    return sent.read()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--flood"]:
        trio.run(stand_at, int(sys.argv[2]), int(sys.argv[3]))
        sys.exit(0)
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
