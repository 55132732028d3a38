"""Traffic that runs while something happens to a lab: pings at a steady pace, and TCP conversations that must
live.

    with Traffic(lab) as traffic:
        traffic.ping("alpha", "bravo", "10.10.0.10")
        traffic.talk("alpha", "bravo", "10.10.0.10")
        ...
        for ping in traffic.pings: print(ping.source, ping.target, ping.gaps())

Times are Unix seconds, so what is seen on several nodes can be laid beside what the caller did.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from meshlab.lab import Lab

PING_EVERY_S = 0.02
GAP_S = 0.1
"""Shorter ones are no gap: a busy machine makes them."""
TALK_PORT = 7_007
TALK_EVERY_S = 0.1

_LISTEN = """
import socket, threading
def answer(connection):
    with connection:
        while data := connection.recv(4096):
            connection.sendall(data)
server = socket.create_server(("::", {port}), family=socket.AF_INET6, dualstack_ipv6=True)
print("listening", flush=True)
while True:
    threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()
"""
_TALK = """
import socket, sys, time
connection = socket.create_connection((sys.argv[1], {port}), timeout=20)
connection.settimeout(60)
print("open", time.time(), flush=True)
try:
    number = 0
    while True:
        line = b"%d\\n" % number
        connection.sendall(line)
        answer = b""
        while len(answer) < len(line):
            part = connection.recv(len(line) - len(answer))
            if not part:
                raise OSError("closed by the other end")
            answer += part
        if answer != line:
            raise OSError("other bytes came back")
        print("answered", time.time(), flush=True)
        number += 1
        time.sleep({every})
except OSError as error:
    print("lost", time.time(), error, flush=True)
"""


@dataclass(frozen=True, slots=True)
class Gap:
    """Nothing was answered between two moments (Unix seconds)."""

    began_s: float
    ended_s: float

    @property
    def length_s(self) -> float:
        return self.ended_s - self.began_s


@dataclass(frozen=True, slots=True)
class Flow:
    """What goes from one node to another, and what came back."""

    source: str
    target: str
    process: subprocess.Popen[str]
    out: Path

    def answers(self) -> list[float]:
        """Returns when something was answered, in order."""
        text = self.out.read_text()
        found = re.findall(r"^(?:\[|answered )([\d.]+)(?:\].* time=|$)", text, re.MULTILINE)
        return [float(at) for at in found]

    def gaps(self, since_s: float = 0.0, until_s: float = float("inf"), least_s: float = GAP_S) -> list[Gap]:
        """Returns the longer silences that touch a span of time, in order; the one that lasts is not among
        them."""
        pairs = itertools.pairwise(self.answers())
        return [Gap(a, b) for a, b in pairs if b - a > least_s and b >= since_s and a <= until_s]

    def longest_s(self, since_s: float = 0.0, until_s: float = float("inf")) -> float:
        """Returns the longest silence that touches a span of time; what never was answered is endless."""
        if not [at for at in self.answers() if at >= since_s]:
            return float("inf")
        return max((gap.length_s for gap in self.gaps(since_s, until_s, 0.0)), default=0.0)

    def missed(self, since_s: float = 0.0, until_s: float = float("inf")) -> int:
        """Returns how many pings sent between two answers were never answered; of a span of time, between
        answers that it touches the time between."""
        found = re.findall(r"^\[([\d.]+)\].* icmp_seq=(\d+) .* time=", self.out.read_text(), re.MULTILINE)
        # An answer may overtake another, or come twice.
        answered = sorted({int(seq): float(at) for at, seq in found}.items())
        pairs = itertools.pairwise(answered)
        return sum(after - seq - 1 for (seq, a), (after, b) in pairs if b >= since_s and a <= until_s)

    def lost(self) -> str:
        """Returns why a conversation ended by itself; empty while it lives."""
        found = re.search(r"^lost [\d.]+ (.*)$", self.out.read_text(), re.MULTILINE)
        return found[1] if found else ""


class Traffic:
    """Starts flows in a lab, and ends them all when it is left."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._stack = contextlib.ExitStack()
        self._listening: set[str] = set()
        self.pings: list[Flow] = []
        self.talks: list[Flow] = []

    def __enter__(self) -> Self:
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def ping(self, source: str, target: str, address: str) -> Flow:
        """Pings an address of ``target`` every 20 ms from now on."""
        words = ["ping", "-n", "-D", "-i", str(PING_EVERY_S), address]
        flow = self._flow(source, target, words)
        self.pings.append(flow)
        return flow

    def talk(self, source: str, target: str, address: str, every_s: float = TALK_EVERY_S) -> Flow:
        """Opens one TCP connection to ``target`` and has a word answered on it again and again."""
        if target not in self._listening:
            self._listening.add(target)
            listen = self._flow(target, target, [sys.executable, "-c", _LISTEN.format(port=TALK_PORT)])
            while "listening" not in listen.out.read_text():
                if listen.process.poll() is not None:
                    raise RuntimeError(f"{target} can't listen on port {TALK_PORT}")
        script = _TALK.format(port=TALK_PORT, every=every_s)
        flow = self._flow(source, target, [sys.executable, "-c", script, address])
        self.talks.append(flow)
        return flow

    def _flow(self, source: str, target: str, words: list[str]) -> Flow:
        out = self._folder / f"{len(list(self._folder.iterdir()))}-{source}-{target}"
        with out.open("w") as file:
            process = self._lab.node(source).popen(words, stdout=file, stderr=subprocess.STDOUT)
        self._stack.callback(_end, process)
        return Flow(source, target, process, out)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
