"""Processes of one side of scripts/bench/membership, and what all of them saw.

Both sides speak alike: a JSON object a line with the time and what was seen; commands are lines. Times are
the seer's own clock (one machine, one clock), so nothing that reads them late adds to them.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

END_S = 10.0


class Late(Exception):
    """Not everybody saw it within the bound."""

    def __init__(self, what: str, timeout_s: float, missing: Iterable[str]) -> None:
        names = sorted(missing)
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        super().__init__(f"{what}: {len(names)} had not seen it after {timeout_s:.0f} s ({shown})")


class Ended(Exception):
    """A process ended that should not have; its log says why."""


@dataclass(frozen=True, slots=True)
class Sight:
    at: float
    who: str
    seen: str


class Fleet:
    """The processes of one side; kills, at its end, those that it started and no others."""

    def __init__(self, logs: Path) -> None:
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.sights: list[Sight] = []
        self._logs = logs
        self._selector = selectors.DefaultSelector()
        self._rests: dict[str, bytes] = {}

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        deadline = time.monotonic() + END_S
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                with contextlib.suppress(OSError):
                    stream.close()

    def spawn(self, name: str, command: Sequence[str | Path]) -> None:
        with (self._logs / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, bufsize=0
            )
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        self._selector.register(process.stdout, selectors.EVENT_READ, name)
        self._rests[name] = b""
        self.processes[name] = process

    @property
    def living(self) -> set[str]:
        return {name for name, process in self.processes.items() if process.poll() is None}

    def tell(self, names: Iterable[str], line: str) -> None:
        for name in names:
            stdin = self.processes[name].stdin
            assert stdin is not None
            # Who died has its say in what it did not see.
            with contextlib.suppress(BrokenPipeError):
                stdin.write(line.encode() + b"\n")

    def pump(self, seconds: float) -> None:
        """Takes in what is said during that time."""
        deadline = time.monotonic() + seconds
        while (rest := deadline - time.monotonic()) > 0:
            self._take(rest)

    def _take(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            data = os.read(key.fd, 65536)
            if not data:
                self._selector.unregister(key.fileobj)
                continue
            *lines, self._rests[key.data] = (self._rests[key.data] + data).split(b"\n")
            for line in lines:
                document = json.loads(line)
                self.sights.append(Sight(document["t"], key.data, document["seen"]))

    def wait(
        self, what: str, names: Iterable[str], *, since: int = 0, timeout_s: float = 60.0
    ) -> dict[str, float]:
        """Returns when each of ``names`` first saw what begins so, from the sight of number ``since`` on;
        raises ``Late`` where not all do within the bound.
        """
        return self.wait_for(lambda seen: seen == what, what, names, since=since, timeout_s=timeout_s)

    def wait_for(
        self,
        matches: Callable[[str], bool],
        what: str,
        names: Iterable[str],
        *,
        since: int = 0,
        timeout_s: float = 60.0,
    ) -> dict[str, float]:
        missing = set(names)
        found: dict[str, float] = {}
        deadline = time.monotonic() + timeout_s
        ended: set[str] = set()
        while True:
            for sight in self.sights[since:]:
                if sight.who in missing and matches(sight.seen):
                    found[sight.who] = sight.at
                    missing.discard(sight.who)
            since = len(self.sights)
            if not missing:
                return found
            if time.monotonic() > deadline:
                raise Late(what, timeout_s, missing)
            if ended & missing:
                raise Ended(f"{what}: {', '.join(sorted(ended & missing))} ended while that was waited for")
            # Their last words may still be in the pipe: they are read before anybody is given up.
            ended = missing - self.living
            self._take(0.1)


# --- costs ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cost:
    """What a node costs while nothing happens, on average over all."""

    cpu_percent: float
    rss_mib: float
    bytes_per_s: float


def measure_cost(fleet: Fleet, seconds: float) -> Cost:
    """Watches living processes for so long. Bytes are all that loopback carried, each counted once (it is
    alone in its network namespace), with the headers of IP, TCP or UDP, and acknowledgements.
    """
    names = sorted(fleet.living)
    pids = [fleet.processes[name].pid for name in names]
    begun, cpu, carried = time.monotonic(), sum(map(_cpu_s, pids)), _loopback_bytes()
    fleet.pump(seconds)
    took = time.monotonic() - begun
    return Cost(
        cpu_percent=(sum(map(_cpu_s, pids)) - cpu) / took / len(pids) * 100,
        rss_mib=sum(map(_rss_mib, pids)) / len(pids),
        bytes_per_s=(_loopback_bytes() - carried) / took / len(pids),
    )


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _loopback_bytes() -> int:
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, figures = line.partition(":")
        if name.strip() == "lo":
            return int(figures.split()[8])
    raise RuntimeError("no loopback in /proc/net/dev")
