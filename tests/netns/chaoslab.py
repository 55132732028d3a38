"""A mesh of five in one lab, the faults of a plan done to it, and all of it whole again.

The clock of each machine is what a file of it says that it is off by: every Python program there takes it so.
There are no interfaces: jobs go over links, and five agents without one are up sooner.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import chaosplan
import meshkit
from chaosplan import NAMES, Fault, host_of
from meshlab import CommandFailed, Lab, Node

from meshpeer.runtime.control import Peer

UIDS = "62600-62663"
"""Not the usual ones: an agent that starts on this machine, outside of the lab, ends what runs as those."""
CLOCK = "/run/clock"
STATE_SIZE = "1g"
ROOM_KIB = 64
USES = 60
COMMAND_S = 40.0
WHOLE_S = 120.0
LATER_S = 0.5
_SHIFTED = """
import time
_real, _mono, _read = time.time, time.monotonic, [0.0, -1.0]
def _shifted():
    if _mono() > _read[1]:
        try:
            with open("/run/clock") as file:
                _read[0] = float(file.read())
        except (OSError, ValueError):
            _read[0] = 0.0
        _read[1] = _mono() + 0.2
    return _real() + _read[0]
time.time = _shifted
"""


class Mesh:
    """Five agents that are started and joined as people do it, whatever state a fault left them in."""

    def __init__(self, lab: Lab, clock: Path, keep: Path) -> None:
        self.lab = lab
        self._keep = keep
        self._env = {"PYTHONPATH": str(clock)}
        self._lives = itertools.count(1)
        self.was_full: set[str] = set()
        """Whose disk was full since the mesh was whole."""
        for name in NAMES:
            self.node(name).limit_state_dir(STATE_SIZE)
            self.node(name).put_file(
                "/etc/meshpeer/meshpeer.toml",
                f'[wireguard]\nbackend = "none"\n[jobs]\nslots = {chaosplan.SLOTS}\nuids = "{UIDS}"\n',
            )
        self._do(chaosplan.ISSUER, "init", "--name", chaosplan.ISSUER, "--detach")
        self._invite = meshkit.invite(self.node(chaosplan.ISSUER), "--uses", str(USES))
        for name in NAMES[1:]:
            self.join(name)
        self.wait_until_whole()

    def node(self, name: str) -> Node:
        return self.lab.node(name)

    def up(self, name: str) -> None:
        """Starts an agent that does not run; what it says when it can't is a finding."""
        if not meshkit.agents(self.node(name)):
            self._do(name, "up", "--detach")

    def join(self, name: str) -> None:
        """Lets a machine without state in, as often as it takes: who it asks may be away."""
        deadline = time.monotonic() + WHOLE_S
        while True:
            try:
                self._do(name, "join", self._invite, "--name", name, "--detach")
                return
            except CommandFailed:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1.0)

    def wait_until_whole(self) -> None:
        """Returns once every agent runs, and is alive and linked for every other.

        One whose disk was full may have stopped since there is room again; any other has to run.
        """
        for name in NAMES:
            if name in self.was_full:
                self.up(name)
        self.was_full.clear()
        for name in NAMES:
            meshkit.until(lambda: self._sees_all(name), f"{name} has links to all", WHOLE_S)  # noqa: B023

    def keep_log(self, name: str) -> None:
        """Copies an agent's log to where it outlives the machine's state."""
        log = self.node(name).path(meshkit.LOG)
        if log.is_file():
            shutil.copyfile(log, self._keep / f"{name}-{next(self._lives):03d}.log")

    def logs(self) -> list[Path]:
        """Keeps the logs of all agents as they are now; returns those and all that were kept before."""
        for name in NAMES:
            self.keep_log(name)
        return sorted(self._keep.glob("*.log"))

    def _sees_all(self, name: str) -> bool:
        try:
            peers = meshkit.ask(self.node(name), list[Peer], "peers")
        except CommandFailed:
            return False
        linked = {host_of(one.name) for one in peers if (one.state, one.link) == ("alive", "up")}
        return linked >= set(NAMES) - {name}

    def _do(self, name: str, *words: str) -> None:
        meshkit.meshpeer(self.node(name), *words, env=self._env, timeout=COMMAND_S)


class Harm:
    """Does faults to a mesh in their order, and undoes each when its time is over.

    A fault whose node is still away waits, and so does one that would take a third node away: ``done`` says
    what came when in truth.
    """

    def __init__(self, mesh: Mesh, faults: Sequence[Fault]) -> None:
        self._mesh = mesh
        self._waiting = list(faults)
        self._ends: list[tuple[float, int, Fault]] = []
        self._began = time.monotonic()
        self._order = itertools.count()
        self.done: list[str] = []

    @property
    def over(self) -> bool:
        return not self._waiting and not self._ends

    def step(self) -> None:
        """Does what is due now."""
        now = time.monotonic() - self._began
        if self._ends and self._ends[0][0] <= now:
            _, _, fault = heapq.heappop(self._ends)
            if fault.kind == "wipe" and chaosplan.ISSUER not in self.steadies():
                heapq.heappush(self._ends, (now + LATER_S, next(self._order), fault))
                return
            self._undo(fault)
            self.note(f"{fault.node} is back from: {chaosplan.WORDS[fault.kind]}")
            return
        for fault in self._waiting:
            if fault.at_s <= now and self._may(fault):
                self._waiting.remove(fault)
                self.note(f"{fault.node}: {fault.words().partition(': ')[2]}")
                self._do(fault)
                ends_s = time.monotonic() - self._began + fault.for_s
                heapq.heappush(self._ends, (ends_s, next(self._order), fault))
                return

    def undo_all(self) -> None:
        for _, _, fault in self._ends:
            with contextlib.suppress(CommandFailed):
                self._undo(fault)
        self._ends.clear()

    def steadies(self) -> list[str]:
        """Returns who is not away now."""
        away = {fault.node for _, _, fault in self._ends}
        return [name for name in NAMES if name not in away]

    def _may(self, fault: Fault) -> bool:
        under_way = [one for _, _, one in self._ends]
        if fault.kind == "cut" and any(one.kind == "cut" for one in under_way):
            return False
        away = {name for one in under_way if one.kind != "clock" for name in (one.node, *one.side)}
        more = {fault.node, *fault.side}
        busy = {name for one in under_way for name in (one.node, *one.side)}
        if more & busy:
            return False
        return fault.kind == "clock" or len(away | more) <= chaosplan.HARMED_MAX

    def _do(self, fault: Fault) -> None:
        mesh, node = self._mesh, self._mesh.node(fault.node)
        match fault.kind:
            case "kill":
                meshkit.kill_agent(node)
            case "stop":
                node.pause()
            case "cut":
                side = [fault.node, *fault.side]
                mesh.lab.partition(side, [name for name in NAMES if name not in side])
            case "unplug":
                mesh.lab.unplug(fault.node)
            case "restart":
                meshkit.meshpeer(node, "down", timeout=COMMAND_S)
            case "power":
                node.crash()
            case "wipe":
                mesh.keep_log(fault.node)
                node.crash(wipe_state=True)
            case "fill":
                mesh.was_full.add(fault.node)
                fill(node)
            case "clock":
                node.put_file(CLOCK, f"{fault.jump_s}")
            case _:
                raise AssertionError(fault.kind)
        if fault.kind in ("restart", "power", "wipe"):
            meshkit.until(lambda: not meshkit.agents(node), f"the agent of {fault.node} is gone")

    def _undo(self, fault: Fault) -> None:
        mesh, node = self._mesh, self._mesh.node(fault.node)
        match fault.kind:
            case "stop":
                node.resume()
            case "cut":
                mesh.lab.heal()
            case "unplug":
                mesh.lab.plug(fault.node)
            case "wipe":
                mesh.join(fault.node)
            case "fill":
                make_room(node)
                mesh.up(fault.node)
            case "clock":
                node.put_file(CLOCK, "0")
            case _:
                mesh.up(fault.node)

    def note(self, what: str) -> None:
        """Files something that happened, with its time."""
        self.done.append(f"{time.monotonic() - self._began:6.1f} s  {what}")


def fill(node: Node) -> None:
    """Leaves no byte of the state folder's file system free."""
    found = os.statvfs(node.path(meshkit.STATE_DIR))
    used_kib = (found.f_blocks - found.f_bfree) * found.f_frsize // 1024
    node.limit_state_dir(f"{used_kib + ROOM_KIB}k")
    node.run(["sh", "-c", f"cat /dev/zero > {meshkit.STATE_DIR}/filler"], check=False)


def make_room(node: Node) -> None:
    node.run(["rm", "-f", f"{meshkit.STATE_DIR}/filler"])
    node.limit_state_dir(STATE_SIZE)


@contextlib.contextmanager
def mesh_of_five(keep: Path) -> Iterator[Mesh]:
    """Runs the mesh while the context lives; logs that would be lost with a machine's state are kept."""
    with Lab.from_toml(meshkit.lan(*NAMES)) as lab, meshkit.open_folder() as clock:
        (clock / "sitecustomize.py").write_text(_SHIFTED)
        yield Mesh(lab, clock, keep)
