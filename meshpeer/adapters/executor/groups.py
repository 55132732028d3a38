"""Control groups for tasks: one for each slot, below one for all of them (cgroups(7)).

    AGENT'S OWN GROUP/meshpeer-ID/          memory of all tasks together; a small share of a busy processor
                                 slot-0/    memory and processes of one attempt, and its slot's helper

Version 2 where memory and pids are delegated to this process, else version 1, each controller where it is.
Version 2 lets no group that divides its memory hold processes itself, so the agent moves into a group
``agent`` beside its tasks'. It does so only where the group is its own to divide: systemd marks such groups
(``Delegate=``), and where no systemd runs nobody else would mind.

What can't be had is a gap that the node tells of, and no error: rlimits stand in, which bound processes one
by one. Files of control groups are the kernel's own: reads are instant, writes may wait and go to a thread.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from meshpeer.core.jobs.cgroups import Hierarchy, counted, find_hierarchies, tasks_memory
from meshpeer.core.jobs.endings import Squeeze
from meshpeer.runtime.ports import Gap

NEEDED = ("memory", "pids")
CPU_WEIGHT = 25
"""Of all tasks together, in version 2; the agent beside them has 100 (cpu.weight)."""
SLOT_CPU_SHARES, CPU_SHARES_MAX = 1_024, 262_144
"""In version 1 single processes may stand beside the tasks' group, each of 1,024 (cpu.shares): a slot weighs
as much as one, however many processes it has."""
HELPER_BYTES = 8 * 1024 * 1024
"""What a slot's helper may take of its group, on top of what the task may."""
HELPER_PROCESSES = 1
AGENT_GROUP = "agent"
REMOVE_S_MAX = 2.0
HINT = "run it as a service (meshpeer service install), or with systemd-run --user -p Delegate=yes"
_PREFIX = "meshpeer-"
_PAUSE_S = 0.005
_ROUNDS_MAX = 1_000
_SYSTEMD = Path("/run/systemd/system")
_DELEGATION_MARKS = ("user.delegate", "trusted.delegate")
_V1_UNLIMITED = "-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bases:
    """Where groups of each controller can be made."""

    version: dict[str, int]
    folders: dict[str, Path]

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(name for name in NEEDED if name not in self.folders)


class SlotGroup:
    """The groups of one slot, or none: then nothing here does anything, and ``held`` says so."""

    def __init__(self, name: str, parents: Bases) -> None:
        self._version = parents.version
        self._folders = {controller: folder / name for controller, folder in parents.folders.items()}
        self._limits: tuple[int, int] | None = None
        self._opened: dict[str, int] = {}

    @property
    def held(self) -> frozenset[str]:
        """Controllers that bound this slot."""
        return frozenset(self._folders)

    def make(self) -> None:
        """Makes the groups; raises ``OSError``."""
        for folder in self._places:
            folder.mkdir(exist_ok=True)
        for name, path in self._counters():
            self._opened[name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def enter(self, pid: int) -> None:
        """Moves a process in, and with it what it will start; raises ``OSError``."""
        for folder in self._places:
            _write(folder / "cgroup.procs", str(pid))

    def limits_differ(self, memory_bytes: int, processes: int) -> bool:
        return bool(self._folders) and self._limits != (memory_bytes, processes)

    def limit(self, memory_bytes: int, processes: int) -> None:
        """Bounds what comes next; 0 for no bound of memory. Raises ``OSError``."""
        self._limits = None
        memory, pids = self._folders.get("memory"), self._folders.get("pids")
        if memory is not None:
            _limit_memory(memory, self._version["memory"], memory_bytes + HELPER_BYTES if memory_bytes else 0)
        if pids is not None:
            _write(pids / "pids.max", str(processes + HELPER_PROCESSES))
        self._limits = (memory_bytes, processes)

    def squeeze(self) -> Squeeze:
        """Returns what was denied to this slot's processes since the group was made."""
        return Squeeze(
            killed_for_memory=counted(self._read("memory"), "oom_kill"),
            forks_refused=counted(self._read("pids"), "max"),
        )

    def kill(self) -> None:
        """Ends every process in the groups: for slots without a user of their own. Raises ``OSError``."""
        if "pids" in self._folders:
            self._limits = None
            _write(self._folders["pids"] / "pids.max", "0")
        for folder in self._places:
            _kill_all(folder)

    def remove(self) -> None:
        """Removes the groups and what runs in them; raises ``OSError``."""
        for descriptor in self._opened.values():
            os.close(descriptor)
        self._opened.clear()
        for folder in self._places:
            remove_group(folder)

    @property
    def _places(self) -> list[Path]:
        return sorted(set(self._folders.values()))

    def _counters(self) -> Iterator[tuple[str, Path]]:
        if "memory" in self._folders:
            name = "memory.events" if self._version["memory"] == 2 else "memory.oom_control"
            yield "memory", self._folders["memory"] / name
        if "pids" in self._folders and (self._folders["pids"] / "pids.events").exists():
            yield "pids", self._folders["pids"] / "pids.events"

    def _read(self, name: str) -> str:
        descriptor = self._opened.get(name)
        return "" if descriptor is None else os.pread(descriptor, 4096, 0).decode("ascii", "replace")


NO_GROUP = SlotGroup("", Bases(version={}, folders={}))


@dataclass(slots=True)
class Groups:
    """All slots' groups of one executor."""

    slots: list[SlotGroup]
    gap: Gap | None = None
    """In what tasks are bounded less than they should be."""
    _parents: list[Path] = field(default_factory=list)
    _locks: list[int] = field(default_factory=list)
    """On each of the parents: who holds none is dead."""

    def make_parents(self) -> None:
        """Makes the group of all slots in each hierarchy; raises ``OSError``."""
        for folder in self._parents:
            if folder.exists():
                remove_group(folder)
            folder.mkdir()
            self._locks.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            fcntl.flock(self._locks[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)

    def remove(self) -> None:
        """Removes all that is empty, and ends what is not."""
        for descriptor in self._locks:
            os.close(descriptor)
        self._locks.clear()
        for group in self.slots:
            with contextlib.suppress(OSError):
                group.remove()
        for folder in self._parents:
            with contextlib.suppress(OSError):
                remove_group(folder)


def make_groups(name: str, slots: int, memory_bytes: int, hierarchies: tuple[Hierarchy, ...]) -> Groups:
    """Makes a group for each slot. ``memory_bytes`` is what all of them have together, or 0 for the usual.

    A folder of the same name is an earlier agent's, and goes first, with what it left running; others that
    nobody holds any more go where they are empty.
    """
    bases = find_bases(hierarchies)
    if not bases.folders:
        return Groups(slots=[NO_GROUP] * slots, gap=_gap(bases))
    parents = Bases(
        version=bases.version, folders={key: folder / name for key, folder in bases.folders.items()}
    )
    made = Groups(slots=[], _parents=sorted(set(parents.folders.values())))
    try:
        for base in sorted(set(bases.folders.values())):
            _sweep(base)
        made.make_parents()
        _divide(parents, slots, memory_bytes)
        for number in range(slots):
            made.slots.append(SlotGroup(f"slot-{number}", parents))
            made.slots[-1].make()
    except OSError as error:
        made.remove()
        return Groups(slots=[NO_GROUP] * slots, gap=_gap(bases, f" ({error.filename}: {error.strerror})"))
    made.gap = _gap(bases) if bases.missing else None
    return made


def group_name(scratch_root: Path) -> str:
    """Returns a name that is this folder's alone on this machine, and the same at every start."""
    status = os.stat(scratch_root)
    return f"{_PREFIX}{status.st_dev:x}-{status.st_ino:x}"


def own_hierarchies() -> tuple[Hierarchy, ...]:
    """Returns where this process stands; nothing where the kernel doesn't say."""
    try:
        membership = Path("/proc/self/cgroup").read_text("utf-8", "replace")
        mounts = Path("/proc/self/mountinfo").read_text("utf-8", "replace")
    except OSError:
        return ()
    return find_hierarchies(membership, mounts)


def find_bases(hierarchies: tuple[Hierarchy, ...], needed: tuple[str, ...] = NEEDED) -> Bases:
    """Returns where groups can be made: version 2 where it has all that is needed, else version 1."""
    version: dict[str, int] = {}
    folders: dict[str, Path] = {}
    for one in hierarchies:
        if one.version == 2:
            base = _claim(Path(one.folder), Path(one.top), needed)
            if base is not None:
                for name in (*needed, "cpu"):
                    if name in _words(base / "cgroup.subtree_control"):
                        version[name], folders[name] = 2, base
                return Bases(version=version, folders=folders)
        else:
            for name in sorted(one.controllers & {*needed, "cpu"}):
                if os.access(one.folder, os.W_OK):
                    version[name], folders[name] = 1, Path(one.folder)
    return Bases(version=version, folders=folders)


def _claim(own: Path, top: Path, needed: tuple[str, ...]) -> Path | None:
    """Returns the group of version 2 that may be divided, having made it so; None where there is none."""
    parent = own.parent
    if own.name == AGENT_GROUP and own != top and _is_divided(parent, needed):
        return parent if os.access(parent, os.W_OK) else None
    if not {*needed} <= _words(own / "cgroup.controllers") or not _may_divide(own):
        return None
    try:
        if (own / "cgroup.type").exists():  # the root of all groups alone may hold processes and be divided
            (own / AGENT_GROUP).mkdir(exist_ok=True)
            _move_all(own, own / AGENT_GROUP)
        for name in needed:
            _write(own / "cgroup.subtree_control", f"+{name}")
        with contextlib.suppress(OSError):
            _write(own / "cgroup.subtree_control", "+cpu")
    except OSError:
        return None
    return own


def _is_divided(group: Path, needed: tuple[str, ...]) -> bool:
    return {*needed} <= _words(group / "cgroup.subtree_control")


def _may_divide(group: Path) -> bool:
    for mark in _DELEGATION_MARKS:
        with contextlib.suppress(OSError):
            if os.getxattr(group, mark) == b"1":
                return True
    return not _SYSTEMD.exists() and os.access(group, os.W_OK)


def _move_all(source: Path, target: Path) -> None:
    for _ in range(_ROUNDS_MAX):  # what forks meanwhile is found in the next round
        pids = _pids(source)
        if not pids:
            return
        for pid in pids:
            try:
                _write(target / "cgroup.procs", str(pid))
            except ProcessLookupError:
                continue
    raise OSError(errno.EBUSY, "the group does not get empty", str(source))


def _divide(parents: Bases, slots: int, memory_bytes: int) -> None:
    """Bounds all tasks together, and lets their slots be bounded."""
    memory, cpu, pids = (parents.folders.get(name) for name in ("memory", "cpu", "pids"))
    if memory is not None:
        if parents.version["memory"] == 1:
            with contextlib.suppress(OSError):  # newer kernels know nothing else
                _write(memory / "memory.use_hierarchy", "1")
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        _limit_memory(memory, parents.version["memory"], tasks_memory(total, memory_bytes))
    if cpu is not None:
        with contextlib.suppress(OSError):
            if parents.version["cpu"] == 2:
                _write(cpu / "cpu.weight", str(CPU_WEIGHT))
            else:
                _write(cpu / "cpu.shares", str(min(slots * SLOT_CPU_SHARES, CPU_SHARES_MAX)))
    for name, folder in (("memory", memory), ("pids", pids)):
        if folder is not None and parents.version[name] == 2:
            _write(folder / "cgroup.subtree_control", f"+{name}")


def _limit_memory(group: Path, version: int, size: int) -> None:
    """Bounds memory and, where it is counted, swap with it."""
    if version == 2:
        with contextlib.suppress(OSError):  # a kernel may come without swap
            _write(group / "memory.swap.max", "0" if size else "max")
        _write(group / "memory.max", str(size) if size else "max")
        return
    limit, both = group / "memory.limit_in_bytes", group / "memory.memsw.limit_in_bytes"
    if both.exists():  # never below the other one, so it is lifted first
        _write(both, _V1_UNLIMITED)
    try:
        _write(limit, str(size) if size else _V1_UNLIMITED)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        _write(group / "memory.force_empty", "0")
        _write(limit, str(size))
    if both.exists() and size:
        _write(both, str(size))


def _sweep(base: Path) -> None:
    """Removes what agents left that were killed, and whose folders are gone with them."""
    for folder in sorted(base.glob(f"{_PREFIX}*")):
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for child in sorted(folder.iterdir()):
                    if child.is_dir():
                        child.rmdir()
                folder.rmdir()
            finally:
                os.close(descriptor)


def remove_group(folder: Path) -> None:
    """Removes a group with all below it; ends what runs there first. Raises ``OSError``."""
    if not folder.exists():
        return
    for child in sorted(folder.iterdir()):
        if child.is_dir():
            remove_group(child)
    deadline = time.monotonic() + REMOVE_S_MAX
    while True:
        _kill_all(folder)
        try:
            folder.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_S)  # a process is still on its way out
        else:
            return


def _kill_all(folder: Path) -> None:
    for _ in range(_ROUNDS_MAX):
        pids = [pid for pid in _pids(folder) if pid]  # 0: in a namespace that can't be seen from here
        killed = False
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                killed = True
        if not killed:
            return
        time.sleep(_PAUSE_S)


def _pids(folder: Path) -> list[int]:
    try:
        return [int(word) for word in (folder / "cgroup.procs").read_text("ascii").split()]
    except FileNotFoundError:
        return []


def _words(file: Path) -> frozenset[str]:
    try:
        return frozenset(file.read_text("ascii").split())
    except OSError:
        return frozenset()


def _write(file: Path, text: str) -> None:
    # Without O_CREAT: what is no control file is an error, not a file.
    descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode("ascii"))
    except OSError as error:
        error.filename = str(file)
        raise
    finally:
        os.close(descriptor)


def _gap(bases: Bases, why: str = "") -> Gap:
    what = "memory of tasks is bounded one process at a time, and not for all together"
    if bases.missing == ("pids",):
        what = "processes of tasks are bounded by their user alone"
    return Gap(what=f"{what}: this agent can't make control groups{why}", hint=HINT)
