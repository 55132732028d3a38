"""A lab: its machines, its faults, and its end.

The machines are processes of the lab's owner. Each watches a pipe whose only writer is the owner, so that
they end with it: on return from the ``with`` block, on an exception, on Ctrl-C, on SIGTERM, and on SIGKILL.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from meshlab import registry
from meshlab.errors import CommandFailed, LabError
from meshlab.faults import fault_rules
from meshlab.network import build_network, in_network
from meshlab.node import Node, await_ready, start_init
from meshlab.reboots import forget_translations, move_outside
from meshlab.spec import DropSpec, LabSpec, check_percent, missing_on_this_machine, parse_lab
from meshlab.wiring import plan_wiring

CLOSE_TIMEOUT_S = 10.0
_FABRIC = "fabric"
_POLL_S = 0.002
_numbers = itertools.count(1)


class Lab:
    """Machines on LANs, from a LabSpec; running between ``start`` and ``close``, best by ``with``."""

    def __init__(self, spec: LabSpec, *, kept: bool = False) -> None:
        self.spec = spec
        self.wiring = plan_wiring(spec)
        number = next(_numbers)
        self.name = f"{spec.name}-{os.getpid()}" + (f"-{number}" if number > 1 else "")
        self._kept = kept
        self._owner_pid = os.getpid()
        self._alive_fd: int | None = None
        self._inits: dict[str, subprocess.Popen[str]] = {}
        self._machines: dict[str, Node] = {}
        self._drops: list[DropSpec] = list(spec.drops)

    @classmethod
    def from_toml(cls, source: str | Path) -> Lab:
        """Makes a lab, not started yet, from a path or from TOML text. Raises LabError for a bad file."""
        return cls(parse_lab(source))

    def start(self) -> None:
        """Starts all machines and wires them up; returns when every address answers.

        Raises LabError, and leaves nothing behind, when this machine can't do it.
        """
        if lacking := missing_on_this_machine():
            raise LabError(f"labs need {lacking}", "run scripts/bootstrap as root")
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends every process, namespace and interface of the lab. Closing twice does nothing."""
        # After os.fork() the copy in the child owns nothing: closing it there must not end the parent's lab.
        if self._alive_fd is None or os.getpid() != self._owner_pid:
            return
        os.close(self._alive_fd)
        self._alive_fd = None
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        for name, init in self._inits.items():
            if name != _FABRIC:
                init.kill()
        while any(init.poll() is None for init in self._inits.values()):
            for machine in self._machines.values():
                machine.reap()
            if time.monotonic() > deadline:
                for init in self._inits.values():
                    init.kill()
                raise LabError(
                    f"lab {self.name} did not end within {CLOSE_TIMEOUT_S} s", "look for its processes"
                )
            time.sleep(_POLL_S)
        for init in self._inits.values():
            for stream in (init.stdout, init.stderr):
                if stream is not None:
                    stream.close()
        registry.record_path(self.name).unlink(missing_ok=True)

    def __enter__(self) -> Lab:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def nodes(self) -> Mapping[str, Node]:
        """The nodes by name, without routers."""
        return {name: self._machines[name] for name in self.spec.nodes}

    def node(self, name: str) -> Node:
        """Returns a running node or router. Raises LabError when there is none of this name."""
        try:
            return self._machines[name]
        except KeyError:
            known = ", ".join(self._machines) or "none: the lab is not running"
            raise LabError(f"there is no node {name!r}", f"known: {known}") from None

    def partition(self, side: Sequence[str], other: Sequence[str]) -> None:
        """Cuts two sets of machines off from each other, both ways, until ``heal``."""
        self._add(DropSpec(sources=tuple(side), targets=tuple(other)))
        self._add(DropSpec(sources=tuple(other), targets=tuple(side)))
        self._apply_drops()

    def one_way(self, sources: Sequence[str], targets: Sequence[str]) -> None:
        """Drops what ``sources`` send to ``targets``; the other direction still works."""
        self._add(DropSpec(sources=tuple(sources), targets=tuple(targets)))
        self._apply_drops()

    def loss(self, percent: float, side: Sequence[str], other: Sequence[str]) -> None:
        """Loses ``percent`` of the packets between two sets, in each direction; replaces a loss set
        before."""
        for sources, targets in ((tuple(side), tuple(other)), (tuple(other), tuple(side))):
            self._drops = [
                d for d in self._drops if d.percent == 100 or (d.sources, d.targets) != (sources, targets)
            ]
            self._add(DropSpec(sources=sources, targets=targets, percent=check_percent(percent)))
        self._apply_drops()

    def heal(self) -> None:
        """Ends all partitions and losses, those of the lab's file included."""
        self._drops = []
        self._apply_drops()

    def unplug(self, name: str, lan: str | None = None) -> None:
        """Pulls a machine's cables (or one): it sees its links go down, others just stop hearing it."""
        self._set_ports(name, lan, "down")

    def plug(self, name: str, lan: str | None = None) -> None:
        """Puts back the cables that ``unplug`` pulled; addresses and routes are as in the lab's file."""
        self._set_ports(name, lan, "up")

    def reboot_router(self, name: str, address: str | None = None) -> None:
        """Empties a router's table of translations; with ``address`` (``ADDRESS/LENGTH``) it has another
        outside address from then on."""
        router, spec = self.node(name), self.spec.routers.get(name)
        if spec is None:
            raise LabError(f"{name} is no router", f"known: {', '.join(self.spec.routers) or 'none'}")
        if address is None:
            forget_translations(router)
        else:
            move_outside(router, spec, address)

    def delay(self, milliseconds: float, names: Sequence[str], *, jitter_ms: float = 0.0) -> None:
        """Holds every packet *to* these machines for a time; 0 ends it.

        Raises LabError where the kernel has no ``netem`` (ask ``has_delay`` first).
        """
        if not self.has_delay():
            raise LabError("this kernel has no netem: packets can't be delayed", "load the module sch_netem")
        for port in (i.port for name in names for i in self.wiring.of(name)):
            self._fabric_command(["tc", "qdisc", "del", "dev", port, "root"], check=False)
            if milliseconds > 0:
                timing = [f"{milliseconds}ms", f"{jitter_ms}ms"]
                self._fabric_command(["tc", "qdisc", "add", "dev", port, "root", "netem", "delay", *timing])

    def has_delay(self) -> bool:
        """Says whether this kernel has ``tc netem``, by trying it on the fabric's loopback."""
        try:
            self._fabric_command(["tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"])
        except (CommandFailed, FileNotFoundError):
            return False
        self._fabric_command(["tc", "qdisc", "del", "dev", "lo", "root"])
        return True

    def _start(self) -> None:
        alive_reader, self._alive_fd = os.pipe()
        try:
            # The fabric keeps the machine's own folders: it removes the lab's record at the very end.
            path = registry.record_path(self.name)
            for name in (_FABRIC, *self.spec.nodes, *self.spec.routers):
                self._inits[name] = start_init(
                    name,
                    alive_fd=alive_reader,
                    private=name != _FABRIC,
                    forward=name in self.spec.routers,
                    remove_at_end=path if name == _FABRIC else None,
                )
        finally:
            os.close(alive_reader)
        for name, init in self._inits.items():
            await_ready(name, init)
            if name != _FABRIC:
                addresses = {i.name: [a.ip for a in i.addresses] for i in self.wiring.of(name)}
                self._machines[name] = Node(name, init.pid, addresses)
        pids = {name: machine.init_pid for name, machine in self._machines.items()}
        self._write_record(pids)
        build_network(self.spec, self.wiring, self._inits[_FABRIC].pid, pids)
        self._apply_drops()

    def _write_record(self, pids: Mapping[str, int]) -> None:
        registry.write_record(
            registry.LabRecord(
                name=self.name,
                kept=self._kept,
                owner=registry.ProcessId.of(self._owner_pid),
                fabric=registry.ProcessId.of(self._inits[_FABRIC].pid),
                inits={name: registry.ProcessId.of(pid) for name, pid in pids.items()},
                addresses={
                    name: {i.name: [str(a.ip) for a in i.addresses] for i in self.wiring.of(name)}
                    for name in pids
                },
            )
        )

    def _add(self, drop: DropSpec) -> None:
        for name in (*drop.sources, *drop.targets):
            self.node(name)
        self._drops.append(drop)

    def _apply_drops(self) -> None:
        in_network(
            self._inits[_FABRIC].pid, ["nft", "-f", "-"], fault_rules(self._drops, self.spec, self.wiring)
        )

    def _set_ports(self, name: str, lan: str | None, state: str) -> None:
        for interface in self.wiring.of(self.node(name).name):
            if lan in (None, interface.name):
                self._fabric_command(["ip", "link", "set", "dev", interface.port, state])

    def _fabric_command(self, argv: Sequence[str], *, check: bool = True) -> str:
        return in_network(self._inits[_FABRIC].pid, argv, check=check)
